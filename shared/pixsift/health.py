"""The heartbeat of a service: a file that it touches, and the command that checks it.

``python -m pixsift.health`` exits 0 or 1. It imports no library, because it starts every half
minute next to the service. The file is touched every turn of the loop, and whenever an object is
done, since a turn may hold a thousand. A service that waits for a dependency touches it as well: it
is alive, and killing it would not bring the dependency back. One whose login is refused writes that
into the file: only a new process is given a new password.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixsift.text import printable

MAX_AGE_SECONDS = 120.0
"""Well above a long poll of 20 s and the slowest batch of a CPU."""
_BUSY_SECONDS = 30.0


class Heartbeat:
    """Touches the file of the health check; does nothing where no file is set."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def touch(self) -> None:
        """Alive, with nothing wrong that a restart would fix."""
        self._write("")

    def refuse(self, reason: str) -> None:
        """Alive, but only a new process can go on; ``reason`` is what the health check says."""
        self._write(reason)

    @contextmanager
    def busy(self, longest_seconds: float, *, every: float = _BUSY_SECONDS) -> Iterator[None]:
        """Keep touching the file during one long piece of work, for at most ``longest_seconds``."""
        over = threading.Event()
        until = time.monotonic() + longest_seconds

        def beat() -> None:
            while not over.wait(every) and time.monotonic() < until:
                self.touch()

        thread = threading.Thread(target=beat, name="health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _write(self, text: str) -> None:
        if self._path is None:
            return
        with suppress(
            OSError
        ):  # then the heartbeat is missing or old, and the health check says so
            if text or (self._path.exists() and self._path.stat().st_size):
                self._path.write_text(text, "utf-8")
            else:
                self._path.touch()


def problem(path: str, *, now: float, max_age_seconds: float = MAX_AGE_SECONDS) -> str | None:
    """What is wrong with the heartbeat, or None. now: seconds since the epoch."""
    if not path:
        return "PIXSIFT_HEALTH_FILE is not set: no heartbeat to check"
    try:
        age = now - Path(path).stat().st_mtime
        said = Path(path).read_text("utf-8", "replace").strip()
    except OSError as error:
        return f"no heartbeat: {error}"
    if age > max_age_seconds:
        return f"last heartbeat {age:.0f} s ago"
    return said or None


def main() -> None:
    """Exit 1 with a line on stderr when the service seems to hang, or cannot go on."""
    if found := problem(os.environ.get("PIXSIFT_HEALTH_FILE", ""), now=time.time()):
        sys.stderr.write(f"{printable(found)}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
