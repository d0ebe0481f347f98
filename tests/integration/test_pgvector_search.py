"""The HNSW body on a real pgvector: plans, maintenance, recall in burst order."""

import re
import time
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from ledger_world import finding, image, ledger_of, new_collection, rows
from pixsift.adapters.ledger.generation_build import Build
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Connection
from pixsift.adapters.search.pgvector import _SQL, HnswParameters, PgvectorSearch, _on
from pixsift.adapters.search.resident import SeqPoint
from pixsift.core.collection import Collection
from pixsift.errors import TransientError
from pixsift.sql import statements

DIMENSION = 32
LOCKED = ("tail", "alive", "open_decisions", "child_ids")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as opened:
        yield opened


def bursts(count: int, clusters: int, seed: int) -> NDArray[np.float16]:
    """Rows in the order robots upload: one tight cluster after the other."""
    chance = np.random.default_rng(seed)
    centers = np.repeat(chance.standard_normal((clusters, DIMENSION)), count // clusters, axis=0)
    vectors = centers + chance.standard_normal(centers.shape) * 0.25
    return halves(vectors)


def halves(vectors: NDArray[np.float64]) -> NDArray[np.float16]:
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.float16
    )
    return unit


def fill(ledger: Ledger, collection: Collection, vectors: NDArray[np.float16], name: str) -> None:
    for start in range(0, len(vectors), 500):
        ledger.commit(
            collection,
            [image(f"{name}/{start + i}", v) for i, v in enumerate(vectors[start : start + 500])],
        )


def test_nearest__uses_the_index_and_locked_reads_use_theirs(
    ledger: Ledger, database_url: str
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    fill(ledger, collection, bursts(3000, 30, seed=1), "a")
    fill(ledger, collection, bursts(10, 10, seed=3), "b")
    PgvectorSearch(ledger._database, background=False).advance(1)
    with ledger._database.connection() as connection:
        connection.execute("ANALYZE")
        names = {
            "queries": list(bursts(60, 30, seed=2)), "most": 16, "max_distance": 0.05,
        }  # fmt: skip
        explain = _on("EXPLAIN (COSTS OFF) " + _SQL["nearest"], "hnsw_1_1")
        plan = "\n".join(row[0] for row in connection.execute(explain, names).fetchall())
        assert "Index Scan using hnsw_1_1_embedding_idx" in plan
        assert "Seq Scan on hnsw_1_1" not in plan
        for name in LOCKED:
            values = {
                "collection_id": 1, "generation": 1, "watermark": 6, "object_ids": [1, 2],
                "representatives": [1], "contents": [b"x"], "pixels": [b"x"],
            }  # fmt: skip
            statement = "EXPLAIN (COSTS OFF) " + re.sub(
                r"^--.*$", "", statements("ledger")[name], flags=re.M
            )
            rows_of = connection.execute(statement, values).fetchall()
            plan = "\n".join(row[0] for row in rows_of)
            assert "Seq Scan" not in plan, f"{name}:\n{plan}"
        # Expected to be long, the tail still looks its vectors up one by one.
        values |= {"watermark": 0}
        for statement in (statements("ledger")["tail"], statements("resident_search")["opened"]):
            told = connection.execute(
                "EXPLAIN (COSTS OFF) " + re.sub(r"^--.*$", "", statement, flags=re.M), values
            )
            plan = "\n".join(row[0] for row in told.fetchall())
            assert "Index Scan using embedding_pkey" in plan, plan


def test_within__a_body_dropped_in_between_means_another_generation(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    fill(ledger, collection, bursts(100, 10, seed=1), "a")
    search = PgvectorSearch(ledger._database, background=False)
    search.advance(1)
    monkeypatch.setattr(search, "_body", lambda connection, head: ("hnsw_1_9", 1))
    assert search.within(1, bursts(20, 10, seed=2), 0.05).generation == -1


def test_advance__follows_what_came_and_what_went(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    search = PgvectorSearch(ledger._database, background=False)
    fill(ledger, collection, bursts(100, 10, seed=1), "a")
    assert search.advance(1) == 1
    ledger.remove(collection, [finding(f"a/{i}", "gone").version for i in range(30)])
    fill(ledger, collection, bursts(50, 10, seed=2), "b")
    assert search.advance(1) == 3
    assert rows(database_url, "SELECT count(*) FROM hnsw_1_1") == [(120,)]
    assert rows(database_url, "SELECT body_table, built_to_seq FROM neighbor_index") == [
        ("hnsw_1_1", 3)
    ]
    assert search.advance(1) == 3


def test_advance__a_retired_generation_loses_its_body(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    search = PgvectorSearch(ledger._database, background=False)
    fill(ledger, collection, bursts(100, 10, seed=1), "a")
    search.advance(1)
    with ledger._database.transaction() as connection:
        connection.execute("UPDATE generation SET state = 'retired'")
        connection.execute(
            "INSERT INTO generation (collection_id, generation, epsilon, state)"
            " VALUES (1, 2, 0.1, 'current')"
        )
        connection.execute("UPDATE collection SET generation = 2, seq = seq + 1")
    search.advance(1)
    assert rows(database_url, "SELECT body_table FROM neighbor_index") == [("hnsw_1_2",)]
    assert rows(database_url, "SELECT to_regclass('hnsw_1_1')") == [(None,)]


def test_within__a_long_tail_moves_into_the_body_by_itself(
    ledger: Ledger, database_url: str
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    search = PgvectorSearch(
        ledger._database, parameters=HnswParameters(ef_construction=64, tail_rows=50)
    )
    fill(ledger, collection, bursts(100, 10, seed=1), "a")
    search.within(1, bursts(10, 10, seed=2), 0.05)
    built, deadline = "SELECT built_to_seq FROM neighbor_index", time.monotonic() + 30
    while rows(database_url, built) != [(1,)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rows(database_url, built) == [(1,)]
    answer = search.within(1, bursts(10, 10, seed=2), 2.0)
    assert answer.watermark == 1
    assert all(len(ids) == 100 for ids in answer.object_ids)


def test_within__recall_at_epsilon_in_burst_order(ledger: Ledger) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    stored = bursts(3000, 15, seed=1)
    fill(ledger, collection, stored, "a")
    search = PgvectorSearch(ledger._database, background=False)
    search.advance(1)
    chance = np.random.default_rng(3)
    planted = stored[chance.choice(len(stored), 600, replace=False)].astype(np.float64)
    queries = halves(planted + chance.standard_normal(planted.shape) * 0.03)
    answer = search.within(1, queries, 0.05)
    with ledger._database.connection() as connection:
        ids = dict(connection.execute("SELECT key, object_id FROM object").fetchall())
    unit = stored.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = 1 - queries.astype(np.float64) @ unit.T <= 0.045
    hits = [
        ids[f"a/{row}"] in set(answer.object_ids[query].tolist())
        for query, row in zip(*np.nonzero(near), strict=True)
    ]
    assert len(hits) >= 600
    assert np.mean(hits) >= 0.995


def test_redecide__the_new_generation_comes_with_a_body(ledger: Ledger, database_url: str) -> None:
    # Without one every consumer would hold the whole generation in memory.
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    vectors = bursts(300, 30, seed=1)
    fill(ledger, collection, vectors, "a")
    generations, search = Generations(ledger._database), PgvectorSearch(ledger._database)
    generations.redecide(collection, epsilon=1e-5)
    assert rows(database_url, "SELECT * FROM neighbor_index") == []  # it was not used
    search.advance(1)
    for undo in (False, True):
        switched = (
            generations.undo(collection) if undo else generations.redecide(collection, epsilon=2e-5)
        )
        found = search.within(1, vectors[:1], 1e-6)
        assert (found.generation, len(found.object_ids[0])) == (switched.generation, 1)
        assert search._slots[1].mirror is not None
        assert search._slots[1].mirror.count == 0


def test_follow__what_comes_during_the_build_is_tail(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    old, new = bursts(300, 30, seed=1), bursts(10, 10, seed=2)
    fill(ledger, collection, old, "a")
    search = PgvectorSearch(ledger._database, background=False)
    search.advance(1)
    follow = PgvectorSearch.follow

    def build(bodies: PgvectorSearch, collection_id: int, generation: int, seq: int) -> None:
        follow(bodies, collection_id, generation, seq)
        fill(ledger, collection, new, "b")

    monkeypatch.setattr(PgvectorSearch, "follow", build)
    Generations(ledger._database).redecide(collection, epsilon=2e-6)
    found = search.within(1, np.concatenate([old[:3], new[:3]]), 1e-6)
    assert [len(ids) for ids in found.object_ids] == [1] * 6
    assert search._slots[1].mirror is not None
    assert search._slots[1].mirror.count == len(new)


def test_follow__an_image_erased_during_the_build_is_not_in_the_body(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    fill(ledger, collection, bursts(60, 10, seed=1), "a")
    search = PgvectorSearch(ledger._database, background=False)
    search.advance(1)
    complete = PgvectorSearch._complete

    def erase_meanwhile(bodies: PgvectorSearch, connection: Connection, head: SeqPoint) -> None:
        complete(bodies, connection, head)  # filled, and not yet seen by anybody else
        with psycopg.connect(database_url) as other:
            other.execute("UPDATE object SET erased_at = now() WHERE key = 'a/7'")

    monkeypatch.setattr(PgvectorSearch, "_complete", erase_meanwhile)
    Generations(ledger._database).redecide(collection, epsilon=2e-6)
    assert rows(database_url, "SELECT count(*) FROM hnsw_1_2") == [(59,)]


def test_redecide__one_that_fails_leaves_no_body(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = new_collection(ledger, dimension=DIMENSION, epsilon=1e-6)
    fill(ledger, collection, bursts(60, 10, seed=1), "a")
    PgvectorSearch(ledger._database, background=False).advance(1)

    def fail(*_: object) -> None:
        raise TransientError("no lock to be had")

    monkeypatch.setattr(Build, "_switch", fail)
    with pytest.raises(TransientError):
        Generations(ledger._database).redecide(collection, epsilon=2e-6)
    assert rows(database_url, "SELECT body_table FROM neighbor_index") == [("hnsw_1_1",)]
    assert rows(database_url, "SELECT to_regclass('hnsw_1_2')") == [(None,)]
