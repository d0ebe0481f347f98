"""An embedded ledger in a folder, for one person's pictures, without a server to maintain.

PostgreSQL runs while a command uses it: the first command starts it, the last one stops it. A
command that was killed leaves it to the next one. Only one command at a time may judge pictures.
Locks are by flock, so they end with their process.
"""

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pixsift.adapters.local.embedded_postgres import (
    EmbeddedPostgres,
    can_hold_socket,
    everyone_can_reach,
)
from pixsift.adapters.postgres.migrate import migrate
from pixsift.errors import ConflictError, Remedy, SettingError

_SETTINGS = {"shared_buffers": "64MB", "max_connections": "30"}
"""For one command at a time: a small server that starts at once."""
_SHELL = frozenset('"$`\\\n\r')
"""pg_ctl hands paths to a shell within double quotes."""


def default_ledger_folder() -> Path:
    """Where programs of this user keep their data, by the conventions of the system."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pixsift"
    if os.geteuid() == 0:  # PostgreSQL runs as nobody, who may not enter root's home
        return Path("/var/lib/pixsift")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "pixsift"


class FolderLedger:
    """One ledger in one folder. Context manager: the server runs within."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        if _SHELL & set(str(self.root)):
            raise SettingError(
                f"the ledger's folder {str(self.root)!r} has a quote, a dollar sign, a backslash "
                "or a line break in its path", remedy=Remedy("name_ledger"),
            )  # fmt: skip
        data = self.root / "postgres"
        self._postgres = EmbeddedPostgres(data, settings=_SETTINGS, sockets=_sockets(data))
        self._users: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """The ledger's database, for processes of this machine."""
        return self._postgres.url()

    @property
    def derived(self) -> Path:
        """The folder of thumbnails."""
        return self.root / "derived"

    def exists(self) -> bool:
        """Whether pictures were ever judged here."""
        return (self.root / "postgres" / "data").is_dir()

    def __enter__(self) -> "FolderLedger":
        self._make_folder()
        self._users = self._open("users")
        with self._alone("starting"):
            fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                if not self._postgres.root.exists() or not self._postgres.is_running():
                    self._postgres.start()
                migrate(self.url)
            except BaseException:
                self._users.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._users is None:
            return
        with self._alone("starting"):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another command still uses it, and will stop it
            else:
                self._postgres.stop()
            self._users.close()

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Take the lock for judging pictures. Raises ConflictError while another process has it."""
        with self._open("judging") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                who = lock.read(32).decode(errors="replace").strip() or "unknown"
                raise ConflictError(
                    f"another run (process {who}) is using the ledger {self.root}: wait until it "
                    "ends", code="ledger_busy", remedy=Remedy("name_ledger"),
                ) from None  # fmt: skip
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n".encode())
            lock.flush()
            yield

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._open(name) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self, name: str) -> IO[bytes]:
        try:
            return (self.root / f"{name}.lock").open("a+b")
        except OSError as error:
            raise self._unusable(error) from error

    def _make_folder(self) -> None:
        try:
            # For root, PostgreSQL's account must be able to pass through it.
            self.root.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        except OSError as error:
            raise self._unusable(error) from error
        if os.geteuid() == 0 and not everyone_can_reach(self.root / "postgres"):
            raise SettingError(
                f"PostgreSQL cannot reach the ledger's folder {self.root}: started by root, it "
                "runs under another account, and a folder above is closed to it",
                remedy=Remedy("name_ledger"),
            )

        # Access to the socket makes a superuser of the database: for this account alone. Root's
        # server is another account, which becomes the owner; root comes in by the group.
        self._postgres.root.mkdir(exist_ok=True)
        self._postgres.root.chmod(0o770 if os.geteuid() == 0 else 0o700)

    def _unusable(self, error: OSError) -> SettingError:
        return SettingError(
            f"the ledger's folder {self.root} cannot be used: {error.strerror}",
            remedy=Remedy("name_ledger"),
        )


def _sockets(data: Path) -> Path | None:
    """A short folder for the socket, where the data's own path cannot hold it."""
    if can_hold_socket(data):
        return None
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"pixsift-{os.geteuid()}-{digest}"
    if folder.is_symlink() or (folder.exists() and not _is_ours(folder)):
        raise SettingError(f"{folder} belongs to another account: delete it")
    return folder


def _is_ours(folder: Path) -> bool:
    found = folder.stat()
    # Root's server runs as nobody, who owns the folder then.
    return (os.geteuid() == 0 or found.st_uid == os.geteuid()) and not found.st_mode & 0o077
