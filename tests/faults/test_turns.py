"""Every writer of the decision history goes through a turn: each net, taken away, is missed.

Each writer is stopped before its lock while another transaction holds it, changes the history and
commits. So nothing here needs luck.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import psycopg
import pytest

from invariants import violations
from ledger_world import finding, image, new_collection, outcomes, rows, turned
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.attributes import import_attributes
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database
from pixsift.core.sidecar import SidecarRow
from pixsift.operations.audit import Auditor

PATIENCE_SECONDS = 30


def ids(database: Database, key: str) -> list[int]:
    found = rows(database.url, "SELECT object_id FROM object WHERE key = %s", key)
    return [object_id for (object_id,) in found]


def arrive(database: Database) -> None:
    ledger = Ledger(database, actor="writer")
    ledger.commit(ledger.collection("c"), [image("new", turned(3))])


def remove(database: Database) -> None:
    ledger = Ledger(database, actor="writer")
    ledger.remove(ledger.collection("c"), [image("rep", turned(0)).version], reason="erased")


def rejudge(database: Database) -> None:
    spoil(database.url)
    collection = Ledger(database).collection("c")
    assert Rejudge(database, actor="writer").again(collection, ids(database, "near"), why="audit")


def take_back(database: Database) -> None:
    collection = Ledger(database).collection("c")
    assert Rejudge(database, actor="writer").take_back(collection, ids(database, "bad"))


def switch(database: Database) -> None:
    Generations(database, actor="writer").redecide(Ledger(database).collection("c"), epsilon=0.06)


def describe(database: Database) -> None:
    collection = Ledger(database).collection("c")
    row = SidecarRow("line 1", "rep", None, None, {"robot": "r2"})
    assert import_attributes(database, collection, [row], actor="writer").changed == 1


Write = Callable[[Database], None]
WRITERS: list[Write] = [arrive, remove, rejudge, take_back, switch, describe]
REASONS = ["arrival", "erased", "audit", "undo", "redecide", "attributes"]
each_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


@pytest.fixture
def url(database_url: str) -> str:
    """A representative, its duplicate, another representative, a rejected one."""
    with Database(database_url) as database:
        ledger = Ledger(database)
        collection = new_collection(ledger)
        ledger.commit(
            collection,
            [image("rep", turned(0)), image("near", turned(5)), image("far", turned(90))],
        )
        ledger.commit(collection, [finding("bad", "rejected", "blurred")])
    return database_url


def spoil(url: str) -> None:
    """Something for a re-decision to correct."""
    assert rows(url, "UPDATE decision SET distance = 0.001 WHERE distance > 0 RETURNING 1")


def turns(url: str) -> list[tuple[int, str, str]]:
    return rows(url, "SELECT seq, actor, reason FROM turn ORDER BY seq")


@each_writer
def test_turn__names_its_actor_and_reason(write: Write, url: str) -> None:
    with Database(url) as database:
        write(database)
    reason = REASONS[WRITERS.index(write)]
    assert turns(url)[-1] == (3, "writer", reason)
    tokens = rows(url, "SELECT token FROM turn")
    assert len(set(tokens)) == 4


@each_writer
def test_turn__another_isolation_is_refused(write: Write, url: str) -> None:
    before = outcomes(url), turns(url)
    settings = {"default_transaction_isolation": "repeatable read"}
    with (
        Database(url, session=settings) as database,
        pytest.raises(RuntimeError, match="needs read committed"),
    ):
        write(database)
    assert (outcomes(url), turns(url)) == before


@each_writer
def test_turn__one_after_the_other(write: Write, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    race(write, url, monkeypatch)
    assert [actor for _, actor, _ in turns(url)] == ["pixsift"] * 3 + ["rival", "writer"]
    assert rows(url, "SELECT seq FROM collection") == [(4,)]
    assert violations(url) == []


@each_writer
def test_mutation__without_the_lock_the_guard_is_loud(
    write: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_lock(monkeypatch)
    with pytest.raises(RuntimeError, match="seq moved"):
        race(write, url, monkeypatch)


@each_writer
def test_mutation__without_lock_and_guard_the_turn_is_loud(
    write: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_lock(monkeypatch)
    edit(monkeypatch, "end_turn", lambda sql: sql.replace("AND seq = %(seq)s - 1", ""))
    with pytest.raises(psycopg.errors.UniqueViolation, match="turn_pkey"):
        race(write, url, monkeypatch)


@each_writer
def test_mutation__without_any_of_them_two_share_a_seq(
    write: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_lock(monkeypatch)
    drop_turn(monkeypatch, "")
    race(write, url, monkeypatch)
    assert rows(url, "SELECT seq FROM collection") == [(3,)]
    assert turns(url)[-1][:2] == (3, "rival")


@each_writer
def test_mutation__without_the_turn_row_the_audit_tells(
    write: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_turn(monkeypatch, "AND seq = %(seq)s - 1")
    with Database(url) as database:
        write(database)
        report = Auditor(database).audit(Ledger(database).collection("c"))
    assert violations(url)[-1] == "turns are not dense"
    assert any("1 transactions have no turn" in found.message for found in report.findings)


def edit(monkeypatch: pytest.MonkeyPatch, statement: str, change: Callable[[str], str]) -> None:
    """Mutate a statement of the history."""
    new = change(history._SQL[statement])
    assert new != history._SQL[statement], "the mutation changes nothing"
    monkeypatch.setitem(history._SQL, statement, new)


def drop_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "lock_collection", lambda sql: sql.replace("FOR NO KEY UPDATE", ""))


def drop_turn(monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    edit(
        monkeypatch,
        "end_turn",
        lambda sql: (
            f"UPDATE collection SET seq = %(seq)s WHERE collection_id = %(collection_id)s {guard}"
        ),
    )


def race(write: Write, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``write`` come to its lock, and a rival's whole turn happen before it is had."""
    arrived, go = Event(), Event()
    turn = history.turn

    @contextmanager
    def gated(*arguments: Any, **named: Any) -> Iterator[history.Turn]:
        arrived.set()
        assert go.wait(PATIENCE_SECONDS)
        with turn(*arguments, **named) as mine:
            yield mine

    monkeypatch.setattr(history, "turn", gated)
    with (
        ThreadPoolExecutor(1) as pool,
        Database(url) as database,
        psycopg.connect(url) as rival,
    ):
        writing = pool.submit(write, database)
        try:
            assert arrived.wait(PATIENCE_SECONDS), writing.exception()
            rival.execute("SELECT FROM collection FOR NO KEY UPDATE")
            go.set()
            _wait_until_blocked(url)
            rival.execute(
                "WITH c AS (UPDATE collection SET seq = seq + 1 RETURNING collection_id, seq),"
                " t AS (INSERT INTO turn (collection_id, seq, actor, reason)"
                "       SELECT collection_id, seq, 'rival', 'attributes' FROM c)"
                " INSERT INTO attribute SELECT c.collection_id, object_id, 'exif', '{}', c.seq"
                " FROM c, object WHERE key = 'far'"
            )
            rival.commit()
        finally:
            go.set()
        writing.result(PATIENCE_SECONDS)


def _wait_until_blocked(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    waiting = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while not rows(url, waiting):
        assert time.monotonic() < deadline, "nobody waits for the lock"
        time.sleep(0.01)
