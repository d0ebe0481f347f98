"""Chooses the search of each collection: exact and resident while it fits in memory, then HNSW."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.mirror import row_bytes
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.adapters.search.resident import ResidentSearch, read_point
from pixsift.extras import require
from pixsift.ports import Neighborhood, NeighborSearch
from pixsift.sql import statements

SearchMode = Literal["auto", "resident", "hnsw"]

_SQL = statements("pgvector_search")


class AutoSearch:
    """Resident while the vectors of a collection fit the budget, then HNSW for the rest of its
    life."""

    def __init__(
        self,
        database: Database,
        resident: ResidentSearch,
        hnsw: PgvectorSearch,
        *,
        memory_bytes: int,
    ) -> None:
        """memory_bytes: per collection."""
        self._database = database
        self._resident = resident
        self._hnsw = hnsw
        self._memory_bytes = memory_bytes
        self._is_resident: dict[int, bool] = {}

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """See ``NeighborSearch.within``."""
        if collection_id not in self._is_resident:
            self._is_resident[collection_id] = self._fits(self._count(collection_id), queries)
        elif self._is_resident[collection_id] and not self._fits(
            self._resident.count(collection_id), queries
        ):
            self._is_resident[collection_id] = False
            self._resident.forget(collection_id)
        search: NeighborSearch = self._resident if self._is_resident[collection_id] else self._hnsw
        return search.within(collection_id, queries, max_distance)

    def _fits(self, rows: int, queries: NDArray[np.float16]) -> bool:
        dimension = int(queries.shape[1])
        return rows * row_bytes(dimension) <= self._memory_bytes

    def _count(self, collection_id: int) -> int:
        names = {"collection_id": collection_id}
        with self._database.connection() as connection:
            read_point(connection, collection_id)  # raises for an unknown collection
            row = connection.execute(_SQL["count_representatives"], names).fetchone()
        return 0 if row is None else int(row[0])


def new_search(
    database: Database,
    mode: SearchMode,
    *,
    memory_bytes: int,
    device: str = "cpu",
    pause: Callable[[str], None] | None = None,
) -> NeighborSearch:
    """The search that the settings ask for. device: where resident vectors are; ``cpu`` uses numpy,
    any other device torch."""
    hnsw = PgvectorSearch(database, pause=pause)
    if mode == "hnsw":
        return hnsw
    if device == "cpu":
        resident = ResidentSearch(database, pause=pause)
    else:
        require(f"a search on device {device!r}", ["torch"], extra="gpu")
        from pixsift.adapters.search.torch_resident import torch_resident_search

        resident = torch_resident_search(database, device, pause=pause)
    if mode == "resident":
        return resident
    return AutoSearch(database, resident, hnsw, memory_bytes=memory_bytes)
