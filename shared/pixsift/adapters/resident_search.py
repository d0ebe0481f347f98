"""Exact search over the kept vectors of a collection, held in memory as one matrix.

The mirror is refreshed to the collection's seq before each search and reports that seq as its
watermark. A stale mirror stays correct: whoever decides looks at everything newer under the lock.
The screen runs in float32 with a margin, so it proposes a few too many and never one too few.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.postgres import Connection, Database
from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.errors import DependencyDownError
from pixsift.ports import Neighborhood
from pixsift.sql import statements

_SQL = statements("resident_search")
_BLOCK_ROWS = 16_384
"""Rows per matrix product: 64 queries x 16,384 float32 results stay in the cache."""


class ResidentSearch:
    """Implements ``NeighborSearch`` in numpy. Thread-safe; one mirror per collection."""

    def __init__(self, database: Database, *, pause: Callable[[str], None] | None = None) -> None:
        self._database = database
        self._pause = pause or (lambda point: None)
        self._mirrors: dict[int, _Mirror] = {}
        self._lock = Lock()

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """See ``NeighborSearch.within``."""
        with self._lock:
            mirror = self._mirrors.setdefault(collection_id, _Mirror())
        with mirror.lock:
            with self._database.connection() as connection:
                self._refresh(connection, collection_id, mirror)
            found = mirror.within(_unit_rows(queries), max_distance + SCREEN_MARGIN)
            return Neighborhood(mirror.watermark, mirror.generation, found)

    def _refresh(self, connection: Connection, collection_id: int, mirror: "_Mirror") -> None:
        row = connection.execute(_SQL["head"], {"collection_id": collection_id}).fetchone()
        if row is None:
            raise LookupError(f"no collection {collection_id}")
        head, generation = row
        self._pause("watermark_read")
        if generation != mirror.generation:
            mirror.clear(generation)
        if head == mirror.watermark:
            return
        names = {
            "collection_id": collection_id,
            "generation": generation,
            "after": mirror.watermark,
            "head": head,
        }
        closed = connection.execute(_SQL["closed"], names).fetchall()
        opened = connection.cursor(binary=True).execute(_SQL["opened"], names).fetchall()
        mirror.apply(closed, opened)
        mirror.watermark = head


@dataclass(slots=True, eq=False)
class _Mirror:
    """The live representatives of one generation up to ``watermark``."""

    generation: int = -1
    watermark: int = -1
    count: int = 0
    matrix: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(capacity, D) unit rows; those from ``count`` on mean nothing."""
    object_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    rows: dict[int, int] = field(default_factory=dict)
    """Object id -> row."""
    lock: Lock = field(default_factory=Lock)

    def clear(self, generation: int) -> None:
        self.generation, self.watermark, self.count = generation, -1, 0
        self.rows = {}

    def apply(
        self,
        closed: list[tuple[int, int]],
        opened: list[tuple[int, int, NDArray[np.float16]]],
    ) -> None:
        """Take out and put in; a row may be closed and opened again in one step."""
        for object_id, _ in closed:
            self._remove(object_id)
        if opened:
            self._append([row[0] for row in opened], np.stack([row[2] for row in opened]))

    def within(self, queries: NDArray[np.float32], reach: float) -> tuple[NDArray[np.int64], ...]:
        """Object ids per query, in no order."""
        found: list[list[NDArray[np.int64]]] = [[] for _ in queries]
        for start, similar in self._blocks(queries, 1.0 - reach):
            for query, row in zip(*np.nonzero(similar), strict=True):
                found[query].append(self.object_ids[start + row : start + row + 1])
        empty = np.empty(0, np.int64)
        return tuple(np.concatenate(ids) if ids else empty for ids in found)

    def _blocks(
        self, queries: NDArray[np.float32], least: float
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for start in range(0, self.count, _BLOCK_ROWS):
            block = self.matrix[start : min(start + _BLOCK_ROWS, self.count)]
            yield start, queries @ block.T >= least

    def _append(self, object_ids: list[int], halves: NDArray[np.float16]) -> None:
        added = _unit_rows(halves)
        end = self.count + len(added)
        if end > len(self.object_ids) or self.matrix.shape[1] != added.shape[1]:
            self._grow(max(1024, end + end // 2), added.shape[1])
        self.matrix[self.count : end] = added
        self.object_ids[self.count : end] = object_ids
        self.rows.update(zip(object_ids, range(self.count, end), strict=True))
        self.count = end

    def _grow(self, capacity: int, dimension: int) -> None:
        matrix = np.empty((capacity, dimension), np.float32)
        object_ids = np.empty(capacity, np.int64)
        if self.count:
            matrix[: self.count] = self.matrix[: self.count]
            object_ids[: self.count] = self.object_ids[: self.count]
        self.matrix, self.object_ids = matrix, object_ids

    def _remove(self, object_id: int) -> None:
        """The last row takes the place of the one that leaves."""
        row = self.rows.pop(object_id, None)
        if row is None:
            return
        last = self.count - 1
        if row != last:
            self.matrix[row] = self.matrix[last]
            moved = int(self.object_ids[last])
            self.object_ids[row] = moved
            self.rows[moved] = row
        self.count = last


def _unit_rows(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    wide = halves.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(norms).all() or (norms <= 0).any():
        raise DependencyDownError("a vector is zero or not finite: refusing to search with it")
    unit: NDArray[np.float32] = wide / norms[:, None]
    return unit
