"""Repairing and taking back single decisions on a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from ledger_world import finding, image, ledger_of, new_collection, outcomes, rows, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as opened:
        yield opened


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url) as opened:
        yield opened


def object_id(url: str, key: str) -> int:
    ((found,),) = rows(url, "SELECT object_id FROM object WHERE key = %s", key)
    return int(found)


def keep_by_force(url: str, key: str) -> None:
    """What an approximate index that missed a neighbor leaves behind: two kept near-duplicates."""
    rows(
        url,
        "WITH d AS (UPDATE decision SET outcome = 'kept', reason = 'new',"
        " representative_object_id = NULL, distance = NULL"
        " WHERE object_id = (SELECT object_id FROM object WHERE key = %s) RETURNING *)"
        " INSERT INTO representative (collection_id, generation, object_id, space_id,"
        " content_sha256, pixel_sha256, valid_from_seq)"
        " SELECT d.collection_id, d.generation, object_id, c.space_id, o.content_sha256,"
        " d.pixel_sha256, d.valid_from_seq FROM d JOIN object o USING (object_id)"
        " JOIN collection c ON c.collection_id = d.collection_id RETURNING 1", key,
    )  # fmt: skip


def test_again__a_missed_neighbor_becomes_a_duplicate_and_its_children_move(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(15))])
    keep_by_force(database_url, "b")
    # With b kept by mistake, c (20 degrees from a) became a duplicate of b.
    ledger.commit(collection, [image("c", turned(20))])
    assert outcomes(database_url)["c@v1"] == ("duplicate", "near", "b")
    changed = Rejudge(database).again(collection, [object_id(database_url, "b")], why="audit")
    assert outcomes(database_url) == {
        "a@v1": ("kept", "new", None),
        "b@v1": ("duplicate", "near", "a"),
        "c@v1": ("kept", "promoted", None),
    }
    assert {c.outcome for c in changed} == {"kept", "duplicate"}
    assert ledger.collection("c").seq == 3


def test_again__what_is_right_stays_without_a_trace(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = new_collection(ledger)
    sharp, blurred = {"sharpness": 0.9}, {"sharpness": 0.1}
    ledger.commit(
        collection,
        [image("a", turned(0), quality=blurred), image("b", turned(5), quality=sharp)],
    )
    before = rows(database_url, "SELECT * FROM decision ORDER BY decision_id")
    ids = [object_id(database_url, key) for key in "ab"]
    assert Rejudge(database).again(collection, ids, why="audit") == []
    assert rows(database_url, "SELECT * FROM decision ORDER BY decision_id") == before
    assert ledger.collection("c").seq == 1


def test_again__a_wrong_distance_is_put_right(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(10))])
    rows(database_url, "UPDATE decision SET distance = 0.001 WHERE distance > 0 RETURNING 1")
    Rejudge(database).again(collection, [object_id(database_url, "b")], why="audit")
    ((distance,),) = rows(
        database_url, "SELECT distance FROM decision WHERE distance > 0 AND valid_to_seq IS NULL"
    )
    assert distance == pytest.approx(0.0152, abs=1e-3)


def test_again__what_is_kept_between_search_and_lock_is_seen(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(90))])
    rows(
        database_url,
        "WITH gone AS (DELETE FROM representative WHERE object_id = %s)"
        " UPDATE decision SET outcome = 'duplicate', representative_object_id = %s"
        " WHERE object_id = %s RETURNING 1",
        *(object_id(database_url, key) for key in "bab"),
    )
    done: list[int] = []

    def arrive() -> None:
        if not done:
            done.append(1)
            ledger.commit(collection, [image("z", turned(92))])

    Rejudge(database, pause=arrive).again(collection, [object_id(database_url, "b")], why="audit")
    assert outcomes(database_url)["b@v1"] == ("duplicate", "near", "z")


def test_take_back__the_object_is_judged_again_when_it_comes_back(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(
        collection, [image("k", turned(0)), finding("r", "rejected", "blurred"),
                     finding("e", "gone", "erased")],
    )  # fmt: skip
    ids = [object_id(database_url, key) for key in "kre"]
    assert Rejudge(database).take_back(collection, ids) == [ids[1]]
    assert "r@v1" not in outcomes(database_url)
    assert ledger.decided(collection.collection_id, [finding("r", "rejected").version]) == set()
    ledger.commit(collection, [image("r", turned(90))])
    assert outcomes(database_url)["r@v1"] == ("kept", "new", None)
    assert len(rows(database_url, "SELECT 1 FROM decision")) == 4
