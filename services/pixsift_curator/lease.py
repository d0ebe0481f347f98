"""Renews an exporter's lease in the ledger while it works."""

import threading
from collections.abc import Callable

from aws_lambda_powertools import Logger

from pixsift.errors import PixsiftError
from pixsift.threads import start_guarded

Renew = Callable[[str, int], bool]


class Lease:
    """Renews the lease in the background; ``LeaseLostError`` shows at the next fenced write."""

    def __init__(
        self, renew: Renew, snapshot_id: str, fence: int, *, seconds: float, logger: Logger
    ) -> None:
        """renew: False when the lease is lost. seconds: how long a lease lasts."""
        self._renew = renew
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
                if not self._renew(self._snapshot_id, self._fence):
                    return
            except PixsiftError as error:
                self._logger.warning("lease not renewed", reason=str(error))
