"""The local loop: the place of the server, the record, and which loop commands use."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.local.processes import ProcessRecord
from pixsift.errors import UserError
from pixsift.operations.demo.run import MOST_PHOTOS, choose_photos
from pixsift.operations.local.loop import LocalLoop, exports, read_record, speak_to
from pixsift_cli.main import app
from pixsift_cli.wiring import use_running_loop


def test_postgres_folder__is_in_the_state_folder_where_a_socket_can_live(tmp_path: Path) -> None:
    short = Path("/tmp/px-state")
    assert LocalLoop(short, venv=tmp_path).postgres_folder == short / "postgres"


def test_postgres_folder__of_a_long_path_is_elsewhere_and_its_own(tmp_path: Path) -> None:
    first = LocalLoop(tmp_path / ("x" * 90), venv=tmp_path).postgres_folder
    second = LocalLoop(tmp_path / ("y" * 90), venv=tmp_path).postgres_folder
    assert first != second
    assert len(str(first)) < 80 and tmp_path not in first.parents


@pytest.mark.parametrize("name", ["my photos", "a,b", "50%", "Gänge", "it's"])
def test_postgres_folder__of_a_path_that_others_would_misread_is_elsewhere(
    tmp_path: Path, name: str
) -> None:
    folder = LocalLoop(tmp_path / name, venv=tmp_path).postgres_folder
    assert tmp_path not in folder.parents
    with pytest.raises(UserError, match="shorter path of letters, digits"):
        EmbeddedPostgres(tmp_path / name)


def test_read_record__nothing_or_rubbish(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "loop.json").write_text("{")
    with pytest.raises(UserError, match=r"loop\.json cannot be read .* delete it"):
        read_record(tmp_path)


def test_speak_to__leads_away_from_every_other_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {
        "AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "secret", "HOME": "/",
        "AWS_ENDPOINT_URL_S3": "https://elsewhere",
    })  # fmt: skip
    speak_to({"AWS_ENDPOINT_URL": "http://localhost:1"})
    assert os.environ == {
        "HOME": "/", "AWS_ENDPOINT_URL": "http://localhost:1",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip


@pytest.mark.parametrize("chosen", ["PIXSIFT_DATABASE_URL", "AWS_ENDPOINT_URL"])
def test_use_running_loop__an_environment_that_chooses_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, chosen: str, tmp_path: Path
) -> None:
    started = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    alive = {"name": "localstack", "pid": os.getpid(), "started": started, "log": ""}
    record = {"postgres": "x", "processes": [alive], "environment": {"FOUND": "1"}}
    (tmp_path / "loop.json").write_text(json.dumps(record))
    environment = {"PIXSIFT_STATE_DIR": str(tmp_path)}
    monkeypatch.setattr(os, "environ", {**environment, chosen: "mine"})
    use_running_loop()
    assert "FOUND" not in os.environ
    monkeypatch.setattr(os, "environ", dict(environment))
    use_running_loop()
    assert os.environ["FOUND"] == "1"


def test_use_running_loop__a_loop_that_is_being_started_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process = {"name": "localstack", "pid": 1, "started": "", "log": ""}
    record = {"postgres": "x", "processes": [process], "environment": {}}
    (tmp_path / "loop.json").write_text(json.dumps(record))
    monkeypatch.setattr(ProcessRecord, "is_alive", lambda _process: True)
    environment = {"PIXSIFT_STATE_DIR": str(tmp_path), "AWS_PROFILE": "work"}
    monkeypatch.setattr(os, "environ", dict(environment))
    use_running_loop()
    assert os.environ == environment


def test_exports__survive_a_shell() -> None:
    assert exports({"A": "b c'd"}) == "export A='b c'\"'\"'d'\n"


def test_demo__a_folder_without_photos_is_told_before_anything_starts(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ["demo", "--images", str(tmp_path)]).exception
    assert isinstance(error, UserError)
    assert "no photos in" in str(error)


def test_demo__says_which_of_too_many_photos_it_takes(tmp_path: Path) -> None:
    for number in range(MOST_PHOTOS + 1):
        (tmp_path / f"{number:04}.jpg").touch()
    said: list[str] = []
    photos = choose_photos(tmp_path, said.append)
    assert photos is not None
    assert (len(photos), photos[-1].name) == (600, "0599.jpg")
    assert said == ["of 601 photos, the first 600 by name are taken"]
