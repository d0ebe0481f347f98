"""A pooler between us and PostgreSQL: session mode works, transaction mode is refused."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pixsift.adapters.postgres.database import Database
from pixsift.errors import SettingError

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pooler(url: str, folder: Path, *, mode: str, options_ignored: bool) -> Iterator[str]:
    """A PgBouncer of the test's own in front of ``url``; the URL to use."""
    if PGBOUNCER is None:
        pytest.skip("no PgBouncer: apt-get install pgbouncer")
    known = conninfo_to_dict(url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.chmod(0o755)
    ini = folder / "pgbouncer.ini"
    ignored = "ignore_startup_parameters = options,extra_float_digits\n" if options_ignored else ""
    ini.write_text(
        f"[databases]\n* = host={known['host']} port={known.get('port', 5432)} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 8\n{ignored}",
        "utf-8",
    )
    command = [PGBOUNCER, "-q", "-u", "nobody", str(ini)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield f"postgresql://postgres@127.0.0.1:{port}/{known['dbname']}"
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "PgBouncer ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("PgBouncer does not listen")


@pytest.mark.parametrize("options_ignored", [False, True])
def test_database__a_pooler_in_session_mode_works(
    database_url: str, tmp_path: Path, options_ignored: bool
) -> None:
    with (
        pooler(database_url, tmp_path, mode="session", options_ignored=options_ignored) as url,
        Database(url) as database,
        database.connection() as connection,
    ):
        row = connection.execute("SHOW lock_timeout").fetchone()
        assert row == ("3s",)


@pytest.mark.parametrize("options_ignored", [False, True])
def test_database__a_pooler_in_transaction_mode_is_refused_in_one_line(
    database_url: str, tmp_path: Path, options_ignored: bool
) -> None:
    with (
        pooler(database_url, tmp_path, mode="transaction", options_ignored=options_ignored) as url,
        Database(url) as database,
        pytest.raises(SettingError, match="transaction mode") as raised,
        database.connection(),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_configure__settings_of_the_session_are_there(database_url: str) -> None:
    with Database(database_url) as database, database.connection() as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1min",)
        assert connection.execute("SHOW jit").fetchone() == ("off",)
    with psycopg.connect(database_url) as plain:
        assert plain.execute("SHOW jit").fetchone() == ("on",), "of no other session"
