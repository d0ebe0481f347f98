"""The images nearest to targets and away from counterexamples."""

import numpy as np

from pixsift.core.choosing.rows import Float64s, Indices, RowSource


def most_similar(
    rows: RowSource, targets: Float64s, counterexamples: Float64s, k: int
) -> tuple[Indices, Float64s]:
    """The k rows of highest score, best first, ties to the smallest index; one pass.

    Score: cosine to the nearest target, less the cosine to the nearest counterexample.
    """
    scores = np.empty(rows.count)
    for start, block in rows.blocks(4096):
        stop = start + len(block)
        scores[start:stop] = _scores(block.astype(np.float64), targets, counterexamples)
    # Products of matrices round as BLAS likes; a decimal that all agree on settles the order.
    rounded = np.round(scores, 9)
    best = np.lexsort((np.arange(rows.count), -rounded))[:k]
    return best.astype(np.intp), scores[best]


def _scores(rows: Float64s, targets: Float64s, counterexamples: Float64s) -> Float64s:
    found = _cosines(rows, targets).max(axis=1)
    if len(counterexamples):
        found = found - _cosines(rows, counterexamples).max(axis=1)
    return np.asarray(found, dtype=np.float64)


def _cosines(rows: Float64s, others: Float64s) -> Float64s:
    scale = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(others, axis=1)
    return np.asarray(rows @ others.T / np.where(scale > 0, scale, 1), dtype=np.float64)
