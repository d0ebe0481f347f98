"""One suite for every implementation of ``NeighborSearch``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ledger_world import finding, image, ledger_of, new_collection, rows
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.choose import new_search
from pixsift.adapters.search.pgvector import HnswParameters, PgvectorSearch
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.adapters.search.torch_resident import torch_resident_search
from pixsift.core.collection import Collection
from pixsift.ports import NeighborSearch

SMALL = HnswParameters(ef_search=40, ef_construction=64)


def _cuda(database: Database) -> NeighborSearch:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch_resident_search(database, "cuda")


MAKERS: dict[str, Callable[[Database], NeighborSearch]] = {
    "resident": ResidentSearch,
    "torch": lambda database: torch_resident_search(database, "cpu"),
    "cuda": _cuda,
    "tail": lambda database: PgvectorSearch(database, parameters=SMALL, background=False),
    "body_and_tail": lambda database: PgvectorSearch(database, parameters=SMALL, background=False),
    "auto_fits": lambda database: new_search(database, "auto", memory_bytes=1 << 30),
    "auto_beyond": lambda database: new_search(database, "auto", memory_bytes=1000),
}


@dataclass
class World:
    """A ledger whose representatives are ``vectors``, and the search under test."""

    ledger: Ledger
    collection: Collection
    search: NeighborSearch
    url: str
    vectors: dict[int, NDArray[np.float16]]

    def add(self, prefix: str, vectors: NDArray[np.float16]) -> None:
        batch = [image(f"{prefix}/{i}", vector) for i, vector in enumerate(vectors)]
        for decision, vector in zip(
            self.ledger.commit(self.collection, batch), vectors, strict=True
        ):
            assert decision.outcome == "kept"
            self.vectors[decision.object_id] = vector

    def expected(self, query: NDArray[np.float16], reach: float) -> set[int]:
        wide = query.astype(np.float64)
        found = set()
        for object_id, vector in self.vectors.items():
            other = vector.astype(np.float64)
            if 1 - wide @ other / np.sqrt((wide @ wide) * (other @ other)) <= reach:
                found.add(object_id)
        return found


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.gpu] if n == "cuda" else []) for n in MAKERS]
)
def world(request: pytest.FixtureRequest, database_url: str) -> Iterator[World]:
    with ledger_of(database_url) as ledger:
        search = MAKERS[request.param](ledger._database)
        collection = new_collection(ledger, epsilon=1e-6)
        built = World(ledger, collection, search, database_url, {})
        built.add("old", clustered(300, seed=1))
        if request.param in ("body_and_tail", "auto_beyond"):
            assert PgvectorSearch(ledger._database, parameters=SMALL).advance(1) == 1
            assert rows(database_url, "SELECT count(*) FROM hnsw_1_1") == [(300,)]
        built.add("new", clustered(100, seed=2))
        yield built


def clustered(count: int, seed: int) -> NDArray[np.float16]:
    """Ten tight bursts, as robots upload them."""
    centers = np.random.default_rng(0).standard_normal((10, 16))
    noise = np.random.default_rng(seed).standard_normal((count, 16)) * 0.15
    vectors = np.repeat(centers, count // 10, axis=0) + noise
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.float16
    )
    return unit


def found(world: World, queries: NDArray[np.float16], reach: float) -> list[set[int]]:
    answer = world.search.within(world.collection.collection_id, queries, reach)
    assert (answer.watermark, answer.generation) == (world.ledger.collection("c").seq, 1)
    return [set(ids.tolist()) for ids in answer.object_ids]


def test_within__finds_every_representative_within_the_distance(world: World) -> None:
    queries = clustered(50, seed=3)
    for query, ids in zip(queries, found(world, queries, 0.02), strict=True):
        assert world.expected(query, 0.02) <= ids <= world.expected(query, 0.022)


def test_within__more_neighbors_than_an_index_is_asked_for(world: World) -> None:
    queries = clustered(10, seed=4)[:2]
    for query, ids in zip(queries, found(world, queries, 1.9), strict=True):
        assert world.expected(query, 1.9) <= ids
        assert len(ids) > 100


def test_within__sees_what_came_and_forgets_what_went(world: World) -> None:
    query = clustered(10, seed=5)[:1]
    found(world, query, 0.05)
    world.add("later", query)
    (later,) = world.expected(query[0], 1e-5)
    assert later in found(world, query, 0.05)[0]
    world.ledger.remove(world.collection, [finding("later/0", "gone").version])
    assert later not in found(world, query, 0.05)[0]
    world.add("again", query)
    assert world.expected(query[0], 1e-5) - {later} <= found(world, query, 0.05)[0]


def test_within__an_empty_collection(world: World) -> None:
    empty = new_collection(world.ledger, "empty")
    answer = world.search.within(empty.collection_id, clustered(10, seed=6), 0.1)
    assert (answer.watermark, answer.generation) == (0, 1)
    assert [len(ids) for ids in answer.object_ids] == [0] * 10


def test_within__another_generation_is_searched_anew(world: World) -> None:
    query = clustered(10, seed=7)[:1]
    assert found(world, query, 0.5)[0]
    with world.ledger._database.transaction() as connection:
        connection.execute("UPDATE generation SET state = 'retired'")
        connection.execute(
            "INSERT INTO generation (collection_id, generation, epsilon, state)"
            " VALUES (1, 2, 0.1, 'current')"
        )
        connection.execute("UPDATE collection SET generation = 2, seq = seq + 1")
    answer = world.search.within(1, query, 0.5)
    assert answer.generation == 2
    assert len(answer.object_ids[0]) == 0
