"""Farthest-first traversal as a textbook has it, in float64: the oracle of k-center."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def textbook(
    rows: NDArray[np.floating], k: int, *, preselected: Sequence[int] = (), start: int | None = None
) -> tuple[list[int], NDArray[np.float64]]:
    """Centers in order, and the covering radius before each pick and at the end."""
    points = rows.astype(np.float64)
    nearest = np.full(len(points), np.inf)
    centers = list(preselected)
    for center in centers:
        nearest = np.minimum(nearest, np.square(points - points[center]).sum(axis=1))
    values = []
    while len(centers) < len(preselected) + k:
        nearest[centers] = -1.0
        if centers:
            pick = int(np.argmax(nearest))
        elif start is None:
            pick = int(np.argmax(np.square(points - points.sum(axis=0) / len(points)).sum(axis=1)))
        else:
            pick = start
        values.append(nearest[pick])
        centers.append(pick)
        nearest = np.minimum(nearest, np.square(points - points[pick]).sum(axis=1))
    values.append(nearest.max())
    return centers, np.sqrt(values)
