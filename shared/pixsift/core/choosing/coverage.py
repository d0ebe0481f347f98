"""How well a selection covers its pool, always compared with a random one of the same size.

A number alone says little: a random choice also covers a uniform pool well. So every report
contains the selection, a random choice, and a random choice within strata, all measured in the same
way.
"""

from dataclasses import dataclass

import numpy as np

from pixsift.core.choosing.clusters import cluster
from pixsift.core.choosing.kcenter import CENTERS_PER_PASS
from pixsift.core.choosing.pool import Column, Pool, column_of
from pixsift.core.choosing.quotas import allocate
from pixsift.core.choosing.rows import Float32s, Indices, RowSource
from pixsift.core.choosing.sampling import Selection
from pixsift.errors import RequestError

_WORK = 4e9
"""Pairs beyond which coverage is measured on a random part of the pool: seconds, not minutes."""
_POINTS = 10
"""Of the coverage curve."""
_WORST = 12
"""Images that are shown as the worst covered."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Coverage by the first ``chosen`` picks."""

    chosen: int
    covering_radius: float
    """Largest cosine distance of an image to its nearest chosen one."""
    mean_distance: float
    """Mean of these distances."""
    strata_covered: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage by one way of choosing."""

    curve: tuple[CurvePoint, ...]
    strata: dict[str, int]
    """Chosen images by stratum."""
    worst: tuple[tuple[int, float], ...] = ()
    """Images farthest from any chosen one: row of the pool and cosine distance, farthest first."""

    @property
    def covering_radius(self) -> float:
        return self.curve[-1].covering_radius

    @property
    def mean_distance(self) -> float:
        return self.curve[-1].mean_distance

    def to_json(self) -> dict[str, object]:
        """For reports; distances to four decimals, about what float32 is good for."""
        return {
            "covering_radius": round(self.covering_radius, 4),
            "mean_distance": round(self.mean_distance, 4),
            "strata_covered": self.curve[-1].strata_covered,
            "strata": self.strata,
            "curve": [
                {"chosen": p.chosen, "covering_radius": round(p.covering_radius, 4),
                 "mean_distance": round(p.mean_distance, 4), "strata_covered": p.strata_covered}
                for p in self.curve
            ],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """The selection compared with a random one."""

    by: str
    """Attribute of the strata, or ``clusters`` of the embeddings."""
    pool_strata: dict[str, int]
    measured_on: int
    """Images of the pool the distances were measured on."""
    selection: Coverage
    random: Coverage
    stratified_random: Coverage

    def to_json(self) -> dict[str, object]:
        """For reports."""
        return {
            "by": self.by,
            "measured_on": self.measured_on,
            "pool_strata": self.pool_strata,
            "selection": self.selection.to_json(),
            "random": self.random.to_json(),
            "stratified_random": self.stratified_random.to_json(),
        }


def compare(pool: Pool, selection: Selection, *, by: str | None, seed: int) -> Comparison:
    """Measure a selection, a random and a stratified random choice of its size.

    by: the attribute whose values are the strata; None takes clusters of the embeddings. What was
    preselected counts for all three. Raises UserError for an unknown attribute.
    """
    k, candidates = selection.indices.size, selection.candidates
    if not k:
        raise RequestError("cannot measure coverage: no image was selected")
    strata = _strata(pool, candidates, by, seed)
    rng = np.random.default_rng([seed, 0x636F])
    sizes = {name: int(ids.size) for name, ids in strata.items()}
    shares = allocate(sizes, k, share="proportional", seed=seed)
    stratified = np.concatenate(
        [rng.permutation(ids)[: shares[name]] for name, ids in strata.items()]
    )
    choices = {
        "selection": selection.indices,
        "random": rng.permutation(candidates)[:k],
        "stratified_random": rng.permutation(stratified),
    }
    most = max(1000, int(_WORK / (3 * (k + selection.anchors.size))))
    measured = candidates
    if candidates.size > most:
        measured = np.sort(rng.choice(candidates, most, replace=False))
    codes = np.full(pool.rows.count, -1, np.int32)
    for code, ids in enumerate(strata.values()):
        codes[ids] = code
    labels = Column(codes, tuple(strata))
    found = {
        name: _measure(pool.rows, measured, chosen, selection.anchors, labels)
        for name, chosen in choices.items()
    }
    return Comparison(by or "clusters", sizes, int(measured.size), **found)


def _strata(pool: Pool, candidates: Indices, by: str | None, seed: int) -> dict[str, Indices]:
    if by is not None:
        return column_of(pool.facts, by).strata(candidates)
    count = max(2, round(min(candidates.size**0.5, 64)))
    labels = cluster(pool.rows.subset(candidates), count, seed=seed)
    return {f"cluster {label:02d}": candidates[labels == label] for label in np.unique(labels)}


def _measure(
    rows: RowSource,
    measured: Indices,
    chosen: Indices,
    anchors: Indices,
    strata: Column,
) -> Coverage:
    source = rows.subset(measured)
    nearest: Float32s = np.full(measured.size, np.inf, np.float32)
    _lower(source, nearest, rows, anchors)
    counts = np.zeros(len(strata.values), np.intp)
    curve, start = [], 0
    for stop in _prefixes(chosen.size):
        part = chosen[start:stop]
        _lower(source, nearest, rows, part)
        nearest[np.isin(measured, part)] = 0  # float32 leaves a tiny remainder
        counts += np.bincount(strata.codes[part], minlength=counts.size)
        distances = nearest.astype(np.float64) / 2  # of unit vectors: cosine distance
        seen = int(np.count_nonzero(counts))
        curve.append(CurvePoint(stop, float(distances.max()), float(distances.mean()), seen))
        start = stop
    farthest = np.argsort(-nearest, kind="stable")[:_WORST]
    return Coverage(
        tuple(curve), dict(zip(strata.values, counts.tolist(), strict=True)),
        worst=tuple((int(measured[i]), float(nearest[i]) / 2) for i in farthest if nearest[i] > 0),
    )  # fmt: skip


def _lower(source: RowSource, nearest: Float32s, rows: RowSource, centers: Indices) -> None:
    for start in range(0, centers.size, CENTERS_PER_PASS):
        source.lower(nearest, rows.take(centers[start : start + CENTERS_PER_PASS]))


def _prefixes(k: int) -> list[int]:
    return sorted({round(x) for x in np.geomspace(1, k, min(k, _POINTS))} | {k})
