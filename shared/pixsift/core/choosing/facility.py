"""Exact facility location: the most typical rows, each standing for the rows similar to it.

Greedy facility location picks, again and again, the row that adds most to

    f(S) = sum over all rows i of w_i (1 + max over s in S of cos(i, s)) / 2,

so the mean cosine distance of a row to its nearest pick falls as fast as one pick can make it. f
is monotone and submodular: after k picks f is at least 1 - 1/e of what any k rows reach (Nemhauser,
Wolsey & Fisher 1978, doi:10.1007/BF01588971), and what the k best remaining gains could still add
bounds the optimum of this very pool, mostly far closer (Minoux 1978, doi:10.1007/BFb0006528).

The textbook loop measures all N gains for each pick: k N² similarities. This one makes the same
picks in the same order:

1. *Lazy*. A gain never grows as picks are added, so a gain measured earlier bounds it from above.
   Candidates are looked at in order of their bound, until no bound reaches the best gain found.
2. *Few products*. The first gains are linear in the rows: no pair is measured. After the first
   pick, one pass over half of all pairs bounds every gain.
3. *Lists*. A pair matters only as long as its similarity exceeds what the client already has.
   Where not all pairs fit the memory, the same pass lists each client's most similar rows, as many
   as do. A client that has more than the least of them needs no product from then on; for the
   others, a candidate's column is measured (``pairs``). Once such columns have cost a good part of
   a pass over these clients, that pass is made, and all bounds are up to date.

*Why rounding cannot change a pick.* Products are float32 and within ``error`` (a proven bound).
Every gain is an interval that holds the true one; if the intervals of the best candidates overlap,
those candidates are measured by the float64 definition, each sum correctly rounded (``math.fsum``),
ties to the smallest index. Each client's best similarity is kept in float64.

*Pruned*. Where pairs never fit the memory, each client keeps only those above a floor of its own,
its similarity to about its ``neighbors`` most similar rows. Each client then starts with its floor
as its best similarity. The total loss is bounded by how far the floors lie above the true values at
the end; it is reported together with the bound on the optimum.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.pairs import Pairs, floors
from pixsift.core.choosing.rows import NO_INDICES, Float32s, Float64s, Indices, RowSource
from pixsift.core.choosing.similarities import Similarities

MEMORY_BYTES = 1 << 30
"""For lists of pairs, or columns of similarities before there are lists."""
EXACT_ROWS = 10_000
"""Pools up to this fit the memory with all their pairs; beyond, exact picks cost several passes
over all pairs before lists fit, and pruned ones one (docs/selection.md)."""
_PAIR_BYTES = 9
"""Bytes of a pair: client, similarity, and the overhead while lists are built."""
_LISTED, _IN_COLUMNS = 0.6, 0.3
"""Shares of the memory; the rest is for pairs above the floors."""
_FIRST, _BATCH = 8, 64
"""Columns of similarities made at once: one at a time would read all rows for each. The first few
candidates often hold the pick."""
_PATIENCE = 0.25
"""Columns measured, in shares of the products that update all bounds, before they are updated."""
_ROUNDING = 1e-11
"""Relative error of float64 sums: far above the error of a million terms."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Further terms of a pick's gain. None of them lets a gain grow, so the guarantee holds."""

    weights: Float64s | None = None
    """(N,) weight of each row as a client, >= 0; None: 1 each."""
    bonus: Float64s | None = None
    """(N,) added to the gain of a candidate, >= 0, in shares of a mean pick's gain."""
    strata: NDArray[np.int32] | None = None
    """(N,) group of each row, >= 0."""
    targets: NDArray[np.int64] | None = None
    """How many picks each group should have at least."""
    reward: float = 0.0
    """Added to the gain while a candidate's group is short, in shares of a mean pick's gain."""
    own: Float64s | None = None
    """(N,) how similar a row counts as to itself, -1 to 1; None: 1 each. With less, a row that is
    like no other gains little by being picked: it stands for itself alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Facility:
    """Picks of a greedy facility location; every prefix is the selection for a smaller k."""

    picks: Indices
    """(k,) in order; fewer where ``min_distance`` leaves no candidate."""
    gains: Float64s
    """(k,) what each pick added to f, with its terms, at most."""
    value: float
    """f(S) without terms, a share of its largest conceivable value: 1 is a pick at every row."""
    best_possible: float
    """No k rows (in addition to ``outside``) reach a value above this."""
    passes: int
    """Passes over all pairs, or over those of the clients that need it."""
    products: float
    """Similarities measured, in shares of all N² of them."""
    evaluations: int
    """Gains measured; the textbook loop measures N for each pick."""
    pairs: int
    """Pairs listed."""
    pruned_loss: float
    """How much of ``value`` pruning may have cost at most; 0 when exact."""

    @property
    def mean_distance(self) -> float:
        """Mean cosine distance of a row to its nearest pick, weighted."""
        return 2 * (1 - self.value)


def facility_location(
    rows: RowSource,
    k: int,
    *,
    outside: RowSource | None = None,
    terms: Terms | None = None,
    barred: Indices = NO_INDICES,
    min_distance: float = 0.0,
    neighbors: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Facility:
    """Choose ``k`` rows by exact greedy facility location.

    outside: rows that stand for others already, and are never picked. barred: clients that must not
    be picked. min_distance: no pick lies nearer than this cosine distance to another one or to
    ``outside``. neighbors: prune to about so many pairs a row; None is exact. memory_bytes: beyond
    the rows, their float32 copy and 60 bytes a row; never changes the picks. Raises ValueError if k
    exceeds the rows that are not barred.
    """
    if not 0 <= k <= rows.count - barred.size:
        raise ValueError(f"cannot choose {k} of {rows.count - barred.size} rows")
    if rows.summary.broken.size:
        raise ValueError(f"{rows.summary.broken.size} rows contain NaN or infinity")
    greedy = _Greedy(
        rows, k=k, outside=outside, terms=terms or Terms(), min_distance=min_distance,
        memory_bytes=memory_bytes,
    )  # fmt: skip
    greedy.bar(barred)
    if neighbors is not None:
        greedy.prune(neighbors)
    return greedy.run()


class _Greedy:
    """The picks so far, what each row has by them, and a bound for every candidate's gain."""

    def __init__(
        self,
        rows: RowSource,
        *,
        k: int,
        outside: RowSource | None,
        terms: Terms,
        min_distance: float,
        memory_bytes: int,
    ) -> None:
        n = rows.count
        self.sims = Similarities(rows)
        self.k = k
        self.weights = np.ones(n) if terms.weights is None else terms.weights.astype(np.float64)
        self.total_weight = float(self.weights.sum())
        self.own = None
        if terms.own is not None:  # a row without length is like nothing, itself included
            self.own = np.where(self.sims.norms > 0, terms.own, 0.0)
        self.extra = _Extra(terms, n, self.total_weight / (2 * max(k, 1)))
        self.best = self.sims.nearest(outside) if outside and outside.count else np.full(n, -1.0)
        """(N,) exact similarity to the nearest pick; with pruning, at least the floor."""
        self.is_pruned = False
        """``best`` is at least the floor."""
        self.start_is_linear = outside is None or not outside.count
        self.min_distance = min_distance
        self.closed = np.zeros(n, dtype=bool)
        """Picked, or not to be picked."""
        self.most_pairs = max(1, memory_bytes // _PAIR_BYTES)
        self.holds_all = 4 * n * n <= memory_bytes
        """All columns fit: every pair is measured once."""
        columns = memory_bytes if self.holds_all else int(_IN_COLUMNS * memory_bytes)
        self.pairs = Pairs(self.sims, columns)
        self.heap: list[tuple[float, int]] = []
        """(minus the bound of its gain, candidate)."""
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.passes = self.evaluations = self.in_passes = 0
        self._measured_by_refresh = 0
        self._outside = outside

    def bar(self, barred: Indices) -> None:
        """Rows that are never picked."""
        self.closed[barred] = True

    def prune(self, neighbors: int) -> None:
        """Give each row a floor that counts as what it has, and list what lies above."""
        floor = floors(self.sims, neighbors)
        if self.min_distance:
            # Rows too near to a pick must be found.
            floor = np.minimum(floor, np.float32(1 - self.min_distance - 2 * self.sims.error))
        self.is_pruned = True
        self.holds_all = False
        self.best = np.maximum(self.best, floor.astype(np.float64))
        needs = self._needs()
        self.pairs.listed(self.sims.lists(needs), needs, needs)
        self._pile(self.pairs.most_gains(self.best, self.weights))
        self._count_pass()

    def run(self) -> Facility:
        """All picks."""
        self.pairs.update(self._needs())
        if self.holds_all:
            self.pairs.load(range(self.sims.count))
        is_bounded = self.is_pruned
        if not is_bounded and self.start_is_linear:
            self._bound_linearly()
        while len(self.picks) < self.k:
            if not is_bounded and (self.picks or not self.start_is_linear):
                self._bound_all()
                is_bounded = True
            found = self._next()
            if found is None:
                break
            self._commit(*found)
            self._keep_bounds()
        return self._result()

    def _keep_bounds(self) -> None:
        """After a pick: update all bounds, once columns have cost as much as that is worth."""
        low = self.pairs.low.size
        if not low:
            return
        self.pairs.update(self._needs())
        spent = self.pairs.measured - self._measured_by_refresh
        cost = self.sims.count * min(low, self.sims.count / 2)
        if self.pairs.lists is not None and spent > _PATIENCE * cost:
            self._bound_anew()

    def _next(self) -> tuple[int, float] | None:
        """The textbook's next pick and its gain; None when no candidate is left."""
        seen: list[tuple[float, float, int]] = []
        lowest, lowest_at, batch = -1.0, -1, _FIRST
        while taken := self._take(batch if self.pairs.low.size else 1, lowest, lowest_at):
            self.pairs.load([candidate for _, candidate in taken])
            for bound, candidate in taken:
                if _is_beaten(bound, candidate, lowest, lowest_at):
                    heapq.heappush(self.heap, (-bound, candidate))
                    continue
                low, high = self._evaluate(candidate, bound)
                seen.append((high, low, candidate))
                if low > lowest:
                    # ``lowest_at`` names a candidate only where its gain is known to be exact.
                    lowest, lowest_at = low, candidate if low == high else -1
            batch = min(2 * batch, _BATCH)
        if not seen:
            return None
        pick, gain = self._decide([(c, low, high) for high, low, c in seen if high >= lowest])
        for upper, _, candidate in seen:
            if candidate != pick:
                heapq.heappush(self.heap, (-upper, candidate))
        return pick, gain

    def _take(self, size: int, lowest: float, lowest_at: int) -> list[tuple[float, int]]:
        """The next candidates that may gain more than ``lowest``, and the bounds of their gains."""
        heap, taken = self.heap, list[tuple[float, int]]()
        while heap and len(taken) < size:
            bound, candidate = -heap[0][0], heap[0][1]
            if _is_beaten(bound, candidate, lowest, lowest_at):
                break
            heapq.heappop(heap)
            if self.min_distance and self.best[candidate] > 1 - self.min_distance:
                self.closed[candidate] = True
            if not self.closed[candidate]:
                taken.append((bound, candidate))
        return taken

    def _decide(self, rivals: list[tuple[int, float, float]]) -> tuple[int, float]:
        if len(rivals) == 1:
            return rivals[0][0], rivals[0][2]
        known: dict[bytes, float] = {}
        best, pick = -1.0, -1
        for candidate, low, high in sorted(rivals):
            gain = high
            if low < high:
                gain = self._exact_gain(candidate, known) + self.extra.of(candidate)
            if gain > best:
                best, pick = gain, candidate
        return pick, best

    def _evaluate(self, candidate: int, bound: float) -> tuple[float, float]:
        """Bounds of a candidate's gain by the picks so far, its terms included."""
        extra = self.extra.of(candidate)
        if bound <= extra:
            return extra, extra
        self.evaluations += 1
        clients, values = self._seen(candidate)
        best, weights, error = self.best[clients], self.weights[clients], self.sims.error
        over = values - best
        # Nothing is more similar than 1: a client that has that gains no more.
        most = np.minimum(over + error, 1 - best)
        high = float(weights @ np.maximum(most, 0)) * (1 + _ROUNDING)
        low = float(weights @ np.maximum(over - error, 0)) * (1 - _ROUNDING) if high else 0.0
        return low + extra, high + extra

    def _active(self, candidate: int) -> Indices:
        """Rows that may be nearer to the candidate than to every pick, ascending."""
        clients, values = self._seen(candidate)
        best = self.best[clients]
        return np.sort(clients[(values > best - self.sims.error) & (best < 1)])

    def _seen(self, candidate: int) -> tuple[Indices, NDArray[np.floating]]:
        """Clients that may gain from a candidate, and how similar they count as."""
        clients, values = self.pairs.of(candidate)
        if self.own is None:
            return clients, values
        return clients, np.where(clients == candidate, self.own[candidate], values)

    def _exact(self, clients: Indices, candidate: int) -> Float64s:
        """(M,) how similar clients count as to a candidate, exactly."""
        found = self.sims.exact_with(clients, candidate)
        if self.own is not None:
            found[clients == candidate] = self.own[candidate]
        return found

    def _exact_gain(self, candidate: int, known: dict[bytes, float]) -> float:
        content = self.sims.rows.take(np.array([candidate], np.intp)).tobytes()
        if content in known and self.own is None:  # copies gain alike
            return known[content]
        active = self._active(candidate)
        over = self._exact(active, candidate) - self.best[active]
        known[content] = math.fsum((self.weights[active] * np.maximum(over, 0)).tolist())
        return known[content]

    def _commit(self, pick: int, gain: float) -> None:
        active = self._active(pick)
        self.best[active] = np.maximum(self.best[active], self._exact(active, pick))
        self.closed[pick] = True
        self.extra.picked(pick)
        self.picks.append(pick)
        self.gains.append(gain)

    def _needs(self) -> Float32s:
        """(N,) what a float32 similarity must exceed to matter to a row."""
        needs = (self.best - self.sims.error).astype(np.float32)
        np.nextafter(needs, np.float32(-2), out=needs)
        needs[self.best >= 1] = np.inf
        return np.asarray(needs, dtype=np.float32)

    def _bound_linearly(self) -> None:
        """No pick yet, so every row gains from every candidate: 1 + cos each, a linear sum."""
        sums = self.total_weight + self.sims.sums(self.weights)
        self._pile(sums + 1e-9 * self.total_weight)

    def _bound_all(self) -> None:
        """Bound all gains, and list as many pairs as memory holds in the same pass."""
        if self.holds_all:
            self._bound_anew()
            return
        needs = self._needs()
        neighbors = int(_LISTED * self.most_pairs / self.sims.count)
        floor = np.maximum(floors(self.sims, neighbors), needs)
        lists, gains = self.sims.lists_and_gains(
            floor, self.best.astype(np.float32), self.weights.astype(np.float32)
        )
        self.pairs.listed(lists, floor, needs)
        self._pile(gains + self.sims.gains_error(gains, self.total_weight))
        self._count_pass()

    def _bound_anew(self) -> None:
        self._pile(self.pairs.most_gains(self.best, self.weights))
        self.passes += 1
        self._measured_by_refresh = self.pairs.measured

    def _count_pass(self) -> None:
        self.passes += 1
        self.in_passes += self.sims.count * (self.sims.count + 1) // 2
        self._measured_by_refresh = self.pairs.measured

    def _pile(self, bounds: Float64s) -> None:
        """bounds: (N,) of the gains, a row's similarity to itself taken for 1."""
        bounds = bounds + self.extra.all()
        if self.own is not None:
            counted = np.maximum(self.own - self.best, 0)
            taken = np.where(self.sims.norms > 0, np.maximum(1 - self.best, 0), counted)
            bounds = bounds - self.weights * (taken - counted)
        open_ = np.flatnonzero(~self.closed)
        self.heap = list(zip((-bounds[open_]).tolist(), open_.tolist(), strict=True))
        heapq.heapify(self.heap)

    def _result(self) -> Facility:
        picks = np.array(self.picks, dtype=np.intp)
        scale = 2 * self.total_weight or 1.0
        reached = (self.total_weight + float(self.weights @ self.best)) / scale
        rest = self._measured_anew(heapq.nsmallest(self.k, self.heap))
        possible = reached - sum(min(bound, 0.0) for bound, _ in rest) / scale
        value = reached
        if self.is_pruned or self.own is not None:
            value = self._true_value(picks)
        loss = reached - value
        if self.own is not None:
            # What f counts less than the truth: picks that are alone, here and at the optimum.
            alone = self.weights * (1 - self.own) / scale
            loss += float(alone[picks].sum())
            possible += float(np.sort(alone)[alone.size - picks.size :].sum())
        return Facility(
            picks=picks,
            gains=np.array(self.gains) / 2,
            value=value,
            best_possible=min(1.0, possible),
            passes=self.passes,
            products=(self.in_passes + self.pairs.measured) / max(1, self.sims.count**2),
            evaluations=self.evaluations,
            pairs=self.pairs.count,
            pruned_loss=max(0.0, loss) if self.is_pruned else 0.0,
        )

    def _measured_anew(self, first: list[tuple[float, int]]) -> list[tuple[float, int]]:
        """The k largest bounds once the first of them are brought up to date."""
        if self.pairs.low.size and not self.holds_all:
            return first
        known = {c for _, c in first}
        again = [(-self._evaluate(c, -bound)[1], c) for bound, c in first if not self.closed[c]]
        rest = heapq.nsmallest(self.k + len(first), self.heap)
        return heapq.nsmallest(self.k, again + [each for each in rest if each[1] not in known])

    def _true_value(self, picks: Indices) -> float:
        chosen = self.sims.nearest_in_float32(picks, self._outside)
        return (self.total_weight + float(self.weights @ chosen)) / (2 * self.total_weight or 1.0)


def _is_beaten(bound: float, candidate: int, lowest: float, lowest_at: int) -> bool:
    """No gain within the bound precedes one of at least ``lowest``, or that of ``lowest_at``."""
    return bound < lowest or (bound == lowest and lowest_at >= 0 and candidate > lowest_at)


class _Extra:
    """The terms of each candidate's gain that do not depend on similarities."""

    def __init__(self, terms: Terms, count: int, unit: float) -> None:
        # f counts half a similarity, gains whole ones: a mean pick adds about 2 * unit.
        self._fixed = np.zeros(count) if terms.bonus is None else terms.bonus * 2 * unit
        self._strata = terms.strata
        self._reward = terms.reward * 2 * unit
        self._short = None if terms.targets is None else terms.targets.astype(np.int64).copy()

    def of(self, candidate: int) -> float:
        found = float(self._fixed[candidate])
        if self._short is not None and self._strata is not None:
            found += self._reward * float(self._short[self._strata[candidate]] > 0)
        return found

    def all(self) -> Float64s:
        if self._short is None or self._strata is None:
            return self._fixed
        return np.asarray(self._fixed + self._reward * (self._short[self._strata] > 0), np.float64)

    def picked(self, pick: int) -> None:
        if self._short is not None and self._strata is not None:
            self._short[self._strata[pick]] -= 1
