"""Connections to the ledger's PostgreSQL: pool, session settings, error translation, halfvec.

Nothing above the adapters sees ``psycopg.Error``: what a caller can react to becomes a
TransientError (try again) or a DependencyDownError (stop receiving); the rest is a bug.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import Any

import psycopg
from psycopg import generators
from psycopg.conninfo import conninfo_to_dict
from psycopg.types import TypeInfo
from psycopg_pool import ConnectionPool, PoolTimeout

from pixsift.adapters.postgres.halfvec import register
from pixsift.errors import DependencyDownError, Remedy, SettingError, TransientError

Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

_SESSION = {
    # A lock holder that vanished or hangs must not stop the line: recovery within ten seconds.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "3s",
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "statement_timeout": "60s",
    # A plan made while a table was small would be kept for a big one: planning costs 0.1-0.3 ms.
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    # Some installations set another level globally; the protocol is proved for this one only.
    "default_transaction_isolation": r"read\ committed",
}
_TRANSIENT = ("40001", "40P01", "25P03")
"""Serialization failure, deadlock, idle-in-transaction timeout: another try goes better."""
_DOWN = ("08", "53", "57", "58", "25006", "28", "3D000", "55P03")
"""Connection, resources (disk, memory, connections), shutdown and statement timeout, system,
read-only after a failover, login, no such database, lock timeout: somebody holds what everything
needs (a long DDL), and trying on would only use up attempts."""
_REMEDIES = {
    "42501": Remedy("grant"),
    "42P01": Remedy("migrate"),
    "42703": Remedy("migrate"),
}
"""Refused, no such table, no such column: no mistake in a request, but in what is deployed, which
somebody will mend."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn driver errors into our words, by the reaction they ask for."""
    try:
        yield
    except PoolTimeout as exc:
        raise DependencyDownError(f"PostgreSQL does not answer: {exc}") from exc
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        text = str(exc).strip()
        if state in _REMEDIES:
            first = text.split("\n", 1)[0]
            raise DependencyDownError(
                f"PostgreSQL {state}: {first}", remedy=_REMEDIES[state]
            ) from exc
        if state in _TRANSIENT:
            raise TransientError(f"PostgreSQL {state}: {text}") from exc
        if state.startswith(_DOWN) or (not state and isinstance(exc, psycopg.OperationalError)):
            raise DependencyDownError(f"PostgreSQL {state or 'connection'}: {text}") from exc
        raise


def sync(connection: Connection, pipeline: psycopg.Pipeline) -> None:
    """End a part of a pipeline: send everything, wait for all answers, let the server go idle.

    ``pipeline.sync`` alone waits for answers only (psycopg 3.3): what the socket did not take at
    once would never leave, and both sides would wait for ever.
    """
    connection.wait(generators.send(connection.pgconn))
    pipeline.sync()


def readable_url(url: str) -> str:
    """``url``, when libpq can read it; raises UserError, which repeats none of it: it may hold a
    password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingError(
            "PIXSIFT_DATABASE_URL cannot be read: write postgresql://user@host:5432/database"
        ) from None
    return url


class Database:
    """A pool of connections to one ledger. Context manager; thread-safe; connects when first used.

    Raises UserError when the database was never migrated.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 4,
        wait_seconds: float = 10.0,
        session: dict[str, str] | None = None,
    ) -> None:
        self.url = url
        self._session = {**_SESSION, **(session or {})}
        self._max_connections = max_connections
        self._wait_seconds = wait_seconds
        self._pool: ConnectionPool[Connection] | None = None
        self._opening = Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit: each statement has its own snapshot."""
        pool = self._pool or self._open()
        with translated():
            try:
                with pool.connection() as connection:
                    yield connection
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # A restarted server leaves dead connections: find them now rather than asking
                # each one before every use.
                pool.check()
                raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection inside one transaction, committed at the end of the block."""
        with self.connection() as connection, connection.transaction():
            yield connection

    def close(self) -> None:
        """Give all connections back to the server."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> ConnectionPool[Connection]:
        with self._opening:
            if self._pool is None:
                self._check()
                self._pool = self._new_pool()
                self._pool.open()
            return self._pool

    def _check(self) -> None:
        """One plain connection first: the pool would only say that it timed out."""
        with translated(), psycopg.connect(readable_url(self.url), connect_timeout=5) as connection:
            if TypeInfo.fetch(connection, "halfvec") is None:
                raise SettingError(
                    "this database is not a ledger yet",
                    code="not_migrated", remedy=Remedy("migrate"),
                )  # fmt: skip

    def _new_pool(self) -> ConnectionPool[Connection]:
        options = " ".join(f"-c {name}={value}" for name, value in self._session.items())
        return ConnectionPool(
            self.url,
            min_size=1,
            max_size=self._max_connections,
            open=False,
            timeout=self._wait_seconds,
            reconnect_timeout=self._wait_seconds,
            configure=register,
            kwargs={
                "autocommit": True,
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "application_name": "pixsift",
                "options": options,
            },
        )
