"""Processes known by id and start: stopping the right one, and only that one."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from pixsift.adapters.local.processes import ProcessRecord, spawn, stop


def sleeper(tmp_path: Path, code: str = "import time; time.sleep(60)") -> ProcessRecord:
    return spawn(
        "sleeper", [sys.executable, "-c", code],
        environment=dict(os.environ), log=tmp_path / "log", cwd=tmp_path,
    )  # fmt: skip


def test_stop__ends_it_and_is_harmless_again(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    assert process.is_alive()
    assert stop(process)
    assert not process.is_alive()
    assert stop(process)


def test_stop__a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    process = sleeper(
        tmp_path,
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)",
    )
    while "deaf" not in process.tail():
        time.sleep(0.01)
    assert not stop(process, seconds=0.2)
    assert not process.is_alive()


def test_stop__a_stranger_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    try:
        stranger = replace(process, started="1")
        assert not stranger.is_alive()
        assert stop(stranger)
        assert process.is_alive()
    finally:
        stop(process)


def test_tail__shows_the_end_of_the_log(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "print('a\\nb\\nc')")
    while process.is_alive():
        time.sleep(0.01)
    assert process.tail(2) == "b\nc"
