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
2. *Few products*. The first gains are linear in the rows: no pair is measured. One pass over half
   the pairs bounds the gains after the first pick. The candidates that remain get their column of
   similarities, which is kept while memory allows; then another pass updates all bounds.
3. *Lists*. A pair matters only as long as its similarity exceeds what the client already has. Once
   few enough pairs are left, one more pass gathers them; from then on no product is needed.

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

from pixsift.core.choosing.rows import NO_INDICES, Float32s, Float64s, Indices, RowSource
from pixsift.core.choosing.similarities import Lists, Similarities

MEMORY_BYTES = 1 << 30
"""For lists of pairs, or columns of similarities before there are lists."""
EXACT_ROWS = 10_000
"""Pools up to this fit the memory with all their pairs; beyond, exact picks cost several passes
over all pairs before lists fit, and pruned ones one (docs/selection.md)."""
_PAIR_BYTES = 9
"""Bytes of a pair: client, similarity, and the overhead while lists are built."""
_BATCH = 64
"""Columns of similarities made at once: one at a time would read all rows for each."""
_WATCHED = 128
"""Columns by which the number of pairs left is estimated."""
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
    """How often half of all pairs were measured."""
    evaluations: int
    """Gains measured; the textbook loop measures N for each pick."""
    pairs: int
    """Pairs held at the end."""
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
        self.extra = _Extra(terms, n, self.total_weight / (2 * max(k, 1)))
        self.best = self.sims.nearest(outside) if outside and outside.count else np.full(n, -1.0)
        """(N,) exact similarity to the nearest pick; with pruning, at least the floor."""
        self.floor: Float32s | None = None
        self.start_is_linear = outside is None or not outside.count
        self.min_distance = min_distance
        self.closed = np.zeros(n, dtype=bool)
        """Picked, or not to be picked."""
        self.most_pairs = max(1, memory_bytes // _PAIR_BYTES)
        self.store: _Columns | _Held = _Columns(self.sims, memory_bytes)
        self.needs = self._needs()
        self.heap: list[tuple[float, int]] = []
        """(minus the bound of its gain, candidate)."""
        self.fresh: dict[int, tuple[float, float]] = {}
        """Gains measured since the last pick."""
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.passes = self.evaluations = 0
        self._refreshed_at = -1
        self._outside = outside

    def bar(self, barred: Indices) -> None:
        """Rows that are never picked."""
        self.closed[barred] = True

    def prune(self, neighbors: int) -> None:
        """Give each row a floor, and gather what lies above."""
        floor = _floors(self.sims, neighbors)
        if self.min_distance:
            # Rows too near to a pick must be found.
            floor = np.minimum(floor, np.float32(1 - self.min_distance - 2 * self.sims.error))
        self.floor = floor
        self.best = np.maximum(self.best, floor.astype(np.float64))
        self.start_is_linear = False
        self._gather()

    def run(self) -> Facility:
        """All picks."""
        if isinstance(self.store, _Columns):
            if self.sims.count**2 <= self.most_pairs:
                self._gather()
            elif self.start_is_linear:
                self._bound_linearly()
            else:
                self._refresh()
        while len(self.picks) < self.k:
            found = self._next()
            if found is None:
                break
            self._commit(*found)
            if isinstance(self.store, _Columns):
                self._after_first()
        return self._result()

    def _after_first(self) -> None:
        """Before there are lists: gather them as soon as they fit."""
        assert isinstance(self.store, _Columns)  # noqa: S101
        if len(self.picks) >= self.k:
            return
        if self.store.pairs_left(self.needs) <= 0.9 * self.most_pairs:
            self._gather()
        elif len(self.picks) == 1 and self.start_is_linear:
            self._refresh()

    def _next(self) -> tuple[int, float] | None:
        """The textbook's next pick and its gain; None when no candidate is left."""
        while True:
            try:
                return self._look()
            except _NoRoomError:
                # Too many candidates remain: update all bounds, or start over.
                assert isinstance(self.store, _Columns)  # noqa: S101
                self.store.clear()
                if self._refreshed_at < len(self.picks):
                    self._refresh()

    def _look(self) -> tuple[int, float] | None:
        heap = self.heap
        seen: list[tuple[float, float, int]] = []
        lowest, lowest_at = -1.0, -1
        while heap:
            bound, candidate = -heap[0][0], heap[0][1]
            if bound < lowest or (bound == lowest and lowest_at >= 0 and candidate > lowest_at):
                break
            heapq.heappop(heap)
            if self.closed[candidate]:
                continue
            if self.min_distance and self.best[candidate] > 1 - self.min_distance:
                self.closed[candidate] = True
                continue
            try:
                low, high = self._evaluate(candidate, min(bound, np.inf))
            except _NoRoomError:
                heapq.heappush(heap, (-bound, candidate))
                for upper, _, again in seen:
                    heapq.heappush(heap, (-upper, again))
                raise
            seen.append((high, low, candidate))
            if low > lowest:
                # ``lowest_at`` names a candidate only where its gain is known to be exact.
                lowest, lowest_at = low, candidate if low == high else -1
        if not seen:
            return None
        pick, gain = self._decide([(c, low, high) for high, low, c in seen if high >= lowest])
        for upper, _, candidate in seen:
            if candidate != pick:
                heapq.heappush(heap, (-upper, candidate))
        return pick, gain

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
        if candidate in self.fresh:
            return self.fresh[candidate]
        extra = self.extra.of(candidate)
        if bound <= extra:
            return extra, extra
        self.evaluations += 1
        clients, values = self._column(candidate)
        best, weights, error = self.best[clients], self.weights[clients], self.sims.error
        over = values - best
        # Nothing is more similar than 1: a client that has that gains no more.
        most = np.minimum(over + error, 1 - best)
        high = float(weights @ np.maximum(most, 0)) * (1 + _ROUNDING)
        low = float(weights @ np.maximum(over - error, 0)) * (1 - _ROUNDING) if high else 0.0
        self.fresh[candidate] = low + extra, high + extra
        return self.fresh[candidate]

    def _column(self, candidate: int) -> tuple[Indices, Float32s]:
        """Rows that may be nearer to the candidate than to every pick, and how similar they are."""
        if isinstance(self.store, _Held):
            clients, values = self.store.lists.of(candidate)
            return clients.astype(np.intp), values
        if not self.store.has(candidate):
            ahead = [c for _, c in heapq.nsmallest(2 * _BATCH, self.heap) if not self.closed[c]]
            self.store.load(candidate, ahead)
        column = self.store.of(candidate)
        inside = np.flatnonzero(column > self.needs)
        return inside, column[inside]

    def _active(self, candidate: int) -> Indices:
        """Rows that may be nearer to the candidate than to every pick, ascending."""
        if isinstance(self.store, _Columns) and not self.store.has_room_for(candidate):
            self.store.clear()
        clients, values = self._column(candidate)
        best = self.best[clients]
        return np.sort(clients[(values > best - self.sims.error) & (best < 1)])

    def _exact_gain(self, candidate: int, known: dict[bytes, float]) -> float:
        content = self.sims.rows.take(np.array([candidate], np.intp)).tobytes()
        if content not in known:  # copies gain alike
            active = self._active(candidate)
            over = self.sims.exact_with(active, candidate) - self.best[active]
            known[content] = math.fsum((self.weights[active] * np.maximum(over, 0)).tolist())
        return known[content]

    def _commit(self, pick: int, gain: float) -> None:
        active = self._active(pick)
        self.best[active] = np.maximum(self.best[active], self.sims.exact_with(active, pick))
        self.closed[pick] = True
        self.extra.picked(pick)
        self.picks.append(pick)
        self.gains.append(gain)
        self.fresh.clear()
        if isinstance(self.store, _Columns):
            self.needs = self._needs()

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

    def _refresh(self) -> None:
        gains = self.sims.gains(
            self.best.astype(np.float32), self.weights.astype(np.float32)
        )  # fmt: skip
        self._pile(gains + self.sims.gains_error(gains, self.total_weight))
        self.passes += 1
        self._refreshed_at = len(self.picks)

    def _gather(self) -> None:
        self.store.clear()
        lists = self.sims.lists(self._needs())
        self.store = _Held(lists)
        self.passes += 1
        counts = np.diff(lists.offsets)
        bounds = np.zeros(self.sims.count)
        for start in range(0, self.sims.count, 4096):
            part = slice(start, min(start + 4096, self.sims.count))
            inside = slice(lists.offsets[part.start], lists.offsets[part.stop])
            clients = lists.clients[inside]
            best = self.best[clients]
            over = np.clip(lists.similarities[inside] - best + self.sims.error, 0, 1 - best)
            who = np.repeat(np.arange(part.stop - part.start), counts[part])
            bounds[part] = np.bincount(
                who, over * self.weights[clients], minlength=part.stop - part.start
            )
        self._pile(bounds * (1 + _ROUNDING))

    def _pile(self, bounds: Float64s) -> None:
        bounds = bounds + self.extra.all()
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
        if self.floor is not None:
            value = self._true_value(picks)
        return Facility(
            picks=picks,
            gains=np.array(self.gains) / 2,
            value=value,
            best_possible=min(1.0, possible),
            passes=self.passes,
            evaluations=self.evaluations,
            pairs=self.store.lists.clients.size if isinstance(self.store, _Held) else 0,
            pruned_loss=max(0.0, reached - value),
        )

    def _measured_anew(self, first: list[tuple[float, int]]) -> list[tuple[float, int]]:
        """The k largest bounds once the first of them are brought up to date."""
        if not isinstance(self.store, _Held):
            return first
        known = {c for _, c in first}
        again = [(-self._evaluate(c, -bound)[1], c) for bound, c in first if not self.closed[c]]
        rest = heapq.nsmallest(self.k + len(first), self.heap)
        return heapq.nsmallest(self.k, again + [each for each in rest if each[1] not in known])

    def _true_value(self, picks: Indices) -> float:
        chosen = self.sims.nearest_in_float32(picks, self._outside)
        return (self.total_weight + float(self.weights @ chosen)) / (2 * self.total_weight or 1.0)


class _NoRoomError(Exception):
    """No room for another column of similarities."""


class _Columns:
    """Columns of similarities of the candidates in question, and of some drawn to watch."""

    def __init__(self, sims: Similarities, memory_bytes: int) -> None:
        n = sims.count
        self._sims = sims
        self._room = max(2 * _BATCH, memory_bytes // (4 * n) - _WATCHED)
        self._columns: dict[int, Float32s] = {}
        drawn = np.random.default_rng([n, 0x666C]).permutation(n)[:_WATCHED]
        self._watched = np.sort(drawn)
        self._watch: Float32s | None = None

    def has(self, candidate: int) -> bool:
        return candidate in self._columns

    def of(self, candidate: int) -> Float32s:
        return self._columns[candidate]

    def has_room_for(self, candidate: int) -> bool:
        return candidate in self._columns or len(self._columns) + _BATCH <= self._room

    def load(self, candidate: int, others: list[int]) -> None:
        """Make a candidate's column, and others' that will be asked for soon."""
        if not self.has_room_for(candidate):
            raise _NoRoomError
        wanted = [c for c in dict.fromkeys([candidate, *others]) if c not in self._columns]
        wanted = wanted[:_BATCH]
        found = self._sims.columns(np.array(wanted, dtype=np.intp))
        self._columns.update(zip(wanted, found, strict=True))

    def clear(self) -> None:
        self._columns.clear()

    def pairs_left(self, needs: Float32s) -> float:
        """About how many pairs matter still, from the columns drawn."""
        if self._watch is None:
            self._watch = self._sims.columns(self._watched)
        above = sum(int(np.count_nonzero(column > needs)) for column in self._watch)
        return above / len(self._watch) * self._sims.count


@dataclass(slots=True, eq=False)
class _Held:
    """All pairs that matter."""

    lists: Lists

    def clear(self) -> None:
        """Nothing to give back before new lists replace these."""


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


def _floors(sims: Similarities, neighbors: int) -> Float32s:
    """(N,) about the similarity of each row to its ``neighbors``-th most similar one.

    From a sample of rows: any floor is a valid one, and the loss is measured, not assumed.
    """
    n = sims.count
    rank = 16
    size = min(n, max(rank + 1, math.ceil(rank * n / max(1, neighbors))))
    sample = np.sort(np.random.default_rng([n, 0x6670]).permutation(n)[:size])
    units = sims.units_of(sample)
    found = np.empty(n, np.float32)
    rank = min(size, max(1, round(neighbors * size / n)))
    for start in range(0, n, 1024):
        stop = min(start + 1024, n)
        tile = sims.units(start, stop) @ units.T
        found[start:stop] = np.partition(tile, size - rank, axis=1)[:, size - rank]
    return found
