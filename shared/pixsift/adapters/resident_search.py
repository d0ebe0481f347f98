"""Exact search over the kept vectors of a collection, held in memory as one matrix.

The mirror is refreshed to the collection's seq before each search and reports that seq as its
watermark. A stale mirror stays correct: whoever decides looks at everything newer under the lock.
The screen runs in float32 with a margin, so it proposes a few too many and never one too few.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.postgres import Connection, Database
from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.errors import DependencyDownError, TransientError
from pixsift.ports import Neighborhood
from pixsift.sql import statements

_SQL = statements("resident_search")
_BLOCK_ROWS = 16_384
"""Rows per matrix product: 64 queries x 16,384 float32 results stay in the cache."""
_LOAD_BLOCK_BYTES = 8 << 20
_COPY_HEADER_BYTES, _COPY_TRAILER_BYTES = 19, 2
"""https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"."""


class ResidentSearch:
    """Implements ``NeighborSearch`` in numpy. Thread-safe; one mirror per collection."""

    def __init__(self, database: Database, *, pause: Callable[[str], None] | None = None) -> None:
        self._database = database
        self._pause = pause
        self._mirrors: dict[int, Mirror] = {}
        self._lock = Lock()

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """See ``NeighborSearch.within``."""
        with self._lock:
            mirror = self._mirrors.setdefault(collection_id, Mirror())
        with mirror.lock:
            with self._database.connection() as connection:
                self._refresh(connection, collection_id, mirror)
            found = mirror.within(unit_rows(queries), max_distance + SCREEN_MARGIN)
            return Neighborhood(mirror.watermark, mirror.generation, found)

    def _refresh(self, connection: Connection, collection_id: int, mirror: "Mirror") -> None:
        names: dict[str, Any] = {"collection_id": collection_id}
        row = connection.execute(_SQL["head"], names).fetchone()
        if row is None:
            raise TransientError(f"collection {collection_id} is gone")
        head, generation, dimension = row
        if self._pause is not None:
            self._pause("watermark_read")
        if generation != mirror.generation or mirror.watermark < 0:
            mirror.clear(generation, dimension)
        names |= {"generation": generation, "watermark": mirror.watermark}
        if mirror.watermark < 0:
            for ids, begun, halves in load_rows(connection, names, dimension):
                current = begun <= head
                mirror.append(ids[current], halves[current])
        elif mirror.watermark < head:
            with connection.pipeline():
                closed = connection.execute(_SQL["closed"], names)
                opened = connection.cursor(binary=True).execute(_SQL["opened"], names)
            mirror.remove([object_id for (object_id,) in closed.fetchall()])
            rows = [row for row in opened.fetchall() if row[1] <= head]
            if rows:
                ids = np.array([row[0] for row in rows], np.int64)
                mirror.append(ids, np.stack([row[2] for row in rows]))
        mirror.watermark = head


def load_rows(
    connection: Connection, names: dict[str, Any], dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]]:
    """All open representatives in blocks: object ids (N,), valid_from_seq (N,), halves (N, D).

    By binary COPY, whose rows have one fixed size here: no value is converted one by one.
    """
    row = np.dtype(
        [("fields", ">i2"), ("id_size", ">i4"), ("id", ">i8"), ("from_size", ">i4"),
         ("from", ">i8"), ("size", ">i4"), ("header", ">i4"), ("halves", ">f2", (dimension,))]
    )  # fmt: skip
    with connection.cursor().copy(_SQL["load"], names) as copy:
        pending, skip = bytearray(), _COPY_HEADER_BYTES
        for data in copy:
            pending += data
            if len(pending) >= _LOAD_BLOCK_BYTES:
                whole = skip + (len(pending) - skip) // row.itemsize * row.itemsize
                yield _parse(bytes(pending[skip:whole]), row)
                pending, skip = pending[whole:], 0
        yield _parse(bytes(pending[skip : len(pending) - _COPY_TRAILER_BYTES]), row)


def _parse(
    data: bytes, row: np.dtype[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    rows = np.frombuffer(data, row)
    return (
        rows["id"].astype(np.int64),
        rows["from"].astype(np.int64),
        rows["halves"].astype(np.float16),
    )


@dataclass(slots=True, eq=False)
class Mirror:
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

    def clear(self, generation: int, dimension: int) -> None:
        """Begin with another generation."""
        self.generation, self.watermark, self.count = generation, -1, 0
        self.matrix = np.empty((0, dimension), np.float32)
        self.object_ids = np.empty(0, np.int64)
        self.rows = {}

    def within(self, queries: NDArray[np.float32], reach: float) -> tuple[NDArray[np.int64], ...]:
        """Object ids per query, in no order. queries: (M, D) unit rows."""
        found: list[list[int]] = [[] for _ in queries]
        for start in range(0, self.count, _BLOCK_ROWS):
            block = self.matrix[start : min(start + _BLOCK_ROWS, self.count)]
            for query, row in zip(*np.nonzero(queries @ block.T >= 1.0 - reach), strict=True):
                found[query].append(int(self.object_ids[start + row]))
        return tuple(np.array(ids, np.int64) for ids in found)

    def append(self, object_ids: NDArray[np.int64], halves: NDArray[np.float16]) -> None:
        """Take rows in. halves: (N, D) as stored."""
        end = self.count + len(object_ids)
        if end > len(self.object_ids):
            self._grow(max(1024, end + end // 2))
        self.matrix[self.count : end] = unit_rows(halves)
        self.object_ids[self.count : end] = object_ids
        self.rows.update(zip(object_ids.tolist(), range(self.count, end), strict=True))
        self.count = end

    def remove(self, object_ids: list[int]) -> None:
        """Take rows out; the last row takes the place of one that leaves."""
        for object_id in object_ids:
            row = self.rows.pop(object_id, None)
            if row is None:
                continue
            last = self.count - 1
            if row != last:
                moved = int(self.object_ids[last])
                self.matrix[row], self.object_ids[row] = self.matrix[last], moved
                self.rows[moved] = row
            self.count = last

    def _grow(self, capacity: int) -> None:
        matrix = np.empty((capacity, self.matrix.shape[1]), np.float32)
        object_ids = np.empty(capacity, np.int64)
        matrix[: self.count] = self.matrix[: self.count]
        object_ids[: self.count] = self.object_ids[: self.count]
        self.matrix, self.object_ids = matrix, object_ids


def unit_rows(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """(N, D) float32 of unit length. Raises DependencyDownError for a zero or broken vector: a
    mirror with a hole would keep duplicates."""
    wide = halves.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(norms).all() or (norms <= 0).any():
        raise DependencyDownError("a vector is zero or not finite: refusing to search with it")
    unit: NDArray[np.float32] = wide / norms[:, None]
    return unit
