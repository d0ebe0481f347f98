"""The demo as a newcomer runs it: a process of its own, checked by what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from conftest import LOCALSTACK_VENV
from pixsift.adapters.local.simulated_camera import drive, load_scenes, to_jpeg
from pixsift.adapters.postgres.database import Database
from pixsift.operations.local.loop import LoopRecord, read_record, stop_record, wait_until
from pixsift.operations.status import outcome_counts

pytestmark = pytest.mark.localstack

FRAMES, SCENES, ROBOTS, COPIES = 4, 9, 3, 4
"""Fewer frames than the demo's 24 per scene and robot; everything else is as in the demo."""
SECONDS = 240


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    if not (LOCALSTACK_VENV / "bin" / "python").exists():
        pytest.skip("no LocalStack: .venv-localstack is absent (make .venv-localstack/ready)")
    yield tmp_path
    for folder in (tmp_path, tmp_path / "demo"):
        record = read_record(folder)  # nothing, unless the test failed
        if record is not None:
            stop_record(record)


def pixsift(state: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    """The command as a user starts it, with settings of the test's own only."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PIXSIFT_"))}
    environment |= {
        "PIXSIFT_STATE_DIR": str(state),
        "PIXSIFT_LOCALSTACK_VENV": str(LOCALSTACK_VENV),
        "PYTHONPATH": os.pathsep.join(sys.path),
        **settings,
    }
    return subprocess.Popen(
        [sys.executable, "-c", "from pixsift_cli.main import main; main()", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """stdout and stderr."""
    with process:
        return process.communicate(timeout=SECONDS)


def test_demo__the_ledger_agrees_with_what_the_robots_sent(state: Path) -> None:
    # More images are asked for than so few frames can give: all that was kept is due.
    process = pixsift(state, "demo", "--frames", str(FRAMES), "--k", "500", "--json")
    output, errors = finished(process)
    assert process.returncode == 0, errors

    report: dict[str, Any] = json.loads(output)
    assert report["complaints"] == []
    sound = SCENES * FRAMES + ROBOTS * (FRAMES // 4 + COPIES + 1)
    outcomes = {name: sum(reasons.values()) for name, reasons in report["outcomes"].items()}
    assert outcomes == {
        "kept": outcomes["kept"], "duplicate": sound - outcomes["kept"], "rejected": 15, "gone": 3,
    }  # fmt: skip
    assert report["ignored"] == 2 * ROBOTS
    assert report["outcomes"]["rejected"] == {
        "blurred": 6, "black": 3, "truncated": 3, "not_an_image": 3,
    }  # fmt: skip
    # Every scene is kept at least once; no copy is kept together with its original.
    assert SCENES <= outcomes["kept"] <= sound - ROBOTS * COPIES

    kept = outcomes["kept"]
    assert report["snapshot_images"] == kept
    assert len(list(Path(report["snapshot_folder"]).glob("data/*/robot-*/**/*.jpg"))) == kept
    page = Path(report["contact_sheet"]).read_text("utf-8")
    assert page.count("in the snapshot") == kept
    assert "rejected: truncated" in page
    assert read_record(state / "demo") is None, "something was left running"


@pytest.mark.usefixtures("heeded_signals")
def test_demo__ctrl_c_stops_everything_that_was_started(state: Path) -> None:
    # More frames than it can upload before the signal comes, however busy the machine is.
    process = pixsift(state, "demo", "--frames", "60", PIXSIFT_MODEL="stub")
    record = _once_running(state / "demo", processes=3)
    process.send_signal(signal.SIGINT)
    _, errors = finished(process)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert [p.name for p in record.processes if p.is_alive()] == []
    assert not Path(record.postgres).exists()


def test_up__curates_what_is_uploaded_by_hand_until_down(state: Path, tmp_path: Path) -> None:
    up = pixsift(state, "up", "--json", PIXSIFT_MODEL="stub")
    output, errors = finished(up)
    assert up.returncode == 0, errors
    assert "is not ready" not in errors
    environment = json.loads(output)["environment"]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, scene in enumerate(load_scenes()[:3]):
        (photos / f"{number}.jpg").write_bytes(to_jpeg(scene.frame(drive(1)[0], number)))

    # A second `up` changes nothing; commands find the loop without any variable set.
    assert json.loads(finished(pixsift(state, "up", "--json"))[0])["environment"] == environment
    sent = finished(pixsift(state, "upload", str(photos), "s3://pixsift-raw/by-hand", "--json"))
    assert json.loads(sent[0])["uploaded"] == 3, sent[1]
    with Database(environment["PIXSIFT_DATABASE_URL"]) as database:
        wait_until(
            lambda: sum(count.objects for count in outcome_counts(database, "default")) == 3,
            seconds=90, what="three outcomes",
        )  # fmt: skip
    examined = json.loads(finished(pixsift(state, "doctor", "--json", PIXSIFT_MODEL="stub"))[0])
    assert examined["ok"], examined
    with urlopen(f"{environment['PIXSIFT_SERVER_URL']}/v1/status") as answer:  # noqa: S310
        counted = json.load(answer)["collections"][0]["outcomes"]
    assert sum(counted.values()) == 3

    stopped = json.loads(finished(pixsift(state, "down", "--json"))[0])["stopped"]
    assert set(stopped) == {
        "localstack", "postgresql", "pixsift-consumer", "pixsift-curator", "pixsift-server",
    }  # fmt: skip
    assert read_record(state) is None
    examined = json.loads(finished(pixsift(state, "doctor", "--json", PIXSIFT_MODEL="stub"))[0])
    assert not examined["ok"]

    # The next `up` goes on with the very same object versions, and nothing is judged again.
    finished(pixsift(state, "up", "--json", PIXSIFT_MODEL="stub"))
    found = json.loads(finished(pixsift(state, "reconcile", "--json"))[0])
    assert "3 settled" in json.dumps(found) or '"settled": 3' in json.dumps(found), found
    with Database(environment["PIXSIFT_DATABASE_URL"]) as database:
        assert sum(count.objects for count in outcome_counts(database, "default")) == 3
    listed = json.loads(finished(pixsift(state, "images", "--json"))[0])["images"]
    assert len(listed) == 3
    gone = json.loads(finished(pixsift(state, "down", "--delete", "--yes", "--json"))[0])
    assert gone["deleted"]
    assert not (state / "objects").exists()


def _once_running(folder: Path, *, processes: int) -> LoopRecord:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        record = read_record(folder)
        if record is not None and len(record.processes) >= processes:
            return record
        time.sleep(0.1)
    raise AssertionError("the demo did not start its processes")
