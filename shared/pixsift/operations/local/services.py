"""The services as processes of the local loop: starts one, and waits until it works. A service with
a wrong setting ends only seconds after its start. So ``up`` waits for the log line with which each
service says that it works, and shows the last log lines of one that ended.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pixsift.adapters.local.processes import ProcessRecord, spawn
from pixsift.errors import DependencyDownError

SERVER = "pixsift-server"
SHADOW = "pixsift-consumer-shadow"
"""A consumer of a second embedding space, whose model is tried next to the one in use."""
NEEDED = ("pixsift-consumer", "pixsift-curator")
"""Without these two nothing is curated; the server is left out where its packages are missing."""
SERVICES = {
    "pixsift-consumer": "pixsift_consumer.main",
    "pixsift-curator": "pixsift_curator.main",
    SHADOW: "pixsift_consumer.main",
    SERVER: "pixsift_server.main",
}
_SAYS = {
    "pixsift-consumer": b'"message":"started"',
    "pixsift-curator": b'"message":"curator ready"',
    SHADOW: b'"message":"started"',
    SERVER: b'"message":"server ready"',
}
_QUICK_TO_STOP = {"PIXSIFT_POLL_SECONDS": "2", "PIXSIFT_REQUEST_POLL_SECONDS": "2"}
"""A service ends when its long poll ends; twenty seconds are too long to wait at a keyboard."""
_READY_SECONDS = 60.0
_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True, slots=True)
class StartedService:
    """One service that was started just now."""

    process: ProcessRecord
    log_offset: int
    """Bytes of its log that are from earlier runs."""

    def is_ready(self) -> bool:
        """Whether it has said that it works. Raises DependencyDownError when it ended instead."""
        is_alive = (
            self.process.is_alive()
        )  # asked first: the log then has everything that it wrote before its end
        log = Path(self.process.log)
        if _SAYS[self.process.name] in log.read_bytes()[self.log_offset :]:
            return True
        if not is_alive:
            said = self.process.tail(1) or "its log is empty"
            raise DependencyDownError(f"{self.process.name} ended: {said} (its log: {log})")
        return False


def is_server_installed() -> bool:
    """Whether the packages of the extra ``server`` are there."""
    return all(find_spec(name) is not None for name in ("fastapi", "uvicorn"))


def start_service(name: str, folder: Path, environment: Mapping[str, str]) -> StartedService:
    """Start one of ``SERVICES`` in ``folder``, where its log is too."""
    log = folder / f"{name}.log"
    offset = log.stat().st_size if log.exists() else 0
    process = spawn(
        name, [sys.executable, "-c", f"from {SERVICES[name]} import main; main()"],
        environment={**_QUICK_TO_STOP, **environment}, log=log, cwd=folder,
    )  # fmt: skip
    return StartedService(process, offset)


def wait_until_ready(
    services: Sequence[StartedService],
    say: Callable[[str], None],
    *,
    seconds: float = _READY_SECONDS,
) -> None:
    """Wait until each service says that it works, and report one that takes longer. Raises
    DependencyDownError with the last log lines of one that ended. A slow service is not stopped: it
    may download a model, or PIXSIFT_LOG_LEVEL may keep it silent.
    """
    started = time.monotonic()
    waiting = [service for service in services if not service.is_ready()]
    reported_at = 0.0
    while waiting and (waited := time.monotonic() - started) < seconds:
        if waited - reported_at >= _SECONDS_BETWEEN_LINES:
            reported_at = waited
            names = ", ".join(service.process.name for service in waiting)
            say(f"waiting for {names}: {waited:.0f} of at most {seconds:.0f} s")
        time.sleep(0.1)
        waiting = [service for service in waiting if not service.is_ready()]
    for service in waiting:
        name, log = service.process.name, service.process.log
        say(f"{name} is not ready after {seconds:.0f} s, its log is {log}")
