"""Folders and files of the local loop that no other account of the machine may read or prepare."""

import os
import pwd
import stat
from pathlib import Path
from typing import BinaryIO

from pixsift.errors import SettingError


def private_folder(folder: Path) -> None:
    """Make a folder for this account alone, or take one that is.

    In a shared place such as /tmp its name can be guessed: one that another account made first,
    or a link, is refused with SettingError. For root, PostgreSQL's account may own it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in _ours() or found.st_mode & 0o002:
        raise SettingError(
            f"{folder} was not made by this account, or others can write to it: delete it"
        )
    folder.chmod(0o700)


def append_privately(path: Path) -> BinaryIO:
    """Open a file for appending that only this account can read; links are not followed."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)  # it may be of an earlier release
    return os.fdopen(descriptor, "ab")


def _ours() -> set[int]:
    if os.geteuid() != 0:
        return {os.geteuid()}
    return {0, pwd.getpwnam("nobody").pw_uid}
