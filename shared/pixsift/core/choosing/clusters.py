"""Spherical k-means: groups of like direction, for a balanced choice.

Learned on a seeded sample, then applied to every row in one pass. Dhillon & Modha 2001,
doi:10.1023/A:1007612920971; seeding by k-means++ (Arthur & Vassilvitskii 2007).
"""

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float64s, RowSource

_SAMPLE = 16_384
_ROUNDS = 25
_AT_ONCE = 2048
"""Rows whose products with all centroids are held together."""


def cluster(rows: RowSource, count: int, *, seed: int) -> NDArray[np.int32]:
    """(N,) the cluster of each row, 0 .. count - 1; some may be empty. Two passes at most."""
    rng = np.random.default_rng([seed, 0x636C])
    size = min(rows.count, max(_SAMPLE, 8 * count))
    sample = np.sort(rng.choice(rows.count, size, replace=False))
    points = _unit(rows.take(sample))
    centroids = _seeds(points, min(count, size), rng)
    labels = np.full(size, -1)
    for _ in range(_ROUNDS):
        fresh = _nearest(points, centroids)
        if np.array_equal(fresh, labels):
            break
        labels = fresh
        centroids = _means(points, labels, centroids)
    return _assign(rows, centroids)


def _nearest(points: Float64s, centroids: Float64s) -> NDArray[np.intp]:
    found = np.empty(len(points), np.intp)
    for start in range(0, len(points), _AT_ONCE):
        part = points[start : start + _AT_ONCE]
        found[start : start + len(part)] = np.argmax(part @ centroids.T, axis=1)
    return found


def _seeds(points: Float64s, count: int, rng: np.random.Generator) -> Float64s:
    chosen = [int(rng.integers(len(points)))]
    far = 1 - points @ points[chosen[0]]
    while len(chosen) < count:
        weights = np.maximum(far, 0)
        total = weights.sum()
        pick = int(rng.choice(len(points), p=weights / total)) if total > 0 else len(chosen)
        chosen.append(pick)
        far = np.minimum(far, 1 - points @ points[pick])
    return points[chosen]


def _means(points: Float64s, labels: NDArray[np.intp], old: Float64s) -> Float64s:
    sums = np.zeros_like(old)
    np.add.at(sums, labels, points)
    empty = np.bincount(labels, minlength=len(old)) == 0
    sums[empty] = old[empty]
    return _unit(sums)


def _assign(rows: RowSource, centroids: Float64s) -> NDArray[np.int32]:
    labels = np.empty(rows.count, np.int32)
    columns = centroids.T.astype(np.float32)
    for start, block in rows.blocks(_AT_ONCE):
        products = block @ columns
        best = products.argmax(axis=1)
        # Two centroids equally near within float32: settled in float64, whatever the BLAS.
        top = products[np.arange(len(block)), best]
        band = 4e-4 * np.abs(top) + 1e-30
        unsure = np.flatnonzero((products >= (top - band)[:, None]).sum(axis=1) > 1)
        for i in unsure:
            best[i] = int(np.argmax((centroids * block[i].astype(np.float64)).sum(axis=1)))
        labels[start : start + len(block)] = best
    return labels


def _unit(points: Float64s) -> Float64s:
    norms = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
    return np.asarray(points / np.where(norms > 0, norms, 1), dtype=np.float64)
