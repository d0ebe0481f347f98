"""A PostgreSQL with passwords, for tests of logins and their rotation."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres


@contextmanager
def guarded_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that asks everyone but its administrator for a password; any user may connect."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    root.chmod(0o755)
    try:
        with EmbeddedPostgres(root, durable=False) as server:
            hba = root / "data" / "pg_hba.conf"
            hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            administer(server, "SELECT pg_reload_conf()")
            yield server
    finally:
        shutil.rmtree(root, ignore_errors=True)


def administer(server: EmbeddedPostgres, *statements: str, database: str = "postgres") -> None:
    """Execute statements as the administrator, each in a transaction of its own."""
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
