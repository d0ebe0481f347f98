"""Cosine similarities of every pair of rows, block by block: what facility location reads.

The similarity of a pair has one definition (``exact``): the float64 sum over that pair alone,
over the product of the two norms, to twelve decimals. So a row's similarity to itself is 1, and
nothing is more similar; batches, threads and BLAS cannot change it. Passes work in float32 and are
within ``error`` of it, a proven bound.

A similarity serves both of its rows, so a pass takes half the products of the full matrix.
Memory beyond the rows: their float32 copy where it fits ``HELD_BYTES``, else two blocks of it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float32s, Float64s, Indices, RowSource

HELD_BYTES = 600 << 20
"""Float32 rows up to this size are normalized once and held."""
TILE = 1024
"""Rows and columns of one tile: 4 MB, which stays in the cache."""
_TAKEN = 4096
_DECIMALS = 12
Int32s = NDArray[np.int32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """For each candidate, the clients whose similarity to it lies above the client's floor."""

    offsets: NDArray[np.int64]
    """(N + 1,) where a candidate's clients begin and end."""
    clients: Int32s
    similarities: Float32s

    def of(self, candidate: int) -> tuple[Int32s, Float32s]:
        """Clients of one candidate, and their float32 similarities."""
        part = slice(self.offsets[candidate], self.offsets[candidate + 1])
        return self.clients[part], self.similarities[part]


class Similarities:
    """Cosines between the rows of one source."""

    def __init__(self, rows: RowSource) -> None:
        self.rows = rows
        self.count = rows.count
        # Higham 3.1 as in ``rows.error_bound``: products and sums, and casts of both unit rows.
        self.error = (rows.dimension + 12) * 2.0**-24 * 1.05
        self.norms: Float64s = np.empty(self.count)
        is_held = self.count * rows.dimension * 4 <= HELD_BYTES
        held = np.empty((self.count, rows.dimension), np.float32) if is_held else None
        self.total: Float64s = np.zeros(rows.dimension)
        for start in range(0, self.count, _TAKEN):
            stop = min(start + _TAKEN, self.count)
            part = rows.take(np.arange(start, stop))
            self.norms[start:stop] = np.sqrt(np.square(part).sum(axis=1))
            if held is not None:
                held[start:stop] = part / self._scale(slice(start, stop))
        self._held = held

    def units(self, start: int, stop: int) -> Float32s:
        """(stop - start, D) rows of unit length, in float32."""
        if self._held is not None:
            return self._held[start:stop]
        part = self.rows.take(np.arange(start, min(stop, self.count)))
        return np.asarray(part / self._scale(slice(start, stop)), dtype=np.float32)

    def units_of(self, indices: Indices) -> Float32s:
        """(M, D) some rows of unit length, in float32."""
        if self._held is not None:
            return self._held[indices]
        return np.asarray(self.rows.take(indices) / self._scale(indices), dtype=np.float32)

    def exact(self, indices: Indices, row: Float64s, norm: float) -> Float64s:
        """(M,) the definition, of some rows with another one of that norm."""
        found = np.empty(indices.size)
        for start in range(0, indices.size, _TAKEN):
            part = indices[start : start + _TAKEN]
            products = (self.rows.take(part) * row).sum(axis=1)
            scale = self.norms[part] * norm
            found[start : start + part.size] = products / np.where(scale > 0, scale, 1)
        return np.asarray(np.round(found, _DECIMALS), dtype=np.float64)

    def exact_with(self, indices: Indices, other: int) -> Float64s:
        """(M,) the definition, of some rows with one of the rows."""
        row = self.rows.take(np.array([other], np.intp))[0]
        return self.exact(indices, row, float(self.norms[other]))

    def sums(self, weights: Float64s) -> Float64s:
        """(N,) weighted sum of the similarities of all rows to each, in float64: two passes."""
        total = np.zeros(self.rows.dimension)
        found = np.empty(self.count)
        for start, part in self._blocks():
            total += weights[start : start + len(part)] @ part
        for start, part in self._blocks():
            found[start : start + len(part)] = part @ total
        return found

    def nearest(self, others: RowSource) -> Float64s:
        """(N,) similarity of each row to the most similar of some other rows, exact."""
        found = np.full(self.count, -1.0)
        for low in range(0, others.count, _TAKEN):
            taken = others.take(np.arange(low, min(low + _TAKEN, others.count)))
            norms = np.sqrt(np.square(taken).sum(axis=1))
            units = (taken / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32)
            for start in range(0, self.count, TILE):
                stop = min(start + TILE, self.count)
                tile = self.units(start, stop) @ units.T
                top = np.maximum(tile.max(axis=1), found[start:stop].astype(np.float32))
                for column in np.flatnonzero((tile >= top[:, None] - 2 * self.error).any(axis=0)):
                    near = np.flatnonzero(tile[:, column] >= top - 2 * self.error) + start
                    again = self.exact(near, taken[column], float(norms[column]))
                    found[near] = np.maximum(found[near], again)
        return found

    def nearest_in_float32(self, picks: Indices, outside: RowSource | None) -> Float64s:
        """(N,) similarity of each row to the most similar of some rows and others, in float32."""
        found = np.full(self.count, -1.0, np.float32)
        units = [self.units_of(picks[low : low + _TAKEN]) for low in range(0, picks.size, _TAKEN)]
        for low in range(0, outside.count if outside else 0, _TAKEN):
            assert outside is not None  # noqa: S101
            taken = outside.take(np.arange(low, min(low + _TAKEN, outside.count)))
            norms = np.sqrt(np.square(taken).sum(axis=1))
            units.append((taken / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32))
        for start in range(0, self.count, TILE):
            part = slice(start, min(start + TILE, self.count))
            for others in units:
                tile = self.units(part.start, part.stop) @ others.T
                found[part] = np.maximum(found[part], tile.max(axis=1))
        return found.astype(np.float64)

    def nearest_others(self) -> Float64s:
        """(N,) similarity of each row to the most similar other one, to five decimals; one pass."""
        found = np.full(self.count, -1.0, np.float32)
        for rows, columns, tile in _ahead(self._tiles()):
            if rows == columns:
                np.fill_diagonal(tile, -1)
            else:
                found[columns] = np.maximum(found[columns], tile.max(axis=0))
            found[rows] = np.maximum(found[rows], tile.max(axis=1))
        # Rounded well above float32 error, so that a pick does not hang on BLAS but in rare cases.
        return np.asarray(np.clip(np.round(found.astype(np.float64), 5), -1, 1))

    def columns(self, candidates: Indices, clients: Indices | None = None) -> Float32s:
        """(M, C) similarities of some candidates to some rows, or to all, in float32."""
        units = self.units_of(candidates)
        count = self.count if clients is None else clients.size
        found = np.empty((candidates.size, count), np.float32)
        for start in range(0, count, 4 * TILE):
            stop = min(start + 4 * TILE, count)
            others = self.units(start, stop) if clients is None else self.units_of(
                clients[start:stop]
            )  # fmt: skip
            found[:, start:stop] = units @ others.T
        return found

    def gains(self, best: Float32s, weights: Float32s) -> Float64s:
        """(N,) for each candidate the weighted sum of what exceeds each client's best; one pass.

        Within ``gains_error`` of the truth.
        """
        sums = _Sums(best, weights)
        for rows, columns, tile in _ahead(self._tiles()):
            sums.add(rows, columns, tile)
        return sums.found

    def gains_of(self, clients: Indices, best: Float32s, weights: Float32s) -> Float64s:
        """(N,) the same sum over some clients alone. best, weights: (C,) of these."""
        found = np.zeros(self.count)
        scratch = np.empty((TILE, TILE), np.float32)
        for rows, columns, tile in _ahead(self._strips(clients)):
            over = scratch[: tile.shape[0], : tile.shape[1]]
            np.subtract(tile, best[columns], out=over)
            np.maximum(over, 0, out=over)
            found[rows] += over @ weights[columns]
        return found

    def gains_error(self, gains: Float64s, total_weight: float) -> Float64s:
        """(N,) how far ``gains`` may be off: the products, and the sums within a tile."""
        return np.asarray(
            gains * (TILE + 8) * 2.0**-24 + total_weight * (self.error + 2.0**-22), np.float64
        )

    def lists(self, floor: Float32s) -> Lists:
        """Every pair whose float32 similarity exceeds the client's floor; one pass."""
        gathered = _Gathered(self.count)
        for rows, columns, tile in _ahead(self._tiles()):
            gathered.add_both(rows, columns, tile, floor)
        return gathered.lists()

    def lists_and_gains(
        self, floor: Float32s, best: Float32s, weights: Float32s
    ) -> tuple[Lists, Float64s]:
        """``lists`` and ``gains`` in one pass."""
        gathered, sums = _Gathered(self.count), _Sums(best, weights)
        for rows, columns, tile in _ahead(self._tiles()):
            gathered.add_both(rows, columns, tile, floor)
            sums.add(rows, columns, tile)
        return gathered.lists(), sums.found

    def _tiles(self) -> Iterator[tuple[slice, slice, Float32s]]:
        """(rows, columns, similarities) of the pairs on and below the diagonal."""
        for low in range(0, self.count, TILE):
            columns = slice(low, min(low + TILE, self.count))
            right = self.units(columns.start, columns.stop).T
            for start in range(low, self.count, TILE):
                rows = slice(start, min(start + TILE, self.count))
                yield rows, columns, self.units(rows.start, rows.stop) @ right

    def _strips(self, clients: Indices) -> Iterator[tuple[slice, slice, Float32s]]:
        """(rows, part of the clients, similarities) of all rows with some clients."""
        for low in range(0, clients.size, TILE):
            part = slice(low, min(low + TILE, clients.size))
            right = self.units_of(clients[part]).T
            for start in range(0, self.count, TILE):
                rows = slice(start, min(start + TILE, self.count))
                yield rows, part, self.units(rows.start, rows.stop) @ right

    def _blocks(self) -> Iterator[tuple[int, Float64s]]:
        for start in range(0, self.count, _TAKEN):
            part = slice(start, min(start + _TAKEN, self.count))
            yield start, self.rows.take(np.arange(part.start, part.stop)) / self._scale(part)

    def _scale(self, part: "slice | Indices") -> Float64s:
        norms = self.norms[part]
        return np.asarray(np.where(norms > 0, norms, 1)[:, None], dtype=np.float64)


class _Sums:
    """What each candidate adds beyond each client's best, summed as the tiles come."""

    def __init__(self, best: Float32s, weights: Float32s) -> None:
        self._best, self._weights = best, weights
        self._scratch = np.empty((TILE, TILE), np.float32)
        self.found = np.zeros(best.size)

    def add(self, rows: slice, columns: slice, tile: Float32s) -> None:
        """A tile serves its rows as candidates, and its columns unless they are the same."""
        best, weights = self._best, self._weights
        over = self._scratch[: tile.shape[0], : tile.shape[1]]
        np.subtract(tile, best[columns], out=over)
        np.maximum(over, 0, out=over)
        self.found[rows] += over @ weights[columns]
        if rows != columns:
            np.subtract(tile, best[rows, None], out=over)
            np.maximum(over, 0, out=over)
            self.found[columns] += weights[rows] @ over


@dataclass(slots=True, eq=False)
class _Gathered:
    """Pairs as the tiles bring them; put in order of the candidates at the end."""

    count: int
    _pieces: dict[int, list[tuple[Int32s, Int32s, Float32s]]] = field(default_factory=dict)

    def add_both(self, rows: slice, columns: slice, tile: Float32s, floor: Float32s) -> None:
        """Rows as candidates, and columns unless they are the same."""
        self.add(rows, columns, tile, tile > floor[columns])
        if rows != columns:
            self.add(columns, rows, tile.T, np.ascontiguousarray((tile > floor[rows, None]).T))

    def add(
        self, candidates: slice, clients: slice, tile: Float32s, above: NDArray[np.bool_]
    ) -> None:
        """tile, above: (candidates, clients)."""
        places = np.flatnonzero(above)
        who, whom = np.divmod(places, above.shape[1])
        counts = np.bincount(who, minlength=above.shape[0]).astype(np.int32)
        piece = counts, (whom + clients.start).astype(np.int32), tile[who, whom]
        self._pieces.setdefault(candidates.start, []).append(piece)

    def lists(self) -> Lists:
        """All pairs; the pieces are given back as they are taken over."""
        sizes = np.zeros(self.count, np.int64)
        for start, pieces in self._pieces.items():
            for counts, _, _ in pieces:
                sizes[start : start + counts.size] += counts
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        clients = np.empty(offsets[-1], np.int32)
        similarities = np.empty(offsets[-1], np.float32)
        for start in sorted(self._pieces):
            pieces = self._pieces.pop(start)
            free = offsets[start : start + pieces[0][0].size].copy()
            for counts, whom, values in pieces:
                runs = np.cumsum(counts) - counts
                places = np.arange(whom.size) + np.repeat(free - runs, counts)
                clients[places], similarities[places] = whom, values
                free += counts
        return Lists(offsets, clients, similarities)


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before is worked on."""
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, source, None)
            yield item
