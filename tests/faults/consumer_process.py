"""A real consumer process for tests, and what the ledger says afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[2]


class ConsumerProcess:
    """``pixsift-consumer`` as a process of its own; a context manager that leaves none behind."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        log: Path | None = None,
        module: str = "pixsift_consumer.main",
    ) -> None:
        folders = os.pathsep.join(str(ROOT / name) for name in ("shared", "services", "tests"))
        self._log = log
        self._stream = log.open("ab") if log else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": folders, "OMP_NUM_THREADS": "1",
                 "PIXSIFT_MODEL": "stub", **environment},
            stdout=self._stream or subprocess.DEVNULL,
            stderr=self._stream or subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> "ConsumerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._stream is not None:
            self._stream.close()

    def kill(self) -> None:
        """SIGKILL, as a spot notice that came too late."""
        self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = 20.0) -> int:
        """SIGTERM; the exit status. Raises TimeoutExpired when it takes longer."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def log_text(self) -> str:
        """What it has written so far."""
        return self._log.read_text("utf-8", "replace") if self._log else ""


def wait_until(holds: Callable[[], Any], *, seconds: float, what: Callable[[], str]) -> None:
    """Poll until ``holds()``; AssertionError with ``what()`` after ``seconds``."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {what()}")
        time.sleep(0.05)


def outcomes(database_url: str, collection: str = "test") -> dict[str, tuple[str, str]]:
    """Object key (with version) -> (outcome, reason), open decisions of the current generation.

    AssertionError if an object has more than one.
    """
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT o.key || '@' || o.version_id, d.outcome, d.reason FROM decision d"
            " JOIN object o USING (object_id)"
            " JOIN collection c ON c.collection_id = d.collection_id"
            " AND c.generation = d.generation"
            " WHERE c.name = %s AND d.valid_to_seq IS NULL",
            (collection,),
        ).fetchall()
    found = {str(key): (str(outcome), str(reason)) for key, outcome, reason in rows}
    assert len(found) == len(rows), "an object has two open decisions"
    return found
