"""What an exporter tells the ledger while it works: that it lives, and what it has copied."""

import threading
import time
from types import TracebackType

from aws_lambda_powertools import Logger

from pixsift.adapters.ledger.snapshots import LeaseLostError, Snapshots
from pixsift.errors import PixsiftError
from pixsift.ports import CopyResult
from pixsift.worker import start_guarded

_FLUSH_ITEMS, _FLUSH_SECONDS = 200, 2.0
"""Copies between two writes of progress: at most this much is copied again after a kill."""


class Lease:
    """Renews the lease in the background; ``LeaseLostError`` shows at the next fenced write."""

    def __init__(
        self, snapshots: Snapshots, snapshot_id: str, fence: int, *, seconds: float, logger: Logger
    ) -> None:
        self._snapshots = snapshots
        self._snapshot_id = snapshot_id
        self._fence = fence
        self._seconds = seconds
        self._logger = logger
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        self._thread = start_guarded(self._run, name="lease", logger=self._logger)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._seconds / 3):
            try:
                self._snapshots.renew(self._snapshot_id, self._fence, lease_seconds=self._seconds)
            except LeaseLostError:
                return
            except PixsiftError as error:
                self._logger.warning("lease not renewed", reason=str(error))


class CopyProgress:
    """Writes copied items to the ledger in groups."""

    def __init__(self, snapshots: Snapshots, snapshot_id: str, fence: int) -> None:
        self._snapshots = snapshots
        self._snapshot_id = snapshot_id
        self._fence = fence
        self._copied: dict[int, str] = {}
        self._flushed_at = time.monotonic()

    def add(self, result: CopyResult) -> None:
        self._copied[result.item.rank] = result.checksum
        waited = time.monotonic() - self._flushed_at
        if len(self._copied) >= _FLUSH_ITEMS or waited >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._snapshots.mark_copied(self._snapshot_id, self._fence, self._copied)
        self._copied = {}
        self._flushed_at = time.monotonic()
