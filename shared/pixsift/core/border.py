"""Pairs just beyond the reach of a rule: the first that a wider rule would take. Pure."""

import numpy as np
from numpy.typing import NDArray

from pixsift.core.dedup import Halves, cosine_distance


def nearest_earlier(halves: Halves, count: int) -> list[tuple[int, int, float]]:
    """Of each image but the first, the nearest of those before it; the ``count`` nearest pairs.

    halves: (N, D) stored vectors in the order of arrival. Returns (later, earlier, cosine
    distance) by rising distance; ties go to the earlier images. N x N similarities are held at
    once: N is a few thousand.
    """
    if len(halves) < 2:
        return []
    rows = halves.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    similar: NDArray[np.float32] = rows @ rows.T
    similar[np.triu_indices(len(rows))] = -np.inf
    earlier = similar.argmax(axis=1)[1:]
    best = similar[np.arange(1, len(rows)), earlier]
    order = np.argsort(-best, kind="stable")[:count]
    found = [
        (int(i) + 1, int(earlier[i]), cosine_distance(halves[i + 1], halves[earlier[i]]))
        for i in order
    ]
    return sorted(found, key=lambda pair: (pair[2], pair[0]))
