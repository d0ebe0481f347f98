"""The pairs of a candidate and a row that its gain hangs on: listed, or measured when asked for.

Each row, as a client, has a floor. Pairs above it are listed once, in one pass over all. A client
whose best similarity so far lies above its floor needs no other pair from then on. The others are
*low*: for these, a candidate is measured in a column over the low clients alone. Soon after
the first picks few clients are low, and at last none.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float32s, Float64s, Indices
from pixsift.core.choosing.similarities import Lists, Similarities

_FEWEST_COLUMNS = 128
_SHRINKS_AT = 0.5
"""Columns are cut to the low clients once these are that share of what they cover: a copy each."""


class Pairs:
    """Similarities of candidates to the clients that they may serve better than any pick."""

    def __init__(self, sims: Similarities, column_bytes: int) -> None:
        n = sims.count
        self._sims = sims
        self._bytes = column_bytes
        self.lists: Lists | None = None
        self._floor: Float32s | None = None
        self.low: Indices = np.arange(n)
        """Clients that columns cover: all that are low, and some that were."""
        self._is_low: NDArray[np.bool_] = np.ones(n, dtype=bool)
        self._low_needs: Float32s = np.empty(0, np.float32)
        self._columns: dict[int, Float32s] = {}
        self.measured = 0
        """Similarities measured in columns."""

    def listed(self, lists: Lists, floor: Float32s, needs: Float32s) -> None:
        """From now on pairs above ``floor`` (N,) are in lists. needs: see ``update``."""
        self.lists, self._floor = lists, floor
        self._cover(np.flatnonzero(needs < floor))
        self.update(needs)

    def update(self, needs: Float32s) -> None:
        """needs: (N,) what a float32 similarity must exceed to matter to each client."""
        if not self.low.size:
            return
        if self._floor is not None:
            still = np.flatnonzero(needs[self.low] < self._floor[self.low])
            if still.size <= _SHRINKS_AT * self.low.size:
                self._cover(self.low[still])
        self._low_needs = needs[self.low]

    def of(self, candidate: int) -> tuple[Indices, Float32s]:
        """Clients that may gain from the candidate, and how similar they are to it."""
        if not self.low.size and self.lists is not None:
            clients, values = self.lists.of(candidate)
            return clients.astype(np.intp), values
        if candidate not in self._columns:
            self.load([candidate])
        column = self._columns[candidate]
        inside = np.flatnonzero(column > self._low_needs)
        if self.lists is None:
            return inside, column[inside]
        clients, values = self.lists.of(candidate)
        known = np.flatnonzero(~self._is_low[clients])
        return (
            np.concatenate([clients[known], self.low[inside]]),
            np.concatenate([values[known], column[inside]]),
        )

    def load(self, candidates: Sequence[int]) -> None:
        """Measure the columns of candidates that will be asked for, at once."""
        if not self.low.size:
            return
        wanted = [c for c in candidates if c not in self._columns]
        if not wanted:
            return
        room = max(_FEWEST_COLUMNS, self._bytes // (4 * self.low.size))
        if len(self._columns) + len(wanted) > room:
            kept = {c: self._columns[c] for c in candidates if c in self._columns}
            self._columns = kept
        some = None if self.low.size == self._sims.count else self.low
        found = self._sims.columns(np.array(wanted, dtype=np.intp), some)
        self._columns.update(zip(wanted, found, strict=True))
        self.measured += found.size

    def most_gains(self, best: Float64s, weights: Float64s) -> Float64s:
        """(N,) what no candidate's gain exceeds: each pair measured or listed, with its error."""
        n = self._sims.count
        if 2 * self.low.size > n:  # half of all pairs are fewer than these
            gains = self._sims.gains(best.astype(np.float32), weights.astype(np.float32))
            self.measured += n * (n + 1) // 2
            return gains + self._sims.gains_error(gains, float(weights.sum()))
        found = self._listed_gains(best, weights)
        if not self.low.size:
            return found
        low_best = best[self.low].astype(np.float32)
        low_weights = weights[self.low].astype(np.float32)
        gains = self._sims.gains_of(self.low, low_best, low_weights)
        self.measured += self.low.size * n
        error = self._sims.gains_error(gains, float(weights[self.low].sum()))
        return np.asarray(found + gains + error, dtype=np.float64)

    @property
    def count(self) -> int:
        """Pairs in lists."""
        return 0 if self.lists is None else self.lists.clients.size

    def _cover(self, low: Indices) -> None:
        places = np.searchsorted(self.low, low)
        self._columns = {c: column[places] for c, column in self._columns.items()}
        self._is_low[:] = False
        self._is_low[low] = True
        self.low = low

    def _listed_gains(self, best: Float64s, weights: Float64s) -> Float64s:
        found = np.zeros(self._sims.count)
        lists = self.lists
        if lists is None:
            return found
        counts = np.diff(lists.offsets)
        for start in range(0, found.size, 4096):
            part = slice(start, min(start + 4096, found.size))
            inside = slice(lists.offsets[part.start], lists.offsets[part.stop])
            clients = lists.clients[inside]
            had = best[clients]
            over = np.clip(lists.similarities[inside] - had + self._sims.error, 0, 1 - had)
            over *= weights[clients] * ~self._is_low[clients]
            who = np.repeat(np.arange(part.stop - part.start), counts[part])
            found[part] = np.bincount(who, over, minlength=part.stop - part.start)
        return found


def floors(sims: Similarities, neighbors: int) -> Float32s:
    """(N,) about the similarity of each row to its ``neighbors``-th most similar one.

    From a sample of rows: any floor is a valid one; it decides how many pairs are listed, and of
    pruned picks the loss, which is measured.
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
