"""``pixsift up`` over a loop of which something died: services return, nothing is ever wiped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from pixsift.adapters.local.processes import ProcessRecord
from pixsift.errors import DependencyDownError, UserError
from pixsift.operations.local import services, up_down
from pixsift.operations.local.loop import LoopRecord, read_record
from pixsift.operations.local.services import StartedService, wait_until_ready
from pixsift.operations.local.state_folder import only_one
from pixsift.remedies import one_line
from pixsift_cli.main import app

ALL = ("localstack", "pixsift-consumer", "pixsift-curator")
READY = {
    "pixsift-consumer": '{"level":"INFO","message":"started"}',
    "pixsift-curator": '{"level":"INFO","message":"curator ready"}',
}
ENVIRONMENT = {"AWS_ENDPOINT_URL": "http://localhost:1", "PIXSIFT_DATABASE_URL": "postgresql://x"}


@dataclass
class Loop:
    """A loop on paper: a process is alive when its record says so."""

    state: Path
    is_postgres_running: bool = True
    service_ends: bool = False
    spawned: list[tuple[str, Mapping[str, str], Path]] = field(default_factory=list)

    def spawn(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path,
        cwd: Path,
    ) -> ProcessRecord:  # fmt: skip
        assert name.replace("-", "_") in command[-1]
        self.spawned.append((name, dict(environment), cwd))
        said = "a wrong setting" if self.service_ends else READY[name]
        log.write_text(f"{log.read_text() if log.exists() else ''}{said}\n")
        return ProcessRecord(name, 2, "dead" if self.service_ends else "alive", str(log))

    def write(self, *, dead: Sequence[str] = (), names: Sequence[str] = ALL) -> None:
        """What ``up`` left: its record, the ledger's files and LocalStack's."""
        processes = tuple(
            ProcessRecord(name, 1, "dead" if name in dead else "alive", f"{name}.log")
            for name in names
        )
        for folder in ("postgres", "localstack"):
            (self.state / folder).mkdir()
            (self.state / folder / "precious").touch()
        record = LoopRecord(
            str(self.state / "postgres"), processes, ENVIRONMENT, {"PIXSIFT_MODEL": "stub"}
        )
        (self.state / "loop.json").write_text(json.dumps(asdict(record)))

    def is_untouched(self) -> bool:
        return all((self.state / name / "precious").exists() for name in ("postgres", "localstack"))


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    paper = Loop(tmp_path)
    monkeypatch.setattr(ProcessRecord, "is_alive", lambda process: process.started == "alive")
    monkeypatch.setattr(
        LoopRecord, "is_postgres_running", lambda _record: paper.is_postgres_running
    )
    monkeypatch.setattr(services, "spawn", paper.spawn)
    monkeypatch.setattr(up_down, "stop_record", lambda _record: pytest.fail("up stopped the loop"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PIXSIFT_"))}
    with patch.dict(os.environ, {**kept, "PIXSIFT_STATE_DIR": str(tmp_path)}, clear=True):
        yield paper


def up() -> Result:
    return CliRunner().invoke(app, ["up", "--json"])


def test_up__of_a_loop_that_runs_starts_nothing(loop: Loop) -> None:
    loop.write()
    result = up()
    assert result.exit_code == 0
    assert json.loads(result.stdout)["environment"] == ENVIRONMENT
    assert loop.spawned == []


@pytest.mark.parametrize("dead", [ALL[1:2], ALL[2:], ALL[1:]])
def test_up__starts_only_the_dead_services_again_with_what_they_had(
    loop: Loop, dead: Sequence[str]
) -> None:
    loop.write(dead=dead)
    result = up()
    assert result.exit_code == 0, result.output
    assert [name for name, _, _ in loop.spawned] == list(dead)
    for _, environment, folder in loop.spawned:
        assert environment.items() >= (ENVIRONMENT | {"PIXSIFT_MODEL": "stub"}).items()
        assert folder == loop.state
    said = [line for line in result.stderr.splitlines() if "is restarted" in line]
    assert [line.split()[0] for line in said] == list(dead)
    record = read_record(loop.state)
    assert record is not None
    assert [process.name for process in record.processes] == list(ALL)
    assert record.dead_processes() == []
    assert loop.is_untouched()


def test_up__a_setting_given_now_mends_a_service_that_died_of_it(loop: Loop) -> None:
    loop.write(dead=["pixsift-consumer"])
    os.environ["PIXSIFT_MODEL"] = "another"
    assert up().exit_code == 0
    assert loop.spawned[0][1]["PIXSIFT_MODEL"] == "another"


def test_up__repeats_the_last_words_of_a_service_that_ends_again(loop: Loop) -> None:
    loop.write(dead=["pixsift-curator"])
    loop.service_ends = True
    # It worked once: the lines of an earlier run do not count.
    (loop.state / "pixsift-curator.log").write_text(f"{READY['pixsift-curator']}\n")
    error = up().exception
    assert isinstance(error, DependencyDownError)
    assert str(error).startswith("pixsift-curator ended: a wrong setting (its log: ")
    record = read_record(loop.state)
    assert record is not None
    assert [process.name for process in record.dead_processes()] == ["pixsift-curator"]
    assert loop.is_untouched()


def test_wait_until_ready__a_silent_service_is_left_to_it(loop: Loop) -> None:
    log = loop.state / "log"
    log.touch()
    service = StartedService(ProcessRecord("pixsift-consumer", 1, "alive", str(log)), 0)
    said: list[str] = []
    wait_until_ready([service], said.append, seconds=0)
    assert said == [f"pixsift-consumer is not ready after 0 s, its log is {log}"]


@pytest.mark.parametrize(
    ("dead", "is_postgres_running", "told"),
    [
        (["localstack"], True, "localstack of"),
        ([], False, "postgresql of"),
        (ALL, False, "localstack and postgresql of"),
    ],
)
def test_up__refuses_when_images_or_ledger_would_go(
    loop: Loop, dead: Sequence[str], is_postgres_running: bool, told: str
) -> None:
    loop.write(dead=dead)
    loop.is_postgres_running = is_postgres_running
    error = up().exception
    assert isinstance(error, UserError)
    assert str(error).startswith(told)
    assert "of the local loop died: run pixsift down" in one_line(error)
    assert "then pixsift up" in one_line(error)
    assert loop.spawned == []
    assert loop.is_untouched()


def test_up__leaves_a_start_that_was_cut_short_alone(loop: Loop) -> None:
    loop.write(names=ALL[:2])
    error = up().exception
    assert isinstance(error, UserError)
    assert "was cut short" in str(error)
    assert loop.is_untouched()


@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_up__interrupted_while_localstack_starts_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexec sleep 60\n")  # a LocalStack that never answers
    python.chmod(0o755)
    state = tmp_path / "state"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PIXSIFT_"))}
    environment = {
        "PIXSIFT_STATE_DIR": str(state),
        "PIXSIFT_LOCALSTACK_VENV": str(tmp_path / "venv"),
    }
    with subprocess.Popen(
        [sys.executable, "-c", "from pixsift_cli.main import main; main()", "up"],
        env={**kept, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        while (record := read_record(state)) is None or not record.processes:
            assert command.poll() is None
            time.sleep(0.02)
        assert [process.name for process in record.processes] == ["localstack"]
        assert record.dead_processes() == []
        command.send_signal(number)
        _, errors = command.communicate(timeout=60)
    assert command.returncode == 130
    assert errors.endswith("pixsift: interrupted; everything that was started is stopped\n")
    assert len(record.dead_processes()) == 1
    assert read_record(state) is None


@pytest.mark.parametrize("command", ["up", "down"])
def test_up_and_down__wait_for_an_up_at_work(loop: Loop, command: str) -> None:
    loop.write(names=ALL[:1])
    with only_one(loop.state, "up"):
        error = CliRunner().invoke(app, [command]).exception
    assert isinstance(error, UserError)
    assert "a pixsift up is at work" in str(error)
    assert loop.is_untouched()


def test_record__of_an_older_version_is_read(loop: Loop) -> None:
    loop.write()
    old = json.loads((loop.state / "loop.json").read_text())
    del old["settings"]
    (loop.state / "loop.json").write_text(json.dumps(old))
    record = read_record(loop.state)
    assert record is not None
    assert record.settings == {}


def test_record__without_the_ledgers_folder_has_no_ledger(tmp_path: Path) -> None:
    assert LoopRecord(str(tmp_path / "gone")).dead_stores() == ["postgresql"]
