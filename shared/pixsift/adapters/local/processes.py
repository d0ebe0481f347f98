"""Processes of the local loop that outlive the command which started them.

A process is known by its id and the moment it started: ids are used again, and another process with
a reused id must not be stopped.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pixsift.adapters.local.private import append_privately
from pixsift.errors import DependencyDownError


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process, as kept in a file."""

    name: str
    pid: int
    started: str
    """From /proc, or from ps where there is none."""
    log: str

    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return _started(self.pid) == self.started

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        with suppress(OSError):
            return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-lines:])
        return ""


def spawn(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, cwd: Path
) -> ProcessRecord:
    """Start ``command`` in a session of its own, so that a Ctrl-C at the terminal does not reach
    it."""
    with append_privately(log) as stream:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            list(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            env=dict(environment), cwd=cwd, start_new_session=True,
        )  # fmt: skip
    started = _started(process.pid)
    # From here on the record identifies it, in this process and in others: Popen may forget it.
    process.returncode = 0
    if started is None:
        raise DependencyDownError(f"{name} exited at once: see {log}")
    return ProcessRecord(name, process.pid, started, str(log))


def ask_to_stop(record: ProcessRecord) -> None:
    """Ask it to end, and do not wait."""
    with suppress(ProcessLookupError):
        if record.is_alive():
            os.kill(record.pid, signal.SIGTERM)


def stop(record: ProcessRecord, *, seconds: float = 20.0) -> bool:
    """Ask it to end, and kill it after ``seconds``; False when a kill was needed."""
    ask_to_stop(record)
    return finish(record, seconds=seconds)


def finish(record: ProcessRecord, *, seconds: float = 20.0) -> bool:
    """Wait for its end, and kill it after ``seconds``; False when a kill was needed."""
    if _wait(record, seconds):
        return True
    # It leads its session: the processes that it started end with it.
    with suppress(ProcessLookupError):
        os.killpg(record.pid, signal.SIGKILL)
    _wait(record, 5.0)
    return False


def _wait(record: ProcessRecord, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.is_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _started(pid: int) -> str | None:
    """When the process started, as this system writes it; None when it does not run."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own dead child would linger as a zombie
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    # Fields after the name, which may hold spaces and brackets: state is the first, start the 20th.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _started_by_ps(pid: int) -> str | None:
    answer = subprocess.run(  # noqa: S603
        ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer.stdout.strip() or None
