"""Flags stay with an image however often it is decided again, and counters follow every writer."""

import time
from collections.abc import Callable

import psycopg
import pytest

from ledger_world import finding, image, ledger_of, new_collection, rows, turned
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.operations.audit import Auditor

FLAGS = {"rep": ["dark"], "near": ["blurred", "dark"], "far": []}


@pytest.fixture
def collection(database_url: str) -> Collection:
    with ledger_of(database_url) as ledger:
        made = new_collection(ledger)
        ledger.commit(
            made,
            [
                image(key, turned(angle), detail={"flags": FLAGS[key]} if FLAGS[key] else {})
                for key, angle in (("rep", 0), ("near", 5), ("far", 90))
            ]
            + [finding("bad", "rejected", "black")],
        )
        return ledger.collection("c")


def flags(url: str) -> dict[str, list[str]]:
    return dict(
        rows(
            url,
            "SELECT key, detail -> 'flags' FROM decision JOIN object USING (object_id)"
            " JOIN collection USING (collection_id, generation) WHERE valid_to_seq IS NULL"
            " AND detail ? 'flags'",
        )
    )


def remove(database: Database, url: str, collection: Collection) -> None:
    with ledger_of(url) as ledger:
        ledger.remove(collection, [image("rep", turned(0)).version])


def rejudge(database: Database, url: str, collection: Collection) -> None:
    assert rows(url, "UPDATE decision SET distance = 0.001 WHERE distance > 0 RETURNING 1")
    everybody = [i for (i,) in rows(url, "SELECT object_id FROM object")]
    assert Rejudge(database).again(collection, everybody, why="audit")


def redecide(database: Database, url: str, collection: Collection) -> None:
    Generations(database).redecide(collection, epsilon=0.001)


def undo(database: Database, url: str, collection: Collection) -> None:
    Generations(database).redecide(collection, epsilon=0.001)
    Generations(database).undo(collection)


@pytest.mark.parametrize("change", [remove, rejudge, redecide, undo])
def test_flags__stay_and_are_counted(
    change: Callable[[Database, str, Collection], None],
    database_url: str,
    collection: Collection,
) -> None:
    expected = {key: value for key, value in FLAGS.items() if value}
    assert flags(database_url) == expected
    with Database(database_url) as database:
        change(database, database_url, collection)
        if change is remove:
            del expected["rep"]
        assert flags(database_url) == expected
        assert Auditor(database).audit(collection).findings == []
        told = Overview(database).counts(collection)
    assert sum(told["outcomes"].values()) == 4
    assert {row["flag"] for row in told["flags"]} == {f for v in expected.values() for f in v}
    assert sum(row["objects"] for row in told["flags"]) == sum(map(len, expected.values()))


def test_counters__of_a_ledger_that_had_none(database_url: str, collection: Collection) -> None:
    """What the migration counts is what the triggers would have."""
    counted = rows(
        database_url, "SELECT * FROM outcome_count WHERE objects <> 0 ORDER BY 1,2,3,4,5"
    )
    assert rows(
        database_url,
        "SELECT d.collection_id, d.generation, d.outcome, d.reason, f.flag, count(*)"
        " FROM decision d CROSS JOIN LATERAL counted_under(d.detail) AS f (flag)"
        " WHERE d.valid_to_seq IS NULL GROUP BY 1,2,3,4,5 ORDER BY 1,2,3,4,5",
    ) == counted  # fmt: skip
    assert ("kept", "new", "dark", 1) in [row[2:] for row in counted]


def test_mutation__without_the_delta_the_audit_tells(
    database_url: str, collection: Collection
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE decision DISABLE TRIGGER count_added")
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        ledger.commit(collection, [image("new", turned(45))])
        (found,) = Auditor(database).audit(collection).findings
        assert found.invariant == "INV10"
        assert found.message == "the counter of kept (new) is 2, and a recount finds 3"


@pytest.mark.full
def test_counters__a_million_decisions_in_milliseconds(
    database_url: str, collection: Collection
) -> None:
    rows(
        database_url,
        "WITH c AS (UPDATE collection SET seq = 20000 RETURNING collection_id),"
        " o AS (INSERT INTO object (bucket, key, version_id) SELECT 'raw', 'm' || i, 'v'"
        " FROM generate_series(1, 1000000) i RETURNING object_id)"
        " INSERT INTO decision (collection_id, generation, object_id, outcome, reason,"
        " valid_from_seq) SELECT c.collection_id, 1, object_id, 'rejected', 'black',"
        " 1 + object_id %% 20000 FROM o, c RETURNING 1",
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE decision, turn")  # as autovacuum has done by then
    with Database(database_url) as database:
        overview = Overview(database)
        overview.outcome_counts(collection)
        started = time.monotonic()
        told = overview.counts(collection)
        took = time.monotonic() - started
    assert told["outcomes"]["rejected"] == 1_000_001
    assert took < 0.1
