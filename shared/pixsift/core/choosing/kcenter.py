"""Exact k-center selection: farthest-first traversal in speculative batches.

Farthest-first traversal (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5) picks, again and again,
the row farthest from everything picked so far. The textbook loop reads all rows once per pick.
This one reads them once per *batch* of picks and still makes the same picks in the same order.

Let m(p) be the distance of row p to the chosen set, and let rows be ranked by key: m descending,
then index ascending. One pass:

1. C = the B rows of largest m; T = the largest m outside C.
2. Run the textbook loop inside C alone, with the distances between the rows of C.
3. Accept a pick as long as its m is greater than T; stop at the first that is not.
4. Apply all accepted picks to every row in one blocked matrix product.

*Why it is exact.* Choosing a center only ever lowers m, so a row outside C, which began at T or
below, never rises above T. Inside C the values are current, as every accepted pick was applied to
them. So a candidate above T is above every row, and is the pick of the textbook loop; by induction
the whole order is the textbook's.

*Why rounding cannot change it.* The distance of a pair has one definition, a float64 sum over that
pair alone (``rows.squared_distances``). Passes and products work in float32 and are within ``e``
(``rows.error_bound``, a proven bound) of it. Wherever a decision could hang on e, the float64
value is computed: the pick is the best of all candidates within 2e of the float32 best, ties to
the smallest index, and it is accepted only above T + e. If even the first candidate does not clear
T + e (rows tied within rounding, duplicates), every row within 2e of the maximum is measured in
float64, C is cut by the full key (m, then index), and picks are accepted as long as their key
precedes that of the first row outside; the first pick of a pass always stands, so the traversal
ends. So BLAS, the number of threads and the place of the rows cannot change the picks.

The measured m of a row stays valid by being lowered with each further pick, and only centers
within 2e of the float32 minimum can be its nearest, so few pairs are ever measured.

Centers may lie outside the rows (``outside``): they are measured like all others, and never picked.

Memory beyond the rows: 20 bytes a row (8 more while candidates are drawn), one block, the B x B
distances, and the centers in float32, 4 bytes x D for each of the P + k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import (
    ArrayRows,
    Float32s,
    Float64s,
    Indices,
    RowSource,
    error_bound,
    squared_distances,
)

_FEWEST, _MOST = 64, 4096
"""Bounds of B, the number of candidates of a pass."""
CENTERS_PER_PASS = 4096
"""Most centers of one pass: their float64 rows would fill memory (a large preselected set). Beyond
some hundred, the products take longer than the reading."""
_PAIRS = 1 << 21
"""Numbers gathered at once when pairs are measured in float64: 16 MB."""
_AHEAD = 64
"""Candidates measured together: one at a time would pay a matrix product each."""


@dataclass(frozen=True, slots=True, eq=False)
class Traversal:
    """Picks of a farthest-first traversal; every prefix is the selection for a smaller k."""

    centers: Indices
    """(P + k,) the P preselected first, then the picks in order."""
    radii: Float64s
    """(k,) covering radius after each pick, Euclidean; never grows."""
    start_radius: float
    """Covering radius of the preselected alone; infinity when there are none."""
    passes: int
    """How often all rows were read."""

    @property
    def covering_radius(self) -> float:
        """Largest distance of any row to its nearest center."""
        return float(self.radii[-1]) if self.radii.size else self.start_radius

    @property
    def lower_bound(self) -> float:
        """No k rows added to the preselected cover with a smaller radius than this.

        The picks and the farthest row left are k + 1 rows at least ``covering_radius`` apart, and
        as far from the preselected: two of them share a center, or one is covered by an old one.
        """
        return self.covering_radius / 2


def k_center_greedy(
    embeddings: RowSource | NDArray[np.floating],
    k: int,
    *,
    preselected: Sequence[int] | Indices = (),
    outside: RowSource | None = None,
    start: int | None = None,
    largest_batch: int | None = None,
) -> Traversal:
    """Choose ``k`` further centers by exact farthest-first traversal.

    embeddings: (N, D) array or row source. outside: (M, D) centers that are none of the rows, from
    which picks keep away as from the preselected. ``start`` is the first pick when there are no
    centers; None takes the row farthest from the mean. ``largest_batch`` bounds the candidates
    of a pass and never changes the picks.
    Raises ValueError if P + k > N, D is 0, an index repeats or is out of range, or a row is not
    finite.
    """
    rows = ArrayRows(embeddings) if isinstance(embeddings, np.ndarray) else embeddings
    anchors = np.asarray(preselected, dtype=np.intp)
    _check(rows, k, anchors, start, outside)
    walk = _Walk(rows, outside, capacity=anchors.size + k)
    walk.choose(anchors)
    walk.apply()
    alone = not walk.known
    if alone and k:
        walk.choose(np.array([walk.farthest_from_mean() if start is None else start]))
        walk.apply()
    values = [np.inf] if alone and k else []
    _traverse(walk, anchors.size + k, values, largest_batch or _MOST)
    after = walk.farthest()
    curve = np.sqrt(np.array([*values, after])) if walk.known else np.array([np.inf])
    return Traversal(walk.centers.copy(), curve[1:], float(curve[0]), walk.passes)


def _check(
    rows: RowSource, k: int, preselected: Indices, start: int | None, outside: RowSource | None
) -> None:
    n = rows.count
    if not rows.dimension:
        raise ValueError("the rows have no dimensions")
    if k < 0 or preselected.size + k > n:
        raise ValueError(
            f"cannot choose {k} in addition to {preselected.size} preselected of {n} rows"
        )
    if np.unique(preselected).size != preselected.size:
        raise ValueError("a preselected index occurs twice")
    if preselected.size and not (preselected.min() >= 0 and preselected.max() < n):
        raise ValueError(f"a preselected index lies outside 0..{n - 1}")
    if start is not None and (preselected.size or outside or not 0 <= start < n):
        raise ValueError("start needs an index within the rows, and nothing preselected or outside")
    for source in (rows, outside) if outside else (rows,):
        broken = source.summary.broken
        if broken.size:
            shown = ", ".join(map(str, broken[:5]))
            raise ValueError(f"{broken.size} rows are not finite (or beyond float32), e.g. {shown}")


def _traverse(walk: "_Walk", goal: int, values: list[float], largest: int) -> None:
    """Pick until ``goal`` centers are chosen; appends m (squared) of each pick to ``values``."""
    # The matrix of candidate distances may take a twenty-fifth of what the rows take.
    roomy = int(np.sqrt(walk.rows.count * walk.rows.dimension / 25))
    largest = min(largest, max(_FEWEST, roomy))
    size = min(1024, largest)
    while walk.chosen < goal:
        picked = _speculate(walk, *walk.candidates(size), goal - walk.chosen)
        if not picked:
            picked = _speculate(walk, *walk.tied_candidates(size), goal - walk.chosen, sure=True)
        values.extend(picked)
        walk.apply()
        # B² distances between candidates cost about what the pass over all rows did.
        size = int(np.sqrt(walk.rows.count * len(picked)))
        size = min(max(size, _FEWEST), largest)


def _speculate(
    walk: "_Walk", ids: Indices, bound: tuple[float, int], most: int, *, sure: bool = False
) -> list[float]:
    """Steps 2 and 3 among the candidates ``ids``, ascending; m (squared) of each accepted pick.

    bound: m (squared) that a pick must exceed, and the index it must precede at equality.
    sure: the first pick is known to be the textbook's.
    """
    error = walk.error
    exact_rows = walk.rows.take(ids)
    between = _products(exact_rows, exact_rows, _halves(exact_rows))
    nearest = walk.nearest[ids]
    measured = np.zeros(ids.size, dtype=bool)
    values = np.full(ids.size, np.inf)
    accepted: list[float] = []
    while len(accepted) < most:
        best = nearest.max()
        if best == -np.inf:
            break
        band = np.flatnonzero(nearest >= best - 2 * error)
        if not measured[band].all():
            fresh = _worth_measuring(nearest, measured, band)
            values[fresh] = walk.measure(ids[fresh], exact_rows[fresh])
            measured[fresh] = True
        # argmax takes the first of equals, and ids ascend: the smallest index.
        pick = int(band[np.argmax(values[band])])
        value, index = float(values[pick]), int(ids[pick])
        if not (sure or value > bound[0] or (value == bound[0] and index < bound[1])):
            break
        sure = False
        accepted.append(value)
        walk.choose(ids[pick : pick + 1])
        row = between[pick]
        touched = np.flatnonzero(measured & (row <= nearest + 2 * error))
        again = squared_distances(exact_rows[touched], exact_rows[pick])
        values[touched] = np.minimum(values[touched], again)
        np.minimum(nearest, row, out=nearest)
        nearest[pick] = -np.inf
        measured[pick] = True
    walk.remember(ids, values, measured)
    return accepted


def _worth_measuring(nearest: Float32s, measured: NDArray[np.bool_], band: Indices) -> Indices:
    """The unmeasured of the band, and the next best, which will be needed soon."""
    open_ = np.where(measured, -np.inf, nearest)
    ahead = np.argpartition(open_, -_AHEAD)[-_AHEAD:] if open_.size > _AHEAD else np.arange(0)
    ahead = ahead[open_[ahead] > -np.inf]
    return np.union1d(band[~measured[band]], ahead)


class _Walk:
    """The chosen set and every row's distance to it."""

    def __init__(self, rows: RowSource, outside: RowSource | None, *, capacity: int) -> None:
        n, base = rows.count, outside.count if outside else 0
        self.rows = rows
        norm = max(source.summary.largest_norm for source in (rows, outside) if source)
        self.error = np.float32(error_bound(rows.dimension, norm) * (1 + 2.0**-20))
        self.nearest: Float32s = np.full(n, np.inf, np.float32)
        """m (squared) in float32, within ``error``; minus infinity for the chosen."""
        self._exact = np.full(n, np.inf)
        """m (squared) in float64 over the first ``_upto`` centers; infinity where unmeasured."""
        self._upto = np.zeros(n, np.int32)
        self._outside = outside
        self._base = base
        """Centers outside the rows: the first in every count of centers known."""
        self._centers = np.empty(capacity, np.intp)
        self._center_rows = np.empty((base + capacity, rows.dimension), np.float32)
        self._center_halves: Float32s = np.empty(base + capacity, np.float32)
        self.known = 0
        self._applied = 0
        self.passes = 1  # the summary
        self._learn(base)

    @property
    def chosen(self) -> int:
        """Centers that are rows."""
        return self.known - self._base

    @property
    def centers(self) -> Indices:
        return self._centers[: self.chosen]

    def choose(self, indices: Indices) -> None:
        """Add centers; the rows learn of them at the next ``apply``."""
        self._centers[self.chosen : self.chosen + indices.size] = indices
        self._learn(indices.size)

    def _learn(self, count: int) -> None:
        while count:
            part = min(count, CENTERS_PER_PASS)
            self.known += part
            places = np.arange(self.known - part, self.known)
            exact = self._exact_centers(places)
            self._center_rows[places] = exact
            self._center_halves[places] = _halves(exact)
            count -= part

    def _exact_centers(self, places: Indices) -> Float64s:
        """(M, D) rows of centers by their place among all known."""
        inside = places >= self._base
        if self._outside is None or inside.all():
            return self.rows.take(self._centers[places - self._base])
        found = np.empty((places.size, self.rows.dimension))
        found[~inside] = self._outside.take(places[~inside])
        found[inside] = self.rows.take(self._centers[places[inside] - self._base])
        return found

    def apply(self) -> None:
        """Step 4: one pass, or several for very many preselected."""
        while self._applied < self.known:
            stop = min(self.known, self._applied + CENTERS_PER_PASS)
            self.rows.lower(self.nearest, self._exact_centers(np.arange(self._applied, stop)))
            self._applied = stop
            self.passes += 1
        self.nearest[self.centers] = -np.inf

    def farthest_from_mean(self) -> int:
        """The row farthest from the mean, smallest index among equals; one pass."""
        mean = self.rows.summary.mean
        distances: Float32s = np.full(self.rows.count, np.inf, np.float32)
        self.rows.lower(distances, mean[None])
        self.passes += 1
        band = np.flatnonzero(distances >= distances.max() - 2 * self.error)
        best, index = -1.0, 0
        step = max(1, _PAIRS // self.rows.dimension)
        for low in range(0, band.size, step):
            part = band[low : low + step]
            values = squared_distances(self.rows.take(part), mean)
            if values.max() > best:
                best, index = float(values.max()), int(part[np.argmax(values)])
        return index

    def candidates(self, size: int) -> tuple[Indices, tuple[float, int]]:
        """Step 1: C by float32 values, and what a pick must exceed."""
        n = self.nearest.size
        if size >= n - self.chosen:
            return np.flatnonzero(self.nearest > -np.inf), (-np.inf, -1)
        order = np.argpartition(self.nearest, n - size - 1)
        outside = float(self.nearest[order[n - size - 1]])
        return np.sort(order[n - size :]), (outside + float(self.error), -1)

    def tied_candidates(self, size: int) -> tuple[Indices, tuple[float, int]]:
        """Step 1 where rows tie within rounding: C by the full key, measured in float64."""
        floor = self.nearest.max() - 2 * self.error
        inside = self.nearest >= floor
        band = np.flatnonzero(inside)
        values = self.measure(band)
        below = self.nearest[~inside].max(initial=-np.inf)
        bound = (float(below) + float(self.error), -1)
        order = np.lexsort((band, -values))
        if band.size > size:
            first_out = order[size]
            out = (float(values[first_out]), int(band[first_out]))
            # The later of the two keys would be passed first: the larger m, and at equal m the
            # one that precedes.
            bound = max(bound, out, key=lambda key: (key[0], -key[1]))
        return np.sort(band[order[:size]]), bound

    def farthest(self) -> float:
        """The largest m (squared), in float64; zero when every row is chosen."""
        best = self.nearest.max(initial=-np.inf)
        if not np.isfinite(best):
            return 0.0 if best == -np.inf else np.inf
        return float(self.measure(np.flatnonzero(self.nearest >= best - 2 * self.error)).max())

    def remember(self, ids: Indices, values: Float64s, measured: NDArray[np.bool_]) -> None:
        """Keep what a pass measured: these values hold over all centers chosen so far."""
        known = ids[measured]
        self._exact[known] = values[measured]
        self._upto[known] = self.known

    def measure(self, ids: Indices, exact_rows: Float64s | None = None) -> Float64s:
        """(M,) m (squared) of unchosen rows over all centers chosen so far, in float64."""
        step = max(1, (1 << 22) // max(1, self.rows.dimension))
        for low in range(0, ids.size, step):
            part = ids[low : low + step]
            # Nothing lies below zero: a duplicate of a center needs no further look.
            stale = (self._upto[part] < self.known) & (self._exact[part] > 0)
            if stale.all() and exact_rows is not None and ids.size <= step:
                self._measure(part, exact_rows)
            elif stale.any():
                self._measure(part[stale], self.rows.take(part[stale]))
        return self._exact[ids]

    def _measure(self, ids: Indices, exact_rows: Float64s) -> None:
        error = float(self.error)
        values = np.minimum(self._exact[ids], np.inf)
        first = int(self._upto[ids].min())
        step = max(64, _PAIRS // max(1, ids.size))
        for low in range(first, self.known, step):
            high = min(low + step, self.known)
            estimates = _products(
                exact_rows, self._center_rows[low:high], self._center_halves[low:high]
            )
            limits = np.minimum(values, self.nearest[ids].astype(np.float64) + error) + error
            who, which = np.nonzero(estimates <= limits[:, None])
            self._measure_pairs(exact_rows, values, who, which + low)
        self._exact[ids] = values
        self._upto[ids] = self.known

    def _measure_pairs(
        self, exact_rows: Float64s, values: Float64s, who: Indices, which: Indices
    ) -> None:
        step = max(1, _PAIRS // max(1, self.rows.dimension))
        for low in range(0, who.size, step):
            part, centers = who[low : low + step], self._exact_centers(which[low : low + step])
            found = np.square(exact_rows[part] - centers).sum(axis=1)
            np.minimum.at(values, part, found)


def _halves(rows: Float64s) -> Float32s:
    """(M,) half of each squared norm."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows) / 2, dtype=np.float32)


def _products(left: Float64s, right: NDArray[np.floating], halves: Float32s) -> Float32s:
    """(L, R) squared distances in float32, within ``rows.error_bound``; halves: of ``right``."""
    a, b = left.astype(np.float32), right.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):  # all is finite; BLAS may say otherwise
        found = a @ b.T
    found -= halves
    found *= -2
    found += 2 * _halves(left)[:, None]
    np.maximum(found, 0, out=found)
    return np.asarray(found, dtype=np.float32)
