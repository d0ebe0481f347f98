"""The most isolated rows: a k-center choice would take each of them first."""

import numpy as np

from pixsift.core.choosing.rows import Float32s, Float64s, Indices, RowSource
from pixsift.core.choosing.similarities import TILE, Similarities

_SAMPLE = 1024
_SAMPLES = 3
_NEIGHBOR = 3
"""A row and its copy, or a pair, count as isolated; a small class of several rows does not."""
_REFERENCES = 20_000
_ODD = 3.0


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


def loneliness(rows: RowSource, *, seed: int) -> Float64s:
    """(N,) cosine distance of each row to its third nearest other row, to five decimals.

    Of more than 20,000 rows, to the third nearest of that many drawn: one pass of products.
    """
    n = rows.count
    sims = Similarities(rows)
    drawn = np.arange(n)
    if n > _REFERENCES:
        rng = np.random.default_rng([seed, 0x6C6F])
        drawn = np.sort(rng.choice(n, _REFERENCES, replace=False))
    references = sims.units_of(drawn)
    rank = min(_NEIGHBOR, drawn.size - 1)
    found = np.zeros(n)
    for start in range(0, n if rank else 0, TILE):
        stop = min(start + TILE, n)
        tile = sims.units(start, stop) @ references.T
        own = np.searchsorted(drawn, np.arange(start, stop))
        inside = np.flatnonzero((own < drawn.size) & (drawn[np.minimum(own, drawn.size - 1)]
                                == np.arange(start, stop)))  # fmt: skip
        tile[inside, own[inside]] = -2
        found[start:stop] = 1 - np.partition(tile, drawn.size - rank, axis=1)[:, -rank]
    # Rounded well above float32 error, so that an order does not hang on BLAS but in rare cases.
    return np.round(found, 5)


def loneliest(lonely: Float64s, count: int) -> Indices:
    """The ``count`` most isolated rows, ascending; ties to the smallest index."""
    order = np.lexsort((np.arange(lonely.size), -lonely))
    return np.sort(order[:count]).astype(np.intp)


def odd_limit(lonely: Float64s) -> float:
    """A row whose isolation is beyond this is odd: three robust deviations above the median."""
    middle = float(np.median(lonely))
    deviation = 1.4826 * float(np.median(np.abs(lonely - middle)))
    return middle + _ODD * deviation
