"""The most isolated rows: a k-center choice would take each of them first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float32s, Float64s, Indices, RowSource
from pixsift.core.choosing.similarities import TILE, Similarities

_SAMPLE = 1024
_SAMPLES = 3
_CLASS = 0.005
"""Share of a pool that may be a class of its own, however far from all others."""
_FEWEST, _FAR = 2, 5
"""Neighbors: a row and a copy of it are odd together, and so are clumps of up to five; where half
a percent of the pool is less than six rows, such a clump may be a class (``_clumped``)."""
_CLUMPS = 0.01
"""Share of the pool in clumps of a possible class's size from which on they are junk, not one."""
_AMONG_BURSTS = 0.65
"""Deviations weighted by distance are wider by about that."""
_MATES, _MUTUAL = 10, 9
"""A row is of a class when that many of its nearest rows have it among theirs."""
_REFERENCES = 10_000
ODD, EXTREME = 1.25, 3.0
"""Robust deviations above the median distance. k-center, which runs to whatever is far, leaves out
what is odd; other strategies what is extreme (measured in docs/selection.md)."""
_MOST_EXTREME = 0.15
"""Where more of a pool are extreme, they are not exceptions: its bulk is bursts of near-copies."""
_ROUND = 5
"""Decimals, well above float32 error: an order hangs on BLAS but in rare cases."""


@dataclass(frozen=True, slots=True, eq=False)
class Isolation:
    """How far each row is from others, and which rows are odd."""

    distances: Float64s
    """(N,) cosine distance to the fifth nearest other row."""
    odd: NDArray[np.bool_]

    def farthest(self, count: int) -> Indices:
        """At most ``count`` of the odd rows, the farthest from others first, ties by index."""
        rows = np.flatnonzero(self.odd)
        return rows[np.lexsort((rows, -self.distances[rows]))][:count]


def most_isolated(rows: RowSource, count: int, *, seed: int) -> Indices:
    """The ``count`` rows farthest from seeded samples of the others, ascending; three passes.

    Isolation is the distance to the nearest row of a random sample (a twelfth of all, at most
    1,024), the largest over three disjoint samples: so a pair of twins far from all others is
    isolated too, even where one of them was drawn.
    """
    n = rows.count
    size = int(np.clip(n // 12, 1, _SAMPLE))
    drawn = np.random.default_rng([seed, 0x6F75]).permutation(n)[: _SAMPLES * size]
    isolation = np.zeros(n)
    for start in range(0, drawn.size, size):
        nearest: Float32s = np.full(n, np.inf, np.float32)
        sample = np.sort(drawn[start : start + size])
        rows.lower(nearest, rows.take(sample))
        nearest[sample] = 0
        np.maximum(isolation, nearest, out=isolation)
    # Rounded well above float32 error, so that the cut does not hang on BLAS but in rare cases.
    order = np.lexsort((np.arange(n), -np.round(isolation, 5)))
    return np.sort(order[:count]).astype(np.intp)


def isolation(rows: RowSource, *, seed: int, beyond: float = ODD) -> Isolation:
    """Which rows are odd: much farther from their fifth nearest neighbor than most are.

    beyond: how many robust deviations above the median. Kept are rows of a class, which has more
    than the five rows of a clump: nine of a row's ten nearest have it among their own ten nearest.
    Of more than 10,000 rows, neighbors are sought among that many drawn. Products: N x 10,000.
    """
    n = rows.count
    if n <= _MATES + 1:
        return Isolation(np.zeros(n), np.zeros(n, dtype=bool))
    near = int(np.clip(np.ceil(_CLASS * n) - 1, _FEWEST, _FAR))
    search = _Search(rows, seed=seed)
    found = search.nearest(np.arange(n))
    far, tenth = found[:, _FAR - 1], found[:, _MATES - 1]
    alike = np.ones(n)
    odd = far > _limit(far, alike, beyond)
    if (far > _limit(far, alike, EXTREME)).mean() > _MOST_EXTREME:
        # Weighted by distance, near-copies count little, and single images are not far.
        odd = far > _limit(far, far, beyond * _AMONG_BURSTS)
    clumped = odd & (found[:, near - 1] < np.median(found[:, near - 1]))
    if clumped.mean() <= _CLUMPS:
        odd &= ~clumped
    odd[search.of_a_class(np.flatnonzero(odd), tenth)] = False
    return Isolation(far, odd)


class _Search:
    """Distances of rows to their nearest other ones, among all or some drawn."""

    def __init__(self, rows: RowSource, *, seed: int) -> None:
        self._sims = Similarities(rows)
        self._drawn = np.arange(rows.count)
        if rows.count > _REFERENCES:
            rng = np.random.default_rng([seed, 0x6C6F])
            self._drawn = np.sort(rng.choice(rows.count, _REFERENCES, replace=False))
        self._units = self._sims.units_of(self._drawn)

    def nearest(self, indices: Indices) -> Float64s:
        """(M, 10) cosine distances of some rows to their nearest other rows, ascending."""
        found = np.empty((indices.size, _MATES))
        for start in range(0, indices.size, TILE):
            part = slice(start, start + TILE)
            tile = self._distances(indices[part])
            found[part] = np.sort(np.partition(tile, _MATES - 1, axis=1)[:, :_MATES], axis=1)
        return np.round(found, _ROUND)

    def of_a_class(self, indices: Indices, tenth: Float64s) -> Indices:
        """Those of some rows that nine of their ten nearest have among their ten nearest.

        tenth: (N,) the distance of every row to its tenth nearest.
        """
        mutual = np.empty(indices.size, np.intp)
        theirs = tenth[self._drawn] + 10.0**-_ROUND
        for start in range(0, indices.size, TILE):
            part = slice(start, start + TILE)
            tile = self._distances(indices[part])
            own = tenth[indices[part]][:, None] + 10.0**-_ROUND
            mutual[part] = ((tile <= own) & (tile <= theirs)).sum(axis=1)
        return indices[mutual >= _MUTUAL]

    def _distances(self, indices: Indices) -> Float32s:
        tile: Float32s = 1 - self._sims.units_of(indices) @ self._units.T
        places = np.searchsorted(self._drawn, indices)
        places[places == self._drawn.size] = 0
        inside = np.flatnonzero(self._drawn[places] == indices)
        tile[inside, places[inside]] = np.inf
        return tile


def _limit(distances: Float64s, weights: Float64s, beyond: float) -> float:
    middle = _median(distances, weights)
    return middle + beyond * 1.4826 * _median(np.abs(distances - middle), weights)


def _median(values: Float64s, weights: Float64s) -> float:
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order[min(np.searchsorted(sums, sums[-1] / 2), values.size - 1)]])
