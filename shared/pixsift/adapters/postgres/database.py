"""Connections to the ledger's PostgreSQL: pool, session settings, error translation, halfvec.

Nothing above the adapters sees ``psycopg.Error``: what a caller can react to becomes a
TransientError (try again) or a DependencyDownError (stop receiving); the rest is a bug.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import psycopg
from psycopg import generators
from psycopg.conninfo import conninfo_to_dict
from psycopg.types import TypeInfo
from psycopg_pool import ConnectionPool, PoolTimeout

from pixsift.adapters.postgres.halfvec import register
from pixsift.errors import (
    DependencyDownError,
    LoginRefusedError,
    Remedy,
    SettingError,
    TransientError,
)

Login = str | Callable[[], str]
"""A libpq URI, or a function that returns one before every connection: tokens and passwords
expire."""
Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

_SESSION = {
    # A lock holder that vanished or hangs must not block the others: recovery within ten seconds.
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
    "default_transaction_isolation": "read committed",
}
_TRANSIENT = ("40001", "40P01", "25P03")
"""Serialization failure, deadlock, idle-in-transaction timeout: another try goes better."""
_DOWN = ("08", "53", "57", "58", "25006", "28", "3D000", "55P03")
"""Connection, resources (disk, memory, connections), shutdown and statement timeout, system,
read-only after a failover, login, no such database, lock timeout: another session holds a lock
that everything needs (a long DDL), and retrying would only use up attempts."""
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist"
)
"""libpq gives a refused login no SQLSTATE."""
_LOGIN_REFUSED = "login_refused"
REFUSED_FOR_SECONDS = 120.0
"""Longer than a password rotation; then the process ends, and the next one gets the new secret."""
_REMEDIES = {
    "42501": Remedy("grant"),
    "42P01": Remedy("migrate"),
    "42703": Remedy("migrate"),
}
"""Refused, no such table, no such column: a mistake in the deployment, not in a request; an
operator must fix it."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate driver errors, by the reaction that they ask for."""
    try:
        yield
    except PoolTimeout as exc:
        raise DependencyDownError(f"PostgreSQL does not respond: {exc}") from exc
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
            refused = state.startswith("28") or _REFUSED_LOGIN.search(text)
            raise DependencyDownError(
                f"PostgreSQL {state or 'connection'}: {text}",
                code=_LOGIN_REFUSED if refused else None,
            ) from exc
        raise


def sync(connection: Connection, pipeline: psycopg.Pipeline) -> None:
    """End a part of a pipeline: send everything, wait for all answers, let the server go idle.

    ``pipeline.sync`` alone waits for answers only (psycopg 3.3): what the socket did not take at
    once would never leave, and both sides would wait forever.
    """
    connection.wait(generators.send(connection.pgconn))
    pipeline.sync()


def readable_url(login: Login) -> str:
    """The URL of ``login``, when libpq can read it; raises UserError, which does not repeat it: it
    may contain a password.
    """
    url = login if isinstance(login, str) else login()
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingError(
            "PIXSIFT_DATABASE_URL cannot be read: write postgresql://user@host:5432/database"
        ) from None
    return url


class Database:
    """A pool of connections to one ledger. Context manager; thread-safe; connects when first used.

    Raises SettingError when the database was never migrated.
    """

    def __init__(
        self,
        login: Login,
        *,
        max_connections: int = 4,
        wait_seconds: float = 10.0,
        connect_seconds: int = 5,
        session: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """login: called before every connection. connect_seconds: maximum time for one connection;
        a server that sleeps (Aurora at 0 capacity) needs 30."""
        self._login = login
        self._connect_seconds = connect_seconds
        self._clock = clock
        self._refused_since: float | None = None
        self._session = {**_SESSION, **(session or {})}
        self._max_connections = max_connections
        self._wait_seconds = wait_seconds
        self._pool: ConnectionPool[Connection] | None = None
        self._opening = Lock()

    @property
    def url(self) -> str:
        """The libpq URI of a connection made now; it may hold a password."""
        return readable_url(self._login)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit: each statement has its own snapshot."""
        pool = self._pool or self._open()
        with translated():
            try:
                with pool.connection() as connection:
                    yield connection
            except PoolTimeout:
                self._check()  # the pool does not report the errors of its own threads
                raise
            except psycopg.errors.ReadOnlySqlTransaction:
                # After a failover the old writer may still answer, as a reader: close these
                # connections.
                pool.drain()
                raise
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # A restarted server leaves dead connections: find them now rather than asking
                # each one before every use.
                pool.check()
                raise
        self._refused_since = None

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> ConnectionPool[Connection]:
        with self._opening:
            if self._pool is None:
                self._check()
                self._pool = self._new_pool()
                self._pool.open()
            return self._pool

    def _check(self) -> None:
        """One plain connection first: the pool would only say that it timed out.

        Raises LoginRefusedError once the login has been refused for ``REFUSED_FOR_SECONDS``.
        """
        try:
            with (
                translated(),
                psycopg.connect(
                    readable_url(self._login),
                    connect_timeout=self._connect_seconds,
                    target_session_attrs="read-write",
                ) as connection,
            ):
                check_encoding(connection)
                if find_halfvec(connection) is None:
                    raise SettingError(
                        "this database is not a ledger yet",
                        code="not_migrated",
                        remedy=Remedy("migrate"),
                    )
                self._refuse_transaction_pooler(connection)
        except DependencyDownError as error:
            if error.code != _LOGIN_REFUSED:
                raise
            now = self._clock()
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since >= REFUSED_FOR_SECONDS:
                raise LoginRefusedError(
                    f"{error}: refused for {now - self._refused_since:.0f} s; was the password "
                    "rotated? PIXSIFT_DATABASE_URL or PIXSIFT_DATABASE_SECRET says which is used"
                ) from error
            raise
        self._refused_since = None

    def _refuse_transaction_pooler(self, connection: psycopg.Connection[Any]) -> None:
        """Raise SettingError where statements of one session reach several servers.

        Settings, prepared statements and locks of a session would be lost or given to others. While
        another session holds a transaction open, ours must still be at the same server process.
        """
        before = _server_process(connection)
        connection.commit()
        with psycopg.connect(
            readable_url(self._login), connect_timeout=self._connect_seconds
        ) as other:
            other.execute("SELECT")  # begins a transaction: a pooler gives it a server process
            try:
                connection.execute("SELECT set_config('statement_timeout', '5s', true)")
                after = _server_process(connection)
            except psycopg.Error:
                after = -1  # the pooler has no free server connection
        if after != before:
            raise SettingError(
                "a pooler in transaction mode stands between pixsift and PostgreSQL: connect "
                "directly, or use a pooler in session mode (PIXSIFT_DATABASE_URL)",
                code="transaction_pooler",
            )

    def _configure(self, connection: Connection) -> None:
        """Register types and set the session up; the settings are read back, not assumed. They are
        set by statements, since poolers refuse or drop the startup parameter ``options``.
        """
        register(connection)
        names = {"names": list(self._session), "values": list(self._session.values())}
        asked = connection.execute(
            "SELECT s.name, set_config(s.name, s.value, false)"
            " FROM unnest(%(names)s::text[], %(values)s::text[]) AS s (name, value)",
            names,
        ).fetchall()
        found = connection.execute(
            "SELECT name, current_setting(name) FROM unnest(%(names)s::text[]) AS s (name)",
            names,
        ).fetchall()
        if asked != found:
            lost = sorted({name for name, _ in set(asked) ^ set(found)})
            raise psycopg.OperationalError(
                f"settings of the session are lost ({', '.join(lost)}): is there a pooler in "
                "transaction mode?"
            )

    def _new_pool(self) -> ConnectionPool[Connection]:
        return ConnectionPool(
            self._login,
            min_size=1,
            max_size=self._max_connections,
            open=False,
            timeout=self._wait_seconds,
            reconnect_timeout=self._wait_seconds,
            configure=self._configure,
            kwargs={
                "autocommit": True,
                "connect_timeout": self._connect_seconds,
                "target_session_attrs": "read-write",
                "tcp_user_timeout": 10_000,
                "application_name": "pixsift",
            },
        )


def _server_process(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


def find_halfvec(connection: psycopg.Connection[Any]) -> TypeInfo | None:
    """pgvector's type. Raises SettingError where the extension exists, but not in our search
    path."""
    info = TypeInfo.fetch(connection, "halfvec")
    if info is None:
        row = connection.execute(
            "SELECT n.nspname, quote_ident(n.nspname), quote_ident(current_user)"
            " FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE e.extname = 'vector'"
        ).fetchone()
        if row is not None:
            place, schema, role = row
            if _has_halfvec(connection):
                raise SettingError(
                    f"the extension 'vector' is in schema {place!r}, outside the search path of "
                    f"{role}: run ALTER ROLE {role} SET search_path = public, {schema}"
                )
            raise SettingError(
                "the extension 'vector' has no halfvec: ALTER EXTENSION vector UPDATE"
            )
    return info


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Keys of objects are Unicode. Raises SettingError for a database that cannot hold it."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SettingError(
            f"database {connection.info.dbname!r} has the encoding {encoding}, and object keys are "
            "UTF-8: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name it in "
            "PIXSIFT_DATABASE_URL"
        )


def _has_halfvec(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT FROM pg_type WHERE typname = 'halfvec'").fetchone()
    return row is not None
