"""The ledger goes back in time under running consumers: what they remember of it is void."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from faults.consumer_process import outcomes, wait_until
from faults.images import jpeg
from faults.restore import backup, restore
from faults.scene import scene
from invariants import violations
from ledger_world import image, ledger_of, new_collection, turned
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.history import StartAgainError
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.mirror import Mirror, NumpyBlocks
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.collection import HistoryPoint
from pixsift.errors import DependencyDownError, TransientError
from pixsift.ports import Neighborhood, NeighborSearch


def test_consumer__a_restored_ledger_keeps_no_near_duplicates(
    database_url: str, tmp_path: Path
) -> None:
    """Twenty images, a backup, forty more, the backup back, then thirty new ones and two
    near-copies of each: the consumer never stops."""
    with scene(database_url, tmp_path) as place:

        def upload(first: int, count: int, *, copies: int = 0) -> None:
            for seed in range(first, first + count):
                place.put(f"g{seed}", jpeg(seed), "kept")
                for number in range(copies):
                    place.put(f"g{seed}", jpeg(seed, quality=85 - 5 * number), "duplicate")
            wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)

        with place.consumer():
            upload(0, 20)
            with backup(database_url) as copy:
                upload(1000, 40)
                restore(database_url, copy)
                upload(2000, 30, copies=2)
        found = place.found()
        lost = {f"g{seed}" for seed in range(1000, 1040)}
        assert found == {g: c for g, c in place.expected.items() if g not in lost}
        assert violations(database_url, "test") == []
        assert len(outcomes(database_url)) == 20 + 3 * 30


MAKERS: list[Callable[[Database], NeighborSearch]] = [
    ResidentSearch,
    lambda database: PgvectorSearch(database, background=False),
]


@pytest.mark.parametrize("make", MAKERS, ids=["resident", "pgvector tail"])
@pytest.mark.parametrize("afterwards", [0, 1, 2, 5], ids=lambda n: f"{n} turns after the restore")
def test_within__a_mirror_of_a_lost_history_is_dropped(
    make: Callable[[Database], NeighborSearch], afterwards: int, database_url: str
) -> None:
    """Also where another process has moved seq up to the old watermark, or past it."""
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger)
        search = make(database)

        def commit(name: str, degrees: float) -> None:
            for _ in range(5):
                try:
                    ledger.commit(collection, [image(name, turned(degrees))])
                    return
                except DependencyDownError:  # the pool finds its sessions ended
                    continue
            raise AssertionError("no connection")

        commit("a", 0)
        with backup(database_url) as copy:
            for number in range(2):
                commit(f"lost-{number}", 40 + 40 * number)
            ids = search.within(collection.collection_id, np.stack([turned(40)]), 0.01).object_ids
            assert len(ids[0]) == 1
            restore(database_url, copy)
            for number in range(afterwards):
                commit(f"new-{number}", 180 + 30 * number)
            queries = np.stack([turned(40), turned(80), turned(0), turned(180)])
            found = _patient(lambda: search.within(collection.collection_id, queries, 0.01))
            sizes = [len(object_ids) for object_ids in found.object_ids]
            assert sizes == [0, 0, 1, min(1, afterwards)]


def test_turn__a_plan_of_a_lost_history_starts_again(database_url: str) -> None:
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger)
        ledger.commit(collection, [image("a", turned(0))])
        with database.connection() as connection:
            row = connection.execute(
                "SELECT token FROM turn WHERE collection_id = %s AND seq = 1",
                (collection.collection_id,),
            ).fetchone()
        assert row is not None

        def lock(*points: HistoryPoint) -> None:
            with (
                database.transaction() as connection,
                history.turn(connection, collection, actor="test", reason="test", points=points),
            ):
                pass

        lock(HistoryPoint(1, row[0]))
        with pytest.raises(StartAgainError):
            lock(HistoryPoint(1, row[0]), HistoryPoint(1, uuid4()))
        with pytest.raises(StartAgainError):
            lock(HistoryPoint(2, row[0]))


def test_commit__another_collection_under_the_same_id_is_refused(database_url: str) -> None:
    """After a restore an id may be given out again."""
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger)
        with database.connection() as connection:
            connection.execute("UPDATE collection SET name = 'another'")
        with pytest.raises(TransientError, match="is gone"):
            ledger.commit(collection, [image("a", turned(0))])


def test_append__ids_that_come_back_are_refused() -> None:
    mirror = Mirror(NumpyBlocks(16))
    mirror.append(np.array([1, 2]), np.stack([turned(0), turned(90)]))
    with pytest.raises(TransientError, match="object ids"):
        mirror.append(np.array([2, 3]), np.stack([turned(45), turned(60)]))
    assert mirror.count == 2


def _patient(ask: Callable[[], Neighborhood]) -> Neighborhood:
    for _ in range(5):
        try:
            return ask()
        except DependencyDownError:
            continue
    raise AssertionError("no connection")
