"""The state folder: pixsift deletes there, so it takes only a folder of its own."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pixsift.errors import UserError
from pixsift.operations.local.state_folder import claim, only_one
from pixsift_cli.main import app


def test_claim__takes_a_new_folder_an_empty_one_and_its_own(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "demo").mkdir()
    claim(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty")
    assert "pixsift made this folder" in next((tmp_path / "empty").iterdir()).read_text()


def test_claim__of_what_cannot_be_a_folder_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="PIXSIFT_STATE_DIR to another folder"):
            claim(folder)


@pytest.mark.parametrize("command", ["demo", "up"])
def test_commands__leave_a_folder_with_other_things_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("demo", "localstack"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "precious").touch()
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv("PIXSIFT_LOCALSTACK_VENV", str(tmp_path / "venv"))
    monkeypatch.setenv("PIXSIFT_STATE_DIR", str(tmp_path / "work"))
    error = CliRunner().invoke(app, [command]).exception
    assert isinstance(error, UserError)
    assert "not pixsift's" in str(error)
    left = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "work").rglob("*"))
    assert left == ["work/demo", "work/demo/precious",
                    "work/localstack", "work/localstack/precious"]  # fmt: skip


def test_demo__without_localstack_keeps_the_last_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "contact-sheet.html").touch()
    monkeypatch.setenv("PIXSIFT_LOCALSTACK_VENV", str(tmp_path / "absent"))
    monkeypatch.setenv("PIXSIFT_STATE_DIR", str(tmp_path))
    error = CliRunner().invoke(app, ["demo"]).exception
    assert isinstance(error, UserError)
    assert "LocalStack is not installed" in str(error)
    assert (tmp_path / "demo" / "contact-sheet.html").exists()


@pytest.mark.parametrize("command", ["up", "down", "demo"])
def test_commands__a_state_folder_that_is_a_file_is_a_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").touch()
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv("PIXSIFT_LOCALSTACK_VENV", str(tmp_path / "venv"))
    monkeypatch.setenv("PIXSIFT_STATE_DIR", str(tmp_path / "file"))
    error = CliRunner().invoke(app, [command]).exception
    assert isinstance(error, UserError)
    assert "PIXSIFT_STATE_DIR to another folder" in str(error)


def test_only_one__until_the_other_is_done(tmp_path: Path) -> None:
    with only_one(tmp_path, "up"):
        # A lock of another opening of the file, as another process has.
        with pytest.raises(UserError, match="a pixsift up is at work"), only_one(tmp_path, "up"):
            pytest.fail("two at once")
        with only_one(tmp_path, "demo"):
            pass
    with only_one(tmp_path, "up"):
        assert os.access(tmp_path / "up.lock", os.R_OK)


def test_claim__nobody_else_can_list_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    claim(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o066 == 0
