"""Greedy facility location as a textbook has it, in float64: the oracle of the lazy one."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def similarities(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Floats:
    """(N, M) cosines, each by a sum of its own, to twelve decimals."""
    left, right = rows.astype(np.float64), others.astype(np.float64)
    found = np.empty((len(left), len(right)))
    norms = np.sqrt(np.square(left).sum(axis=1)), np.sqrt(np.square(right).sum(axis=1))
    for j, row in enumerate(right):
        scale = norms[0] * norms[1][j]
        found[:, j] = (left * row).sum(axis=1) / np.where(scale > 0, scale, 1)
    return np.round(found, 12)


def textbook_facility(
    rows: NDArray[np.floating],
    k: int,
    *,
    outside: NDArray[np.floating] | None = None,
    weights: Floats | None = None,
    min_distance: float = 0.0,
    barred: tuple[int, ...] = (),
    own: Floats | None = None,
) -> tuple[list[int], list[float]]:
    """Picks in order, and the gain of each (whole similarities)."""
    sims = similarities(rows, rows)
    if own is not None:
        np.fill_diagonal(sims, np.where(sims.diagonal() > 0, own, 0))
    weights = np.ones(len(rows)) if weights is None else weights
    best = np.full(len(rows), -1.0)
    if outside is not None and len(outside):
        best = similarities(rows, outside).max(axis=1)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < k:
        values = [
            -1.0
            if j in picks or j in barred or (min_distance and best[j] > 1 - min_distance)
            else math.fsum((weights * np.maximum(sims[:, j] - best, 0)).tolist())
            for j in range(len(rows))
        ]
        pick = int(np.argmax(values))
        if values[pick] < 0:
            break
        picks.append(pick)
        gains.append(values[pick])
        best = np.maximum(best, sims[:, pick])
    return picks, gains
