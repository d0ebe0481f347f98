"""Finding by example, over plain arrays: one definition for searches on screen and for snapshots.

A search has examples and, perhaps, counterexamples. Its *aims* are the vectors that rows are
compared with: each example (``nearest``), the mean of each group of examples that look alike
(``modes``), or the mean of all (``mean``). With several modes, results are taken from each in turn,
so that a folder of hats and shoes finds both, even if the collection has far more of one.

Whether examples look alike can only be seen relative to the collection: what all its images share
(the same hall, the same floor) makes any two similar. So the collection's mean is subtracted before
examples are grouped and before means are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float64s, Indices, RowSource

Way = Literal["nearest", "modes", "mean"]
LINKAGE = 0.9
"""Groups of examples join up to this mean cosine distance, after the collection's mean is
subtracted."""
SHARED = 0.2
"""Weight of all examples in the mean of one group."""
MOST_EXAMPLES = 1000
"""Grouping compares all pairs, a few times."""
DECIMALS = 9
"""Matrix products round differently in each BLAS; to these decimals all agree, and ties go by
index."""


@dataclass(frozen=True, slots=True, eq=False)
class Aims:
    """What rows are compared with."""

    vectors: Float64s
    """(T, D); of any length: only the order of products counts."""
    members: tuple[Indices, ...]
    """Per aim: which examples it stands for."""
    in_turn: bool
    """True: each aim has its own ranking, and they take turns. False: the best over all aims."""


def aims_of(examples: Float64s, mean: Float64s, way: Way) -> Aims:
    """examples: (Q, D), Q of at least 1; mean: (D,) of the collection's unit rows."""
    units = unit(examples)
    if way == "nearest" or len(units) == 1:
        return Aims(units, tuple(np.array([i], np.intp) for i in range(len(units))), False)
    rest = centered(units, mean)
    groups = [np.arange(len(units), dtype=np.intp)] if way == "mean" else grouped(rest)
    # A share of the whole folder in each mode: what its images have in common is worth something
    # in every mode (measured in docs/finding.md).
    shared = SHARED * rest.sum(axis=0)
    vectors = np.stack([unit((rest[group].sum(axis=0) + shared)[None])[0] for group in groups])
    return Aims(vectors, tuple(groups), True)


def grouped(rows: Float64s, linkage: float = LINKAGE) -> list[Indices]:
    """Groups of rows that look alike, by average linkage: the largest first, ties by first member.

    rows: (Q, D) unit rows. Groups join, the nearest first, while the mean cosine distance of their
    pairs is at most ``linkage``. Source: Sokal and Michener 1958 (UPGMA), O(Q^3) at worst.
    """
    sums = 1.0 - rows @ rows.T
    sizes = np.ones(len(rows))
    members = {index: [index] for index in range(len(rows))}
    distances = sums.copy()
    np.fill_diagonal(distances, np.inf)
    while len(members) > 1:
        first, second = divmod(int(np.argmin(distances)), len(rows))
        if distances[first, second] > linkage:
            break
        keep, gone = min(first, second), max(first, second)
        members[keep] += members.pop(gone)
        sums[keep] += sums[gone]
        sums[:, keep] += sums[:, gone]
        sizes[keep] += sizes[gone]
        row = sums[keep] / (sizes[keep] * sizes)
        row[keep] = np.inf
        row[np.isinf(distances[keep]) & (np.arange(len(rows)) != keep)] = np.inf
        distances[keep], distances[:, keep] = row, row
        distances[gone], distances[:, gone] = np.inf, np.inf
    groups = [np.array(sorted(group), np.intp) for group in members.values()]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def scores(rows: Float64s, aims: Float64s, counterexamples: Float64s) -> Float64s:
    """(N, T) product of each unit row with each aim, less its cosine to the nearest counterexample.

    rows: (N, D) as stored; rounded so that ties are ties everywhere.
    """
    units = unit(rows)
    found = units @ aims.T
    if len(counterexamples):
        found -= (units @ unit(counterexamples).T).max(axis=1, keepdims=True)
    return np.round(found, DECIMALS)


def ranked(found: Float64s, k: int, *, in_turn: bool) -> tuple[Indices, Indices]:
    """The k best rows, best first, and the aim that each was found by.

    found: (N, T) scores; ties go to the smaller row. Fewer than k only where N is smaller.
    """
    k = min(k, len(found))
    if not in_turn or found.shape[1] == 1:
        by = found.argmax(axis=1)
        best = found[np.arange(len(found)), by]
        order = np.lexsort((np.arange(len(found)), -best))[:k]
        return order.astype(np.intp), by[order].astype(np.intp)
    orders = [np.lexsort((np.arange(len(found)), -column)) for column in found.T]
    return taken_in_turn(orders, k)


def taken_in_turn(orders: Sequence[NDArray[np.integer]], k: int) -> tuple[Indices, Indices]:
    """The first k of several rankings, one from each in turn, without repetition; and the ranking
    of each."""
    places = [0] * len(orders)
    seen: set[int] = set()
    rows: list[int] = []
    by: list[int] = []
    while len(rows) < k and any(p < len(o) for p, o in zip(places, orders, strict=True)):
        for aim, order in enumerate(orders):
            while places[aim] < len(order) and int(order[places[aim]]) in seen:
                places[aim] += 1
            if places[aim] < len(order) and len(rows) < k:
                row = int(order[places[aim]])
                seen.add(row)
                rows.append(row)
                by.append(aim)
    return np.array(rows, np.intp), np.array(by, np.intp)


def nearest_example(rows: Float64s, examples: Float64s) -> tuple[Indices, Float64s]:
    """(N,) which example each row is nearest to, and its cosine distance in float64."""
    cosines = unit(rows) @ unit(examples).T
    nearest = cosines.argmax(axis=1).astype(np.intp)
    distances = np.maximum(0.0, 1.0 - cosines[np.arange(len(rows)), nearest])
    return nearest, np.asarray(distances, np.float64)


def mean_of(rows: RowSource) -> Float64s:
    """(D,) mean of the unit rows, in float64; one pass."""
    total = np.zeros(rows.dimension)
    for _, block in rows.blocks(4096):
        total += unit(block.astype(np.float64)).sum(axis=0)
    return total / max(1, rows.count)


def unit(rows: Float64s) -> Float64s:
    """Rows of unit length; a zero row stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0), np.float64)


def centered(units: Float64s, mean: Float64s) -> Float64s:
    """Rows minus the collection's mean. A row of which nothing remains stays as it is."""
    rest = units - mean
    is_lost = np.linalg.norm(rest, axis=1) < 1e-6
    rest[is_lost] = units[is_lost]
    return unit(rest)
