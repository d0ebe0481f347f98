"""Connections on the bad days of a cloud: rotation, failover, roles with few rights."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo

from guarded_postgres import administer, guarded_postgres
from pixsift.adapters.ledger.login import ledger_login
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import REFUSED_FOR_SECONDS, Database
from pixsift.adapters.postgres.migrate import migrate, pending
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.errors import DependencyDownError, LoginRefusedError, SettingError


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedPostgres]:
    with guarded_postgres() as server:
        yield server


@pytest.fixture
def role(guarded: EmbeddedPostgres) -> Iterator[str]:
    """A role without any special right, which owns a database of the same name."""
    name = f"r_{uuid4().hex[:10]}"
    administer(
        guarded,
        f"CREATE ROLE {name} LOGIN PASSWORD 'first'",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    yield name
    administer(guarded, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


def url_of(server: EmbeddedPostgres, role: str, password: str = "first") -> str:
    return make_conninfo(host=str(server.root), dbname=role, user=role, password=password)


class Secrets:
    """Secrets Manager and RDS in three lines each."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.asked = 0

    def get_secret_value(self, **_: str) -> dict[str, str]:
        self.asked += 1
        return {"SecretString": json.dumps(self.values)}

    def generate_db_auth_token(self, **named: Any) -> str:
        self.asked += 1
        assert (named["Port"], named["DBUsername"]) == (5432, self.values["username"])
        return str(self.values["password"])


def prepare(server: EmbeddedPostgres, role: str) -> None:
    administer(server, "CREATE EXTENSION vector", database=role)
    migrate(url_of(server, role))


def rotate(server: EmbeddedPostgres, role: str, password: str) -> None:
    administer(
        server, f"ALTER ROLE {role} PASSWORD '{password}'",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
    )  # fmt: skip


def ask(database: Database) -> tuple[Any, ...] | None:
    with database.connection() as connection:
        return connection.execute("SELECT 1").fetchone()


@pytest.mark.parametrize("iam", [False, True], ids=["secret", "iam"])
def test_login__that_is_asked_for_again_survives_a_rotation(
    guarded: EmbeddedPostgres, role: str, iam: bool
) -> None:
    prepare(guarded, role)
    secrets = Secrets(username=role, password="first", host=str(guarded.root), dbname=role)
    url = make_conninfo(host=str(guarded.root), dbname=role, user=role)
    login = ledger_login(url, secret="" if iam else "arn:ledger", iam=iam, client=secrets)
    with Database(login, wait_seconds=2.0) as database:
        assert ask(database) == (1,)
        rotate(guarded, role, "second")
        secrets.values["password"] = "second"
        asked = secrets.asked
        with pytest.raises(DependencyDownError):  # the connection that was cut
            ask(database)
        assert ask(database) == (1,)
        assert secrets.asked > asked


def test_login__refused_for_two_minutes_ends_the_process(
    guarded: EmbeddedPostgres, role: str
) -> None:
    prepare(guarded, role)
    now = [0.0]
    with Database(
        url_of(guarded, role), wait_seconds=0.3, clock=lambda: now[0]
    ) as database:  # fmt: skip
        assert ask(database) == (1,)
        rotate(guarded, role, "second")
        for _ in range(2):
            with pytest.raises(DependencyDownError) as told:
                ask(database)
            assert not isinstance(told.value, LoginRefusedError)
        assert "authentication failed" in str(told.value)
        now[0] = REFUSED_FOR_SECONDS
        with pytest.raises(LoginRefusedError, match="was the password rotated"):
            ask(database)
        # Its time starts again after a successful login.
        rotate(guarded, role, "first")
        database._check()
        rotate(guarded, role, "third")
        now[0] += 1
        with pytest.raises(DependencyDownError) as told:
            database._check()
        assert not isinstance(told.value, LoginRefusedError)


def test_database__leaves_a_writer_that_became_a_reader(
    guarded: EmbeddedPostgres, role: str
) -> None:
    """As after a failover, when the old writer's connections live on: read-only."""
    prepare(guarded, role)
    with Database(url_of(guarded, role), wait_seconds=2.0) as database:
        assert ask(database) == (1,)
        with pytest.raises(DependencyDownError, match="25006"), database.connection() as old:
            old.execute("SET default_transaction_read_only = on")
            old.execute("CREATE TABLE t (i int)")
        with database.connection() as new:
            new.execute("CREATE TABLE t (i int)")
    administer(guarded, f"ALTER DATABASE {role} SET default_transaction_read_only = on")
    with pytest.raises(DependencyDownError, match="read-only"), Database(
        url_of(guarded, role)
    ) as database:  # fmt: skip
        ask(database)


def test_migrate__without_superuser(guarded: EmbeddedPostgres, role: str) -> None:
    """Needs an administrator for one statement, and says for which."""
    url = url_of(guarded, role)
    with pytest.raises(SettingError, match="let an administrator run CREATE EXTENSION vector"):
        migrate(url)
    administer(guarded, "CREATE EXTENSION vector", database=role)
    assert migrate(url)
    assert pending(url) == []


def test_migrate__an_extension_outside_the_search_path(
    guarded: EmbeddedPostgres, role: str
) -> None:
    administer(
        guarded, "CREATE SCHEMA tools", "CREATE EXTENSION vector SCHEMA tools",
        f"GRANT USAGE ON SCHEMA tools TO {role}", database=role,
    )  # fmt: skip
    url = url_of(guarded, role)
    with pytest.raises(SettingError, match=f"ALTER ROLE {role} SET search_path = public, tools"):
        migrate(url)
    administer(guarded, f"ALTER ROLE {role} SET search_path = public, tools")
    assert migrate(url)
    with Database(url) as database:
        assert ask(database) == (1,)


def test_migrate__a_database_that_is_not_utf8(guarded: EmbeddedPostgres) -> None:
    name = f"ascii_{uuid4().hex[:8]}"
    administer(guarded, f"CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0")
    for use in (migrate, lambda url: ask(Database(url))):
        with pytest.raises(SettingError, match="encoding SQL_ASCII, and object keys are UTF-8"):
            use(guarded.url(name))


@pytest.mark.parametrize(("version", "works"), [("0.8.4", True), ("0.8.3", False)])
def test_pgvector__an_old_one_is_refused_only_where_its_index_is_used(
    database_url: str, monkeypatch: pytest.MonkeyPatch, version: str, works: bool
) -> None:
    statement = f"SELECT '{version}'"
    with Database(database_url) as database:
        monkeypatch.setitem(PgvectorSearch.check.__globals__["_SQL"], "library_version", statement)
        search = PgvectorSearch(database)
        if works:
            search.check()
        else:
            with pytest.raises(
                DependencyDownError, match=r"0\.8\.3 is too old for its HNSW.*0\.8\.4"
            ):
                search.check()
    assert migrate(database_url) == []  # asks for halfvec only


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": ""}, "no ledger is set"),
        ({"url": "postgresql://h/d", "iam": True}, "PIXSIFT_DATABASE_IAM needs host and user"),
        ({"url": "x", "iam": True, "secret": "s"}, "not both"),
    ],
)
def test_login__mistakes_are_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        ledger_login(**arguments, client=Secrets())


def test_login__a_secret_of_another_shape_is_named_and_not_shown() -> None:
    login = ledger_login("", secret="arn:ledger", client=Secrets(token="hush"))
    assert callable(login)
    with pytest.raises(SettingError, match="arn:ledger holds no JSON with username") as told:
        login()
    assert "hush" not in str(told.value)
