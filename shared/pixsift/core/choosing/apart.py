"""Keeps rows apart: of rows nearer to each other than a distance, one stays."""

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Indices, RowSource
from pixsift.core.choosing.similarities import Similarities

_ROWS = 1024


def apart(
    rows: RowSource, min_distance: float, *, outside: RowSource | None = None
) -> NDArray[np.bool_]:
    """(N,) which rows stay: none nearer than ``min_distance`` (cosine) to one before it that does.

    outside: rows that all keep away from. Every row left out is nearer than the distance to a row
    that stays or to one of ``outside``. Pairs near the bound are settled by the float64 definition.
    """
    sims = Similarities(rows)
    limit = 1 - min_distance
    stays = np.ones(rows.count, dtype=bool)
    if outside is not None and outside.count:
        stays = sims.nearest(outside) <= limit
    kept = np.empty(0, np.intp)
    for start in range(0, rows.count, _ROWS):
        stop = min(start + _ROWS, rows.count)
        block = sims.units(start, stop)
        for low in range(0, kept.size, 4 * _ROWS):
            part = kept[low : low + 4 * _ROWS]
            _leave(sims, block @ sims.units_of(part).T, start, part, limit=limit, stays=stays)
        between = block @ block.T
        for i in np.flatnonzero(stays[start:stop]):
            if not stays[start + i]:
                continue
            first = start + int(i) + 1
            _leave(
                sims, between[i + 1 :, i : i + 1], first, np.array([start + i], np.intp),
                limit=limit, stays=stays,
            )  # fmt: skip
        kept = np.concatenate([kept, start + np.flatnonzero(stays[start:stop])])
    return stays


def _leave(
    sims: Similarities,
    tile: NDArray[np.float32],
    start: int,
    kept: Indices,
    *,
    limit: float,
    stays: NDArray[np.bool_],
) -> None:
    """Take out the rows from ``start`` on that are too similar to one of ``kept``."""
    top = tile.max(axis=1, initial=-2.0)
    here = stays[start : start + len(tile)]
    here &= ~(top > limit + sims.error)
    for i in np.flatnonzero(here & (top > limit - sims.error)):
        near = kept[tile[i] > limit - sims.error]
        if (sims.exact_with(near, start + int(i)) > limit).any():
            here[i] = False
