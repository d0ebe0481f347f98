"""The images nearest to targets and away from counterexamples, as a search finds them."""

import numpy as np

from pixsift.core.choosing.rows import Float64s, Indices, RowSource
from pixsift.core.retrieval import aims_of, ranked, scores


def most_similar(
    rows: RowSource, targets: Float64s, counterexamples: Float64s, k: int
) -> tuple[Indices, Float64s]:
    """The k rows of highest score, best first, ties to the smallest index; one pass.

    Score: cosine to the nearest target, less the cosine to the nearest counterexample.
    """
    aims = aims_of(targets, np.zeros(rows.dimension), "nearest").vectors
    found = np.empty((rows.count, len(aims)))
    for start, block in rows.blocks(4096):
        found[start : start + len(block)] = scores(block.astype(np.float64), aims, counterexamples)
    best, by = ranked(found, k, in_turn=False)
    return best, found[best, by]
