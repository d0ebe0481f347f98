"""Error translation and session settings, on a real server."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database, sync, translated
from pixsift.adapters.postgres.migrate import migrate, pending
from pixsift.errors import DependencyDownError, PixsiftError, Remedy, TransientError, UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.SerializationFailure("x"), TransientError),
        (psycopg.errors.DeadlockDetected("x"), TransientError),
        (psycopg.errors.LockNotAvailable("x"), DependencyDownError),  # a long DDL, say
        (psycopg.errors.QueryCanceled("x"), DependencyDownError),  # its time was up
        (psycopg.errors.AdminShutdown("x"), DependencyDownError),
        (psycopg.errors.ReadOnlySqlTransaction("x"), DependencyDownError),  # after a failover
        (psycopg.errors.DiskFull("x"), DependencyDownError),
        (psycopg.errors.TooManyConnections("x"), DependencyDownError),
        (psycopg.OperationalError("connection refused"), DependencyDownError),
    ],
)
def test_translated__by_the_reaction_asked_for(
    error: psycopg.Error, expected: type[PixsiftError]
) -> None:
    with pytest.raises(expected), translated():
        raise error


def test_translated__a_bug_stays_a_bug() -> None:
    with pytest.raises(psycopg.errors.UniqueViolation), translated():
        raise psycopg.errors.UniqueViolation("x")


@pytest.mark.parametrize("url", ["secret", "postgresql://[secret"])
def test_database__a_url_nobody_can_read_is_the_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match="PIXSIFT_DATABASE_URL") as caught, Database(url) as base:
        base.connection().__enter__()
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="PIXSIFT_DATABASE_URL"):
        pending(url)


def test_database__settings_of_every_session(database_url: str) -> None:
    with Database(database_url) as database, database.connection() as connection:
        for name, value in {
            "idle_in_transaction_session_timeout": "5s", "lock_timeout": "3s",
            "default_transaction_isolation": "read committed", "jit": "off",
        }.items():  # fmt: skip
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)


def test_sync__of_more_than_a_socket_takes_at_once(database_url: str) -> None:
    with Database(database_url) as database, database.connection() as connection:
        with connection.pipeline() as pipeline:
            answers = [
                connection.execute("SELECT length(%s), repeat('x', 1000000)", ["x" * 10_000_000])
                for _ in range(3)
            ]
            sync(connection, pipeline)
            idle = connection.info.transaction_status
        lengths = [row[0] for answer in answers for row in answer.fetchall()]
    assert (lengths, idle) == ([10_000_000] * 3, TransactionStatus.IDLE)


def test_database__says_what_is_missing(postgres: EmbeddedPostgres) -> None:
    with (
        Database(postgres.url("postgres")) as database,
        pytest.raises(UserError, match="not a ledger"),
    ):
        _sleep(database)
    with Database(postgres.url("nowhere")) as database, pytest.raises(DependencyDownError):
        _sleep(database)


def test_database__a_database_without_the_schema_asks_for_migrate(
    postgres: EmbeddedPostgres,
) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
    with psycopg.connect(postgres.url("bare"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    with Database(postgres.url("bare")) as database:
        for statement in ("SELECT 1 FROM collection", "SELECT newer FROM pg_class"):
            with pytest.raises(DependencyDownError, match=r"^[^\n]+$") as told:
                _run(database, statement)
            assert told.value.remedy == Remedy("migrate")


def test_database__a_role_without_rights_is_told_which_one(
    postgres: EmbeddedPostgres, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
    as_guest = make_conninfo(database_url, user="guest")
    with (
        Database(as_guest) as database,
        pytest.raises(DependencyDownError, match="denied for table"),
    ):
        _run(database, "SELECT 1 FROM collection")
    with pytest.raises(DependencyDownError, match="schema_migrations"):
        pending(as_guest)
    with pytest.raises(DependencyDownError, match="schema public"):
        migrate(as_guest)


def test_database__killed_connections_are_replaced(database_url: str) -> None:
    with Database(database_url, max_connections=3) as database:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: _sleep(database), range(3)))
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(DependencyDownError):
            _sleep(database)
        for _ in range(5):
            _sleep(database)


def _sleep(database: Database) -> None:
    _run(database, "SELECT pg_sleep(0.05)")


def _run(database: Database, statement: str) -> None:
    with database.connection() as connection:
        connection.execute(statement.encode())
