from collections.abc import Iterator
from typing import Any

import pytest

from ledger_world import finding, image, new_collection, rows, turned
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.history import AttributeRow, StartAgainError
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.dedup import Image
from pixsift.errors import TransientError

BY: dict[str, Any] = {"actor": "test", "reason": "test"}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def collection(database: Database) -> Collection:
    ledger = Ledger(database)
    made = new_collection(ledger)
    ledger.commit(made, [image("a", turned(0)), finding("b", "rejected", "blurred")])
    return ledger.collection("c")


def seqs(database: Database) -> tuple[int, list[int]]:
    turns = rows(database.url, "SELECT seq FROM turn ORDER BY seq")
    return rows(database.url, "SELECT seq FROM collection")[0][0], [seq for (seq,) in turns]


def test_turn__that_writes_nothing_leaves_seq_alone(
    database: Database, collection: Collection
) -> None:
    with (
        database.transaction() as connection,
        history.turn(connection, collection, **BY) as turn,
    ):
        turn.close([])
        turn.stop_representing([])
        turn.represent([])
        turn.add([])
        turn.describe([])
    assert seqs(database) == (1, [0, 1])


def test_turn__whatever_is_written_in_it_has_one_seq(
    database: Database, collection: Collection
) -> None:
    with (
        database.transaction() as connection,
        history.turn(connection, collection, **BY) as turn,
    ):
        turn.close([2])
        turn.describe([AttributeRow(1, "sidecar", {"robot": "r2"})])
        turn.describe([AttributeRow(2, "sidecar", {"robot": "r3"})])
    assert seqs(database) == (2, [0, 1, 2])
    closed = rows(database.url, "SELECT valid_to_seq FROM decision WHERE object_id = 2")
    added = rows(database.url, "SELECT DISTINCT valid_from_seq FROM attribute")
    assert closed == added == [(2,)]


def test_turn__that_fails_leaves_nothing(database: Database, collection: Collection) -> None:
    with (
        pytest.raises(KeyError),
        database.transaction() as connection,
        history.turn(connection, collection, **BY) as turn,
    ):
        turn.close([1, 2])
        raise KeyError
    assert seqs(database) == (1, [0, 1])
    assert rows(database.url, "SELECT count(*) FROM decision WHERE valid_to_seq IS NULL") == [(2,)]


def test_turn__of_another_generation_starts_again(
    database: Database, collection: Collection
) -> None:
    with (
        pytest.raises(StartAgainError),
        database.transaction() as connection,
        history.turn(connection, collection, generation=2, **BY),
    ):
        pytest.fail("the block was entered")


def test_turn__a_vector_that_was_erased_starts_again(
    database: Database, collection: Collection
) -> None:
    ((content, pixels),) = rows(
        database.url, "SELECT content_sha256, pixel_sha256 FROM object WHERE key = 'a'"
    )
    rows(database.url, "DELETE FROM embedding RETURNING 1")
    with (
        pytest.raises(StartAgainError),
        database.transaction() as connection,
        history.turn(connection, collection, **BY) as turn,
    ):
        turn.stop_representing([1])
        turn.represent([Image(1, bytes(content), bytes(pixels), turned(0))])
    assert seqs(database) == (1, [0, 1])


def test_turn__without_a_transaction_is_refused(database: Database, collection: Collection) -> None:
    with (
        database.connection() as connection,
        pytest.raises(RuntimeError, match="outside of a transaction"),
        history.turn(connection, collection, **BY),
    ):
        pytest.fail("the block was entered")


def test_turn__of_a_collection_that_is_gone(database: Database, collection: Collection) -> None:
    rows(database.url, "DELETE FROM collection RETURNING 1")
    with (
        pytest.raises(TransientError, match="collection c is gone"),
        database.transaction() as connection,
        history.turn(connection, collection, **BY),
    ):
        pytest.fail("the block was entered")


def test_lock_all__checks_the_isolation(database_url: str, collection: Collection) -> None:
    settings = {"default_transaction_isolation": "repeatable read"}
    with (
        Database(database_url, session=settings) as other,
        pytest.raises(RuntimeError, match="needs read committed"),
        other.transaction() as connection,
    ):
        history.lock_all(connection)


def test_redecide_order__sharper_then_older_then_by_id(database: Database) -> None:
    found = rows(
        database.url,
        "SELECT id FROM (VALUES (1, '{}', 1), (2, '{\"sharpness\": 0.5}', 9),"
        " (3, '{\"sharpness\": 0.7}', 8), (4, '{\"sharpness\": 0.7}', 7),"
        " (5, NULL, 1), (6, '{\"sharpness\": 0.7}', 7)) AS v (id, quality, seq)"
        " ORDER BY redecide_order(quality::jsonb, seq, id)",
    )
    assert [i for (i,) in found] == [4, 6, 3, 2, 1, 5]
