"""The two SQL functions that say what held at a seq: right, and put in place of their call."""

import psycopg
import pytest

from ledger_world import image, new_collection, space, unit
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.sql import statements


@pytest.mark.parametrize(
    ("start", "end", "seq", "holds"),
    [
        (3, None, 2, False),  # not yet
        (3, None, 3, True),  # the start is included
        (3, 5, 4, True),
        (3, 5, 5, False),  # the end is not
        (3, 3, 3, False),  # closed in the turn that opened it
    ],
)
def test_holds_at__from_included_to_excluded(
    database_url: str, start: int, end: int | None, seq: int, holds: bool
) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT holds_at(%s, %s::bigint, %s)", (start, end, seq)
        ).fetchone()
    assert row == (holds,)


def test_holds_at__is_put_in_place_of_the_call_and_uses_the_index(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET enable_seqscan = off")
        rows = connection.execute(
            "EXPLAIN SELECT object_id FROM representative WHERE collection_id = 1 "
            "AND generation = 1 AND holds_at(valid_from_seq, valid_to_seq, 5)"
        ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "holds_at" not in plan, plan
    assert "valid_from_seq <= " in plan and "valid_to_seq IS NULL" in plan, plan
    assert "Index Cond" in plan and "valid_from_seq" in plan.split("Index Cond")[1].split("\n")[0]


@pytest.mark.parametrize("name", ["states_at", "changes_between"])
def test_holds_at__disappears_from_the_plans_of_a_replay(database_url: str, name: str) -> None:
    values = {"collection_id": 1, "generation": 1, "at_seq": 5, "from_seq": 2, "to_seq": 5}
    with psycopg.connect(database_url) as connection:
        connection.execute("SET enable_seqscan = off")
        query = "EXPLAIN " + statements("generations")[name]
        rows = connection.execute(query.encode(), values).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "holds_at" not in plan and "valid_to_seq IS NULL" in plan, plan
    assert "Seq Scan" not in plan, plan


def test_generation_at__is_the_one_that_was_current_then(database_url: str) -> None:
    with Database(database_url) as database:
        ledger = Ledger(database)
        ledger.ensure_space(space())
        collection = new_collection(ledger)
        ledger.commit(collection, [image("a.jpg", unit(1.0))])
        switched = Generations(database).redecide(collection, epsilon=0.5)
        with database.connection() as connection:
            found = [
                connection.execute(
                    "SELECT generation_at(%s, %s::bigint)", (collection.collection_id, seq)
                ).fetchone()
                for seq in (1, switched.seq, None)
            ]
    assert found == [(1,), (2,), (2,)]
