"""The most isolated rows: a k-center choice would take each of them first."""

import numpy as np

from pixsift.core.rows import Float32s, Indices, RowSource

_SAMPLE = 2048


def most_isolated(rows: RowSource, count: int, *, seed: int) -> Indices:
    """The ``count`` rows farthest from a seeded sample of the others, ascending; two passes.

    Isolation is the distance to the nearest of at most 2,048 (an eighth of the) rows drawn at
    random, about the eighth nearest neighbor in a small pool: a pair of twins far from all others
    is isolated too. Rows of the sample are measured against a second, disjoint one.
    """
    n = rows.count
    size = int(np.clip(n // 8, 1, _SAMPLE))
    drawn = np.random.default_rng([seed, 0x6F75]).permutation(n)[: 2 * size]
    first, second = drawn[:size], drawn[size:]
    isolation = _distances(rows, first)
    if second.size:
        isolation[first] = _distances(rows.subset(np.sort(first)), None, rows.take(second))[
            np.argsort(np.argsort(first))
        ]
    else:
        isolation[first] = 0
    # Rounded well above float32 error, so that the cut does not hang on BLAS but in rare cases.
    rounded = np.round(isolation.astype(np.float64), 5)
    return np.sort(np.lexsort((np.arange(n), -rounded))[:count]).astype(np.intp)


def _distances(
    rows: RowSource, sample: Indices | None, values: np.ndarray | None = None
) -> Float32s:
    nearest: Float32s = np.full(rows.count, np.inf, np.float32)
    centers = rows.take(sample) if sample is not None else values
    assert centers is not None  # noqa: S101
    rows.lower(nearest, centers)
    return nearest
