"""What tells the ledger that an exporter lives while it works."""

import threading

from aws_lambda_powertools import Logger

from pixsift.adapters.ledger.snapshots import LeaseLostError, Snapshots
from pixsift.errors import PixsiftError
from pixsift.threads import start_guarded


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

    def __exit__(self, *_: object) -> None:
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
