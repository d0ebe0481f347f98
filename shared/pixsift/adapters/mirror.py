"""Vectors of representatives in memory, as blocks of unit rows, searched exactly.

Shared by the searches that need one: of all representatives, or of those newer than an index.
"""

from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixsift.errors import DependencyDownError

BLOCK_ROWS = 16_384
"""Rows per block: the results of 64 queries stay in the cache, and growing never copies."""


class Blocks(Protocol):
    """Where the rows of a mirror live and how they are multiplied: numpy, or a device."""

    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """Write (N, D) from ``row`` on, adding blocks as needed; N stays within one block."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        ...

    def hits(
        self, queries: NDArray[np.float32], count: int, least: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pairs (query, row) among the first ``count`` rows whose product is ``least`` or more."""
        ...


class NumpyBlocks:
    """Blocks in main memory, multiplied by the BLAS of numpy."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[NDArray[np.float32]] = []

    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """See ``Blocks.put``."""
        block, start = divmod(row, BLOCK_ROWS)
        if block == len(self._blocks):
            self._blocks.append(np.empty((BLOCK_ROWS, self._dimension), np.float32))
        self._blocks[block][start : start + len(vectors)] = vectors

    def move(self, source: int, target: int) -> None:
        """See ``Blocks.move``."""
        (from_block, from_row), (to_block, to_row) = (
            divmod(source, BLOCK_ROWS), divmod(target, BLOCK_ROWS),
        )  # fmt: skip
        self._blocks[to_block][to_row] = self._blocks[from_block][from_row]

    def hits(
        self, queries: NDArray[np.float32], count: int, least: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """See ``Blocks.hits``."""
        asked, found = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            block = self._blocks[number][: count - start]
            query, row = np.nonzero(queries @ block.T >= least)
            asked.append(query)
            found.append(row + start)
        return np.concatenate(asked), np.concatenate(found)


@dataclass(slots=True, eq=False)
class Mirror:
    """Representatives of one generation, complete from ``floor`` (excluded) to ``watermark``."""

    blocks: Blocks
    generation: int = -1
    floor: int = -1
    watermark: int = -1
    object_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(capacity,); those from ``count`` on mean nothing."""
    rows: dict[int, int] = field(default_factory=dict)
    """Object id -> row; rows are 0 to ``count`` - 1."""

    @property
    def count(self) -> int:
        """Number of vectors held."""
        return len(self.rows)

    def within(
        self, queries: NDArray[np.float32], max_distance: float
    ) -> tuple[NDArray[np.int64], ...]:
        """Object ids per query, in no order. queries: (M, D) unit rows."""
        asked, found = self.blocks.hits(queries, self.count, 1.0 - max_distance)
        order = np.argsort(asked, kind="stable")
        borders = np.searchsorted(asked[order], np.arange(1, len(queries)))
        return tuple(np.split(self.object_ids[found[order]], borders))

    def append(self, object_ids: NDArray[np.int64], halves: NDArray[np.float16]) -> None:
        """Take rows in. halves: (N, D) as stored."""
        start, end = self.count, self.count + len(object_ids)
        if end > len(self.object_ids):
            grown = np.empty(max(1024, 2 * end), np.int64)
            grown[:start] = self.object_ids[:start]
            self.object_ids = grown
        self.object_ids[start:end] = object_ids
        vectors = unit_rows(halves)
        row = start
        while row < end:
            stop = min(end, (row // BLOCK_ROWS + 1) * BLOCK_ROWS)
            self.blocks.put(row, vectors[row - start : stop - start])
            row = stop
        self.rows.update(zip(object_ids.tolist(), range(start, end), strict=True))

    def remove(self, object_ids: list[int]) -> None:
        """Take rows out; the last row takes the place of one that leaves."""
        for object_id in object_ids:
            row = self.rows.pop(object_id, None)
            if row is None:
                continue
            last = len(self.rows)
            if row != last:
                moved = int(self.object_ids[last])
                self.blocks.move(last, row)
                self.object_ids[row] = moved
                self.rows[moved] = row


@dataclass(slots=True, eq=False)
class Slot:
    """Where a search keeps the mirror of one collection; one search of it at a time."""

    mirror: Mirror | None = None
    lock: Lock = field(default_factory=Lock)


def unit_rows(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """(N, D) float32 of unit length. Raises DependencyDownError for a zero or broken vector: a
    mirror with a hole would keep duplicates."""
    wide = halves.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(norms).all() or (norms <= 0).any():
        raise DependencyDownError("a vector is zero or not finite: refusing to search with it")
    unit: NDArray[np.float32] = wide / norms[:, None]
    return unit
