"""The folder of the local loop: its ownership, and the lock for working in it.

pixsift deletes parts of it and overwrites others, so it takes only a folder of its own: one that
it made, or found empty. A note in it says so to people and to the next command.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixsift.errors import ConflictError, SettingError, UserError

_NOTE = "made-by-pixsift.txt"


def claim(folder: Path) -> None:
    """Mark ``folder`` as pixsift's own. Raises UserError if it holds other files or cannot be
    written."""
    note = folder / _NOTE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not note.exists() and any(folder.iterdir()):
            raise SettingError(
                f"{folder} holds things that are not pixsift's, which deletes what it finds in "
                "its folder: set PIXSIFT_STATE_DIR to a new folder, or empty this one"
            )
        # Logs name keys, and objects are images. PostgreSQL, started by root, must pass through.
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        note.write_text("pixsift made this folder and deletes what is in it.\n", "utf-8")
    except OSError as exc:
        raise cannot_be_used(folder, exc) from exc


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder's lock for ``what``. Raises UserError while another process holds it."""
    try:
        lock = (folder / f"{what}.lock").open("w")
    except OSError as exc:
        raise cannot_be_used(folder, exc) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ConflictError(
                f"a pixsift {what} is at work in {folder}: wait for it, or stop it with Ctrl-C"
            ) from exc
        yield


def cannot_be_used(folder: Path, why: OSError) -> UserError:
    """The error for a folder that the operating system refuses."""
    return SettingError(f"{folder} cannot be used ({why}): set PIXSIFT_STATE_DIR to another folder")
