"""Runs the migrations: dbmate-format SQL files, forward only, one runner at a time.

Each file is one transaction and is recorded with its checksum; a file that changed after it was
applied is refused, since databases would then differ.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from pixsift.adapters.postgres.database import (
    Login,
    check_encoding,
    find_halfvec,
    readable_url,
    translated,
)
from pixsift.errors import Remedy, SettingError

_LOCK_KEY = 0x70697873_69667431  # "pixsift1"
_UP, _DOWN = "-- migrate:up", "-- migrate:down"
MINIMUM_PGVECTOR = (0, 7, 0)
"""The first with ``halfvec``. Its index asks for more: ``adapters.search.pgvector``."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file: ``version`` is its number, ``up`` the SQL to run."""

    version: str
    name: str
    up: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.up.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration that ships with the package, in order."""
    folder = files("pixsift.sql").joinpath("migrations")
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            up = entry.read_text("utf-8").split(_UP, 1)[1].split(_DOWN, 1)[0]
            found.append(Migration(entry.name.split("_", 1)[0], entry.name, up))
    return found


def migrate(database_url: Login) -> list[str]:
    """Bring the database up to date; returns the names of the migrations that were applied.

    Raises UserError for a changed migration or too old a pgvector, DependencyDownError when the
    database does not answer or the role lacks a right.
    """
    with (
        translated(),
        psycopg.connect(readable_url(database_url), autocommit=True) as connection,
    ):
        # A session lock: it outlives the per-file transactions and ends with the connection.
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        check_encoding(connection)
        _check_pgvector(connection)
        _create_extension(connection)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "version text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        return [m.name for m in migrations() if _apply(connection, m)]


def pending(database_url: Login) -> list[str]:
    """Names of the migrations that have not been applied yet."""
    with (
        translated(),
        psycopg.connect(readable_url(database_url), autocommit=True) as connection,
    ):
        row = connection.execute("SELECT to_regclass('schema_migrations')").fetchone()
        if row is None or row[0] is None:
            return [m.name for m in migrations()]
        rows = connection.execute("SELECT version FROM schema_migrations").fetchall()
    applied = {row[0] for row in rows}
    return [m.name for m in migrations() if m.version not in applied]


def check_migrated(login: Login) -> None:
    """Raise SettingError while a migration waits: this release cannot work without it."""
    if names := pending(login):
        raise SettingError(
            f"the ledger lacks {', '.join(names)}", code="not_migrated", remedy=Remedy("migrate")
        )


def server_versions(database_url: Login) -> tuple[str, str]:
    """Of PostgreSQL and of its pgvector. Raises UserError for too old or no pgvector."""
    with (
        translated(),
        psycopg.connect(
            readable_url(database_url), autocommit=True, connect_timeout=5
        ) as connection,
    ):
        _check_pgvector(connection)
        row = connection.execute(
            "SELECT current_setting('server_version'), default_version"
            " FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    return ("", "") if row is None else (row[0], row[1])


def _apply(connection: psycopg.Connection, migration: Migration) -> bool:
    row = connection.execute(
        "SELECT checksum FROM schema_migrations WHERE version = %s", (migration.version,)
    ).fetchone()
    if row is not None:
        if row[0] != migration.checksum:
            raise SettingError(
                f"migration {migration.name} was changed after it was applied; "
                "restore the file and write a new migration"
            )
        return False
    with connection.transaction():
        connection.execute(migration.up.encode())
        connection.execute(
            "INSERT INTO schema_migrations (version, checksum) VALUES (%s, %s)",
            (migration.version, migration.checksum),
        )
    return True


def _check_pgvector(connection: psycopg.Connection) -> None:
    # The version of the server's library, where the fix is: every database of it runs that code,
    # whatever version of the SQL around it was installed.
    row = connection.execute(
        "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    if row is None:
        raise SettingError(
            "this PostgreSQL has no pgvector: install the extension 'vector' >= 0.8.4"
        )
    if tuple(int(part) for part in row[0].split(".")) < MINIMUM_PGVECTOR:
        raise SettingError(f"pgvector {row[0]} has no halfvec: need >= 0.7.0, better >= 0.8.4")


def _create_extension(connection: psycopg.Connection) -> None:
    """Where it is missing: a role with more rights may have created it."""
    if find_halfvec(connection) is not None:
        return
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege as error:
        raise SettingError(
            f"the role {connection.info.user!r} may not create the extension 'vector' in "
            f"{connection.info.dbname!r}: let an administrator run CREATE EXTENSION vector there "
            "once, or grant CREATE on the database where the server trusts the extension"
        ) from error
