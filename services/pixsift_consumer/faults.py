"""Named points at which a test may kill this process: a hook for the kill tests.

``PIXSIFT_FAULT_POINT=fetched`` kills with SIGKILL at the first passage, ``fetched:5`` at the fifth.
Unset, which is how it runs, a point costs one comparison.
"""

import os
import signal
import threading

from pixsift.errors import SettingError

POINTS = (
    "received", "fetched", "decoded", "embedded", "planned", "lock_held", "inserted",
    "committed", "acked",
)  # fmt: skip
VARIABLE = "PIXSIFT_FAULT_POINT"


class FaultPoints:
    """Dies at one point, if configured. Raises UserError for a point that does not exist."""

    def __init__(self, wanted: str = "") -> None:
        self._point, _, count = wanted.partition(":")
        self._left = int(count or 1)
        self._lock = threading.Lock()
        if self._point and self._point not in POINTS:
            raise SettingError(f"{VARIABLE}={wanted}: no such point; there are {', '.join(POINTS)}")

    def passed(self, point: str) -> None:
        """Report that ``point`` is reached."""
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
