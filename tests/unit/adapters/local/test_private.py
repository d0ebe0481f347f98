"""Nothing of the loop is for others, and nothing that others prepared is taken."""

import os
from pathlib import Path

import pytest

from pixsift.adapters.local.private import append_privately, private_folder
from pixsift.errors import SettingError

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def test_private_folder__is_made_and_taken_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    private_folder(folder)
    folder.chmod(0o755)
    private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_private_folder__a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(SettingError, match="delete it"):
        private_folder(tmp_path / "link")


def test_private_folder__one_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SettingError, match="delete it"):
        private_folder(tmp_path / "open")


@as_root
def test_private_folder__of_another_account_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", STRANGER, STRANGER)
    with pytest.raises(SettingError, match="delete it"):
        private_folder(tmp_path / "theirs")


def test_append_privately__closes_an_open_file_and_follows_no_link(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    log.chmod(0o644)
    with append_privately(log) as stream:
        stream.write(b"new\n")
    assert log.read_text() == "old\nnew\n" and log.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError, match="link"):
        append_privately(tmp_path / "link")
