"""The most isolated rows: a k-center choice would take each of them first."""

import numpy as np

from pixsift.core.choosing.rows import Float32s, Indices, RowSource

_SAMPLE = 1024
_SAMPLES = 3


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
