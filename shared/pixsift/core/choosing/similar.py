"""The images nearest to targets and away from counterexamples, as a search finds them."""

import numpy as np

from pixsift.core.choosing.rows import Float64s, Indices, RowSource
from pixsift.core.retrieval import Way, aims_of, mean_of, ranked, scores


def most_similar(
    rows: RowSource, targets: Float64s, counterexamples: Float64s, k: int, *, way: Way = "nearest"
) -> tuple[Indices, Float64s]:
    """The k best rows, best first, ties to the smallest index; one pass, or two.

    Score: cosine to the nearest target, less the cosine to the nearest counterexample. way: as in a
    search; for ``modes`` and ``mean`` the mean of the rows is read first, and the score is that of
    the mode that found the row.
    """
    mean = np.zeros(rows.dimension) if way == "nearest" else mean_of(rows)
    aims = aims_of(targets, mean, way)
    found = np.empty((rows.count, len(aims.vectors)))
    for start, block in rows.blocks(4096):
        found[start : start + len(block)] = scores(
            block.astype(np.float64), aims.vectors, counterexamples
        )
    best, by = ranked(found, k, in_turn=aims.in_turn)
    return best, found[best, by]
