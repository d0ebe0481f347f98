"""Watches: finds arrivals that are similar to the examples of a standing query.

A watch has *modes*: the examples themselves, or the mean of each group of them that look alike. An
image matches when its cosine distance to the nearest mode is at most the watch's, and smaller than
to every counterexample. All watches of a collection are compared with a batch in one product of
matrices in float32, with a margin; what passes is measured in float64 over the stored halves, as
every distance is.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float64s, Indices
from pixsift.core.retrieval import DECIMALS, Way, centered, grouped, unit

Halves = NDArray[np.float16]
MOST_MODES: Final = 64
"""Of one watch."""
_MARGIN: Final = 1e-5
"""Float32 products of unit rows err by 1e-6."""
_PAIRS_AT_ONCE: Final = 8192
"""25 MB of float64 at 384 dimensions."""


@dataclass(frozen=True, slots=True)
class Match:
    """A watch that an image matches."""

    watch_id: int
    mode: int
    distance: float
    """Cosine distance to that mode."""
    duplicates: bool
    """Whether the watch also wants images that are duplicates."""


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """One vector of a watch."""

    watch_id: int
    mode: int
    is_against: bool
    max_distance: float
    duplicates: bool
    vector: Halves
    """(D,) as stored."""


def modes_of(examples: Float64s, mean: Float64s, way: Way) -> tuple[Halves, tuple[Indices, ...]]:
    """(T, D) vectors that arrivals are compared with, and the examples behind each.

    examples: (Q, D), Q of at least 1; mean: (D,) of the collection's unit rows, which separates
    groups. A mode is the plain mean of its unit examples: a threshold is a distance to it.
    """
    units = unit(examples)
    if way == "nearest" or len(units) == 1:
        groups = [np.array([i], np.intp) for i in range(len(units))]
    elif way == "mean":
        groups = [np.arange(len(units), dtype=np.intp)]
    else:
        groups = grouped(centered(units, mean))
    means = np.stack([units[group].mean(axis=0) for group in groups])
    return unit(means).astype(np.float16), tuple(groups)


class Matcher:
    """All watches of one collection."""

    def __init__(self, aims: Iterable[Aim]) -> None:
        every = list(aims)
        self._modes = [aim for aim in every if not aim.is_against]
        self._against: dict[int, Float64s] = {
            watch_id: unit(np.stack(vectors).astype(np.float64))
            for watch_id, vectors in _grouped_against(every).items()
        }
        if self._modes:
            self._units = unit(np.stack([m.vector for m in self._modes]).astype(np.float64))
            self._columns = np.ascontiguousarray(self._units.T, np.float32)
            self._limits = np.array([mode.max_distance for mode in self._modes])
            self._least = (1.0 - self._limits - _MARGIN).astype(np.float32)

    @classmethod
    def empty(cls) -> Self:
        """Of a collection without watches."""
        return cls([])

    def __bool__(self) -> bool:
        return bool(self._modes)

    def match(self, vectors: Halves) -> list[list[Match]]:
        """Per row, the watches that it matches, by watch id. vectors: (N, D) as stored."""
        found: list[dict[int, Match]] = [{} for _ in vectors]
        if not self._modes or not len(vectors):
            return [[] for _ in vectors]
        units = unit(vectors.astype(np.float64))
        rows, modes = np.nonzero(units.astype(np.float32) @ self._columns >= self._least)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            cosines = np.einsum("ij,ij->i", units[rows[part]], self._units[modes[part]])
            distances = _rounded(1.0 - cosines)
            near = np.flatnonzero(distances <= self._limits[modes[part]])
            for at in near.tolist():
                row, mode = int(rows[start + at]), self._modes[int(modes[start + at])]
                self._take(found[row], mode, float(distances[at]), units[row])
        return [[each[w] for w in sorted(each)] for each in found]

    def nearest(self, vectors: Halves) -> tuple[Float64s, Indices]:
        """(N,) cosine distance of each row to its nearest mode, and which one that is.

        Of a matcher of one watch. Infinite for a row that is at least as near to a counterexample.
        """
        units = unit(vectors.astype(np.float64))
        cosines = units @ self._units.T
        modes = cosines.argmax(axis=1)
        distances = _rounded(1.0 - cosines[np.arange(len(units)), modes])
        for against in self._against.values():
            distances[_rounded(1.0 - (units @ against.T).max(axis=1)) <= distances] = np.inf
        return distances, modes.astype(np.intp)

    def _take(
        self, found: dict[int, Match], mode: Aim, distance: float, row: NDArray[np.float64]
    ) -> None:
        known = found.get(mode.watch_id)
        if known is not None and (known.distance, known.mode) <= (distance, mode.mode):
            return
        against = self._against.get(mode.watch_id)
        if against is not None and float(_rounded(1.0 - (against @ row).max())) <= distance:
            return
        found[mode.watch_id] = Match(mode.watch_id, mode.mode, distance, mode.duplicates)


def _rounded(distances: Float64s) -> Float64s:
    """Rounded to decimals on which every order of summation agrees: an image has distance 0 to
    itself."""
    return np.asarray(np.maximum(0.0, np.round(distances, DECIMALS)), np.float64)


def _grouped_against(aims: Sequence[Aim]) -> dict[int, list[Halves]]:
    found: defaultdict[int, list[Halves]] = defaultdict(list)
    for aim in aims:
        if aim.is_against:
            found[aim.watch_id].append(aim.vector)
    return found
