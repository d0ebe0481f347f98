"""Finds the rows with the largest products, or bounds of products, by stretches of rows.

A row that may not be found has the value -inf.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

STRETCH: Final = 64
"""Rows of which the best is looked at first: a maximum over all rows costs one pass, a partition
ten."""
PROMISING: Final = 64
"""Rows more than 2k that are measured first."""


def promising(
    stretches: NDArray[np.float32], highest: NDArray[np.float32], wanted: int
) -> NDArray[np.intp]:
    """Some rows whose bounds are high, ``wanted`` or all: the best rows of the best stretches.

    Any k products give a floor for the k-th best one; good ones give a high floor, cheaply. A scene
    fills a few stretches, and scattered rows lie in as many: both are among the chosen.
    """
    if wanted >= stretches.size:
        return np.flatnonzero(stretches.reshape(-1) > -np.inf).astype(np.intp)
    best = np.arange(len(stretches))
    if wanted < len(stretches):
        best = np.argpartition(highest, len(stretches) - wanted)[-wanted:]
    inside = stretches[best].reshape(-1)
    chosen = np.argpartition(inside, len(inside) - wanted)[-wanted:]
    chosen = chosen[inside[chosen] > -np.inf]
    rows: NDArray[np.intp] = best[chosen // STRETCH] * STRETCH + chosen % STRETCH
    return rows


def top_of(products: NDArray[np.float32], k: int, margin: float) -> NDArray[np.intp]:
    """The rows of the k largest products, in whole stretches, and what is within the margin."""
    stretches = products.reshape(-1, STRETCH)
    highest = stretches.max(axis=1)
    some = products[promising(stretches, highest, 2 * k + PROMISING)]
    rows = at_least(stretches, highest, floor_of(some, k, margin))
    return largest(rows, products[rows], k, margin)


def at_least(
    stretches: NDArray[np.float32], highest: NDArray[np.float32], least: float
) -> NDArray[np.intp]:
    """The rows whose bounds are ``least`` or more, ascending; none of those that are not open."""
    least = max(least, float(np.finfo(np.float32).min))
    some = np.flatnonzero(highest >= least)
    stretch, place = np.nonzero(stretches[some] >= least)
    rows: NDArray[np.intp] = some[stretch] * STRETCH + place
    return rows


def floor_of(values: NDArray[np.float32], k: int, margin: float) -> float:
    """The k-th largest value less the margin; -inf where there are fewer."""
    if len(values) < k:
        return -np.inf
    return float(np.partition(values, len(values) - k)[len(values) - k]) - margin


def largest(
    rows: NDArray[np.intp], values: NDArray[np.float32], k: int, margin: float
) -> NDArray[np.intp]:
    """Those of ``rows`` whose (R,) values are the k largest or within the margin of the last."""
    return rows[values >= floor_of(values, k, margin)]
