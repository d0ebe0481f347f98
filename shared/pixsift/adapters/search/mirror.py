"""Vectors of representatives in memory, as blocks of unit rows, searched exactly.

Shared by the searches that need one: of all representatives, or of those newer than an index.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.search.best_rows import (
    PROMISING,
    STRETCH,
    at_least,
    floor_of,
    largest,
    promising,
    top_of,
)
from pixsift.errors import DependencyDownError, TransientError

BLOCK_ROWS = 16_384
"""Rows per block: the results of 64 queries stay in the cache, and growing never copies."""
_SPLIT_FROM = 128
"""Shorter rows are multiplied whole."""
_HEAD_PART = 6
"""A sixth of a row is its head: 100,000 rows of 384 dimensions in 300 bursts take 24 ms of CPU per
64 queries, with a quarter 28, unpruned 97."""
_FIT_ROWS = 4096
"""The axes are computed from this many rows; they must be in the first block."""
_DENSE_FROM = 50
"""If more than one pair in fifty remains, one full product is cheaper."""
_PAIRS_AT_ONCE = 8192
_BOUNDS_AT_ONCE = 1 << 25
"""Bounds held at a time: 128 MB."""
_BYTES_PER_ROW = 150
"""In addition to the vector (4 bytes a dimension, and what blocks keep free): its object id, its
place, and the dictionary that finds its row."""
_SECOND_LOOK = 1024
"""Rows that are measured next, where more than that reach the first floor."""
_FEW_OF = 64
"""Where one row in so many is open, or fewer, they are multiplied without bounds."""
_COPIED_FROM = 8
"""If more than one row in eight is left, full products are cheaper than copies of the rows."""
_TURN_FROM = 4
"""Axes are turned when there are so many times the rows: a third more work than once."""


Hits = tuple[NDArray[np.intp], NDArray[np.intp]]
"""(P,) queries and (P,) rows: pairs that belong together."""


class Blocks(Protocol):
    """Where the rows of a mirror live and how they are multiplied: numpy, or a device."""

    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """Write (N, D) from ``row`` on, adding blocks as needed; N stays within one block."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        ...

    def hits(self, queries: NDArray[np.float32], count: int, least: float) -> Hits:
        """Pairs (query, row) among the first ``count`` rows whose product is ``least`` or more."""
        ...


class NumpyBlocks:
    """Blocks in main memory, pruned by a bound that never loses a pair.

    Rows are rotated and split into a short head and a rest. For unit rows x and y the product is
    at most head(x).head(y) + |rest(x)||rest(y)| (Cauchy-Schwarz), and that bound is one product
    of rows with one more column, a fraction of the work. Only pairs whose bound reaches the
    threshold are multiplied in full. Any rotation is right; the principal axes of the first rows
    make the heads carry most, so that few pairs are left.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._head = dimension if dimension < _SPLIT_FROM else dimension // _HEAD_PART
        self._rotation = np.eye(dimension, dtype=np.float32)
        self._is_fitted = self._head == dimension
        self._fitted_to = 0
        """Rows that there were when the axes were turned."""
        self._blocks: list[_Block] = []

    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """See ``Blocks.put``."""
        number, start = divmod(row, BLOCK_ROWS)
        if number == len(self._blocks):
            self._blocks.append(_Block(self._head, self._dimension - self._head))
        self._blocks[number].put(start, *self._split(vectors))
        if not self._is_fitted and row + len(vectors) >= _FIT_ROWS:
            self._fit(row + len(vectors))

    def move(self, source: int, target: int) -> None:
        """See ``Blocks.move``."""
        (from_block, from_row), (to_block, to_row) = (
            divmod(source, BLOCK_ROWS), divmod(target, BLOCK_ROWS),
        )  # fmt: skip
        moved = self._blocks[from_block]
        self._blocks[to_block].heads[:, to_row] = moved.heads[:, from_row]
        self._blocks[to_block].rests[to_row] = moved.rests[from_row]

    def hits(self, queries: NDArray[np.float32], count: int, least: float) -> Hits:
        """See ``Blocks.hits``."""
        heads, rests = self._split(queries)
        asked, found = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            query, row = self._blocks[number].hits(
                heads, rests, min(BLOCK_ROWS, count - start), least
            )
            asked.append(query)
            found.append(row + start)
        return np.concatenate(asked), np.concatenate(found)

    def top(
        self, queries: NDArray[np.float32], count: int, k: int,
        is_open: NDArray[np.bool_] | None, *, margin: float,
    ) -> list[NDArray[np.intp]]:  # fmt: skip
        """Per query, the rows of its k largest products, and those within ``margin`` of the last.

        is_open: (count,) which rows may be found; None: all. Exact: a row whose bound lies below
        k products that were measured cannot be among them.
        """
        if is_open is not None and np.count_nonzero(is_open) * _FEW_OF <= count:
            rows = np.flatnonzero(is_open).astype(np.intp)
            return [largest(rows, values, k, margin) for values in self._of_rows(queries, rows)]
        parts = max(1, len(queries) * count // _BOUNDS_AT_ONCE)
        found: list[NDArray[np.intp]] = []
        for part in np.array_split(queries, min(parts, max(1, len(queries)))):
            heads, rests = self._split(part)
            # Whole stretches: the rows that fill the last one are never open.
            bounds = np.empty((len(part), -(-count // STRETCH) * STRETCH), np.float32)
            bounds[:, count:] = -np.inf
            self._bound(heads, bounds[:, :count])
            if is_open is not None:
                np.copyto(bounds[:, :count], -np.inf, where=~is_open)
            best = [
                self._pruned(bounds[i], heads[i], rests[i], k, margin) for i in range(len(part))
            ]
            hard = [i for i, rows in enumerate(best) if rows is None]
            if hard:
                self._complete(bounds, hard, heads, rests, count)
            found += [top_of(bounds[i], k, margin) if b is None else b for i, b in enumerate(best)]
        return found

    def turn(self, count: int) -> None:
        """Turn the axes along a sample of all ``count`` rows, once they have grown fourfold.

        The first rows are those of the first scenes. Later scenes have other directions, and
        bounds that miss these exclude nothing.
        """
        if self._head == self._dimension or not self._is_fitted:
            return
        if count < _TURN_FROM * self._fitted_to:
            return
        sample = self._rows_at(np.linspace(0, count - 1, 4 * _FIT_ROWS).astype(np.intp))
        axes = _axes(sample)
        self._rotation = np.ascontiguousarray(self._rotation @ axes)
        for block in self._blocks:
            block.put(0, *_parted(block.content(self._head) @ axes, self._head))
        self._fitted_to = count

    def products(self, queries: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """(M, count) the product of each query with each row."""
        heads, rests = self._split(queries)
        if self._head == self._dimension:
            return self._over_blocks(count, len(queries), lambda b, n: heads @ b.heads[:, :n])
        # The lengths of the remainders are part of the bound, not of the product.
        heads = heads[:, :-1]
        return self._over_blocks(
            count, len(queries), lambda b, n: heads @ b.heads[:-1, :n] + rests @ b.rests[:n].T
        )

    def _bound(self, heads: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write to ``out``, (M, count), an upper bound of each product; the product itself where
        rows are not split."""
        count = out.shape[1]
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            n = min(BLOCK_ROWS, count - start)
            np.matmul(heads, self._blocks[number].heads[:, :n], out=out[:, start : start + n])

    def _rows_at(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(R, D) some rows along the present axes."""
        found = np.empty((len(rows), self._dimension), np.float32)
        numbers, places = np.divmod(rows, BLOCK_ROWS)
        for number in np.unique(numbers).tolist():
            block, mine = self._blocks[number], numbers == number
            found[mine, : self._head] = block.heads[: self._head, places[mine]].T
            found[mine, self._head :] = block.rests[places[mine]]
        return found

    def _of_rows(self, queries: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(M, R) products with some rows; few, or the copy costs more than the bounds."""
        # Where rows are not split, the rotation is the identity.
        return np.asarray((queries @ self._rotation) @ self._rows_at(rows).T, np.float32)

    def mean(self, count: int, is_open: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """(D,) mean of the first ``count`` rows, or of those ``is_open``; zeros of none."""
        chosen = np.ones(count, bool) if is_open is None else is_open
        total = np.zeros(self._dimension)
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            n = min(BLOCK_ROWS, count - start)
            block, mine = self._blocks[number], chosen[start : start + n].astype(np.float64)
            total[: self._head] += block.heads[: self._head, :n].astype(np.float64) @ mine
            total[self._head :] += mine @ block.rests[:n].astype(np.float64)
        return np.asarray(self._rotation @ total / max(1, int(chosen.sum())), np.float64)

    def _over_blocks(
        self, count: int, queries: int,
        values: Callable[["_Block", int], NDArray[np.float32]],
    ) -> NDArray[np.float32]:  # fmt: skip
        found = np.empty((queries, count), np.float32)
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            n = min(BLOCK_ROWS, count - start)
            found[:, start : start + n] = values(self._blocks[number], n)
        return found

    def _pruned(
        self, bounds: NDArray[np.float32], head: NDArray[np.float32], rest: NDArray[np.float32],
        k: int, margin: float,
    ) -> NDArray[np.intp] | None:  # fmt: skip
        """The best rows of one query; None where the bounds exclude too few.

        bounds: of whole stretches, -inf for rows that are not open.
        """
        if not len(rest):
            return top_of(bounds, k, margin)
        stretches = bounds.reshape(-1, STRETCH)
        highest = stretches.max(axis=1)
        rows = promising(stretches, highest, 2 * k + PROMISING)
        least = floor_of(self._exact(rows, bounds, head, rest), k, margin)
        rows = at_least(stretches, highest, least)
        if len(rows) > _SECOND_LOOK:
            # The first floor lets many rows through; the best of those give a better one.
            best = rows[np.argpartition(bounds[rows], len(rows) - _SECOND_LOOK)[-_SECOND_LOOK:]]
            least = max(least, floor_of(self._exact(best, bounds, head, rest), k, margin))
            rows = at_least(stretches, highest, least)
        if len(rows) * _COPIED_FROM > len(bounds):
            return None
        return largest(rows, self._exact(rows, bounds, head, rest), k, margin)

    def _complete(
        self, bounds: NDArray[np.float32], hard: list[int], heads: NDArray[np.float32],
        rests: NDArray[np.float32], count: int,
    ) -> None:  # fmt: skip
        """Turn the bounds of some queries into products; -inf stays."""
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            n = min(BLOCK_ROWS, count - start)
            block = self._blocks[number]
            lengths = np.multiply.outer(heads[hard, -1], block.heads[-1, :n])
            more = rests[hard] @ block.rests[:n].T - lengths
            bounds[hard, start : start + n] += more

    def _exact(
        self, rows: NDArray[np.intp], bounds: NDArray[np.float32], head: NDArray[np.float32],
        rest: NDArray[np.float32],
    ) -> NDArray[np.float32]:  # fmt: skip
        """(R,) products of some rows with one query."""
        found = bounds[rows]
        numbers, places = np.divmod(rows, BLOCK_ROWS)
        for number in np.unique(numbers).tolist():
            block, mine = self._blocks[number], numbers == number
            at = places[mine]
            found[mine] += block.rests[at] @ rest - head[-1] * block.heads[-1, at]
        return found

    def _split(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(N, H + 1) heads with the length of the rest, and (N, D - H) rests."""
        if self._head == self._dimension:
            return vectors, vectors[:, :0]
        return _parted(vectors @ self._rotation, self._head)

    def _fit(self, rows: int) -> None:
        """Rotate the axes along the data; only the first block exists at this time."""
        block = self._blocks[0]
        vectors = block.content(self._head)[:rows] @ self._rotation.T
        self._rotation = _axes(vectors[: 4 * _FIT_ROWS])
        self._is_fitted, self._fitted_to = True, rows
        block.put(0, *self._split(vectors))


def _parted(rotated: NDArray[np.float32], head: int) -> tuple[NDArray[np.float32], ...]:
    rests = rotated[:, head:]
    lengths = np.sqrt(np.einsum("ij,ij->i", rests, rests))
    return np.column_stack([rotated[:, :head], lengths]), rests


def _axes(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D, D) the principal axes of some rows, the longest first."""
    wide = sample.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)
    return np.ascontiguousarray(axes[:, ::-1], np.float32)


class _Block:
    """Rows of one block: heads are stored transposed, which makes the product faster."""

    def __init__(self, head: int, rest: int) -> None:
        self.heads = np.zeros((head + (1 if rest else 0), BLOCK_ROWS), np.float32)
        self.rests = np.zeros((BLOCK_ROWS, rest), np.float32)

    def put(self, start: int, heads: NDArray[np.float32], rests: NDArray[np.float32]) -> None:
        self.heads[:, start : start + len(heads)] = heads.T
        self.rests[start : start + len(rests)] = rests

    def content(self, head: int) -> NDArray[np.float32]:
        """(BLOCK_ROWS, D) every row, those that mean nothing included."""
        return np.hstack([self.heads[:head].T, self.rests])

    def hits(
        self, heads: NDArray[np.float32], rests: NDArray[np.float32], count: int, least: float
    ) -> Hits:
        bounds = heads @ self.heads[:, :count]
        query, row = where(bounds >= least)
        if not rests.shape[1] or not len(query):
            return query, row
        if len(query) * _DENSE_FROM > bounds.size:
            # The bound excludes too few pairs: one full product is cheaper than many small ones.
            lengths = np.outer(heads[:, -1], self.heads[-1, :count])
            return where(bounds - lengths + rests @ self.rests[:count].T >= least)
        is_near = np.empty(len(query), bool)
        for begin in range(0, len(query), _PAIRS_AT_ONCE):
            q, r = query[begin : begin + _PAIRS_AT_ONCE], row[begin : begin + _PAIRS_AT_ONCE]
            products = bounds[q, r] - heads[q, -1] * self.heads[-1, r]
            products += np.einsum("ij,ij->i", rests[q], self.rests[r])
            is_near[begin : begin + _PAIRS_AT_ONCE] = products >= least
        return query[is_near], row[is_near]


def where(hits: NDArray[np.bool_]) -> Hits:
    """``np.nonzero`` of a large and nearly empty array: looks at eight at a time."""
    if hits.shape[1] % 8:
        query, row = np.nonzero(hits)
        return query, row
    words = np.flatnonzero(hits.reshape(-1).view(np.uint64))
    word, byte = np.nonzero(hits.reshape(-1, 8)[words])
    query, row = np.divmod(words[word] * 8 + byte, hits.shape[1])
    return query, row


@dataclass(slots=True, eq=False)
class Mirror:
    """Representatives of one generation, complete from ``floor`` (excluded) to ``watermark``."""

    blocks: Blocks
    generation: int = -1
    floor: int = -1
    watermark: int = -1
    token: UUID | None = None
    """Of the watermark's turn: which history these rows are of."""
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
        """Take rows in. halves: (N, D) as stored.

        Raises TransientError for an object that is here already: a returning id belongs to another
        history, and overwriting the row would hide both.
        """
        if not self.rows.keys().isdisjoint(object_ids.tolist()):
            raise TransientError("the ledger reuses object ids: was it restored from a backup?")
        start, end = self.count, self.count + len(object_ids)
        if end > len(self.object_ids):
            grown = np.empty(max(1024, 2 * end), np.int64)
            grown[:start] = self.object_ids[:start]
            self.object_ids = grown
        self.object_ids[start:end] = object_ids
        put_in_parts(self.blocks, start, unit_rows(halves))
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


def put_in_parts(blocks: Blocks, row: int, vectors: NDArray[np.float32]) -> None:
    """Put (N, D) from ``row`` on, however many blocks that takes."""
    first, end = row, row + len(vectors)
    while row < end:
        stop = min(end, (row // BLOCK_ROWS + 1) * BLOCK_ROWS)
        blocks.put(row, vectors[row - first : stop - first])
        row = stop


def row_bytes(dimension: int) -> int:
    """The most that a row takes: blocks keep some rows free, and ids have a dictionary."""
    return 5 * dimension + _BYTES_PER_ROW


@dataclass(eq=False)
class Slot:
    """Holds the mirror of one collection for a search; one search of it at a time."""

    mirror: Mirror | None = None
    lock: Lock = field(default_factory=Lock)


def unit_rows(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """(N, D) float32 of unit length. Raises DependencyDownError for a zero or broken vector: a
    mirror with a hole would keep duplicates."""
    wide = halves.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(norms).all() or (norms <= 0).any():
        raise DependencyDownError("cannot search with a vector that is zero or not finite")
    unit: NDArray[np.float32] = wide / norms[:, None]
    return unit
