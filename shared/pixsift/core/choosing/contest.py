"""Compares strategies on one pool at several sizes: coverage, and what a model learns from the
choice.

Coverage is in cosine distance, like every distance shown to people. Where images have labels,
a linear probe and the nearest neighbor are trained on what each strategy chooses and tested on
images it could not choose from: groups are dealt into folds, and each fold is held out once.
Differences from chance come with a 95 % interval by a paired bootstrap over groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.outliers import isolation
from pixsift.core.choosing.pool import Pool, column_of
from pixsift.core.choosing.probe import interval, nearest, probe
from pixsift.core.choosing.rows import Float64s, Indices
from pixsift.core.choosing.sampling import Selection, select
from pixsift.core.choosing.similarities import Similarities
from pixsift.errors import RequestError
from pixsift.messages import Select2, Strategy

STRATEGIES: tuple[Strategy, ...] = (
    "auto", "typical", "balanced", "mixed", "k_center", "farthest", "random",
)  # fmt: skip
SHARES = (0.01, 0.04, 0.08, 0.2, 0.4)
MOST_IMAGES = 4000
"""Larger pools are compared on this many images, drawn at random."""
_FOLDS = 5
_MOST_ATTRIBUTES = 6
_MOST_VALUES = 200


@dataclass(frozen=True, slots=True)
class Skill:
    """Accuracy on held-out images of what was trained on a selection."""

    accuracy: float
    above_random: float
    low: float
    high: float
    """95 % interval of ``above_random``."""


@dataclass(frozen=True, slots=True)
class Size:
    """One strategy at one k."""

    k: int
    mean_distance: float
    """Mean cosine distance of an image to its nearest chosen one."""
    largest_distance: float
    attributes: dict[str, float]
    """Share of an attribute's values that the chosen have."""
    odd: int
    """Chosen images that are odd: much farther from others than most."""
    flagged: int | None
    """Chosen images that a quality check flagged; None: not known."""
    probe: Skill | None = None
    neighbor: Skill | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One strategy."""

    strategy: Strategy
    resolved: str
    """The strategy that ``auto`` chose at each k, or the strategy itself."""
    sizes: tuple[Size, ...]
    first: Indices
    """The first picks at the largest k, rows of the pool."""
    left_out: Indices
    """What was trimmed as odd, the farthest from others first."""


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """All strategies, measured alike."""

    candidates: int
    compared_on: int
    ks: tuple[int, ...]
    odd: int
    """Odd images among those compared on."""
    label: str | None
    group: str | None
    tested: int
    """Images the probe was tested on, each once."""
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "candidates": self.candidates, "compared_on": self.compared_on, "odd": self.odd,
            "label": self.label, "group": self.group, "tested": self.tested, "k": list(self.ks),
            "strategies": {
                entry.strategy: {
                    "resolved": entry.resolved,
                    "left_out": int(entry.left_out.size),
                    "sizes": [_size_json(size) for size in entry.sizes],
                }
                for entry in self.entries
            },
        }  # fmt: skip


def contest(
    pool: Pool,
    request: Select2,
    *,
    label: str | None = None,
    group: str | None = None,
    ks: Sequence[int] = (),
    strategies: Sequence[Strategy] = STRATEGIES,
) -> Contest:
    """Every strategy at every k, with all else as the request has it.

    label: attribute with the classes of a probe; group: attribute whose values are held out
    together; None: every image by itself. ks: sizes; none takes 1 to 40 % of the images.
    Raises UserError for an unknown attribute, or a label that has one value.
    """
    members = np.flatnonzero(pool.eligible)
    candidates = members.size
    if candidates > MOST_IMAGES:
        rng = np.random.default_rng([request.seed, 0x6374])
        members = np.sort(rng.choice(members, MOST_IMAGES, replace=False))
    pool = _part(pool, members)
    n = members.size
    sizes = sorted({min(k, n) for k in ks} or {max(2, round(share * n)) for share in SHARES})
    odd = isolation(pool.rows, seed=request.seed).odd
    sims = Similarities(pool.rows)
    skills = _skills(pool, request, sizes, strategies, label=label, group=group) if label else {}
    entries = []
    for strategy in strategies:
        chosen = {k: _chosen(pool, request, strategy, k) for k in sizes}
        largest = chosen[sizes[-1]]
        lost = np.searchsorted(pool.object_ids, largest.outliers)
        entries.append(Entry(
            strategy=strategy,
            resolved=", ".join(dict.fromkeys(str(c.report["strategy"]) for c in chosen.values())),
            sizes=tuple(
                _with_skills(
                    _size(pool, sims, chosen[k].indices, odd), skills.get((strategy, k), {})
                )
                for k in sizes
            ),
            first=members[largest.indices],
            left_out=members[lost],
        ))  # fmt: skip
    tested = n if label is None else int(_labeled(pool, label).sum())
    return Contest(
        candidates, n, tuple(sizes), int(odd.sum()), label, group, tested if label else 0,
        tuple(entries),
    )  # fmt: skip


def _chosen(pool: Pool, request: Select2, strategy: Strategy, k: int) -> Selection:
    given = request.model_dump(include={"seed", "purpose", "min_distance"})
    asked = Select2.model_validate({**given, "strategy": strategy, "k": k, "at_most": True})
    return select(pool, asked)


def _size(pool: Pool, sims: Similarities, picks: Indices, odd: NDArray[np.bool_]) -> Size:
    distances = 1 - sims.nearest_in_float32(picks, None)
    distances[picks] = 0
    attributes = {}
    for name, column in list(pool.facts.attributes.items())[:_MOST_ATTRIBUTES]:
        there = np.unique(column.codes[column.codes >= 0])
        if 1 < there.size <= _MOST_VALUES:
            found = column.codes[picks]
            attributes[name] = float(np.unique(found[found >= 0]).size / there.size)
    return Size(
        k=picks.size,
        mean_distance=round(float(distances.mean()), 4),
        largest_distance=round(float(distances.max()), 4),
        attributes=attributes,
        odd=int(odd[picks].sum()),
        flagged=None if pool.flagged is None else int(pool.flagged[picks].sum()),
    )


def _with_skills(size: Size, skills: dict[str, Skill]) -> Size:
    return replace(size, probe=skills.get("probe"), neighbor=skills.get("neighbor"))


def _labeled(pool: Pool, label: str) -> NDArray[np.bool_]:
    return np.asarray(column_of(pool.facts, label).codes >= 0)


def _skills(
    pool: Pool,
    request: Select2,
    sizes: Sequence[int],
    strategies: Sequence[Strategy],
    *,
    label: str,
    group: str | None,
) -> dict[tuple[Strategy, int], dict[str, Skill]]:
    """Each fold of groups is held out once; strategies choose from the rest."""
    labels = column_of(pool.facts, label).codes.astype(np.intp)
    if np.unique(labels[labels >= 0]).size < 2:
        raise RequestError(f"label {label!r} needs two values at least, to tell them apart")
    groups = np.arange(labels.size)
    if group is not None:
        codes = column_of(pool.facts, group).codes.astype(np.intp)
        groups = np.where(codes >= 0, codes, codes.max() + 1)
    folds = _folds(groups, seed=request.seed)
    rows = pool.rows.take(np.arange(labels.size))
    right: dict[tuple[Strategy, int], dict[str, NDArray[np.bool_]]] = {}
    wanted = tuple(dict.fromkeys((*strategies, "random")))
    for fold in range(int(folds.max()) + 1):
        rest = np.flatnonzero(folds != fold)
        tested = np.flatnonzero((folds == fold) & (labels >= 0))
        part = _part(pool, rest)
        for strategy in wanted:
            for k in sizes:
                # The same share of the remaining images as k is of all.
                size = max(2, round(k * rest.size / labels.size))
                picks = rest[_chosen(part, request, strategy, size).indices]
                picks = picks[labels[picks] >= 0]
                results = right.setdefault(
                    (strategy, k),
                    {name: np.zeros(labels.size, bool) for name in ("probe", "neighbor")},
                )
                for name, learn in (("probe", probe), ("neighbor", nearest)):
                    results[name][tested] = _predicted(
                        learn, rows, labels, picks, tested
                    ) == labels[tested]  # fmt: skip
    known = labels >= 0
    return {
        (strategy, k): {
            name: _skill(
                right[strategy, k][name][known], right["random", k][name][known], groups[known],
                seed=request.seed,
            )
            for name in ("probe", "neighbor")
        }
        for strategy in strategies for k in sizes
    }  # fmt: skip


def _predicted(
    learn: Any, rows: Float64s, labels: NDArray[np.intp], picks: Indices, tested: Indices
) -> NDArray[np.intp]:
    if not picks.size:
        return np.full(tested.size, -2, np.intp)
    found: NDArray[np.intp] = learn(rows[picks], labels[picks], rows[tested])
    return found


def _skill(
    right: NDArray[np.bool_], chance: NDArray[np.bool_], groups: NDArray[np.intp], *, seed: int
) -> Skill:
    low, high = interval(right, chance, groups, seed=seed)
    return Skill(float(right.mean()), float(right.mean() - chance.mean()), low, high)


def _folds(groups: NDArray[np.intp], *, seed: int) -> NDArray[np.intp]:
    names, codes = np.unique(groups, return_inverse=True)
    if names.size < 2:
        raise RequestError("the groups to hold out are one: nothing is left to choose from")
    rng = np.random.default_rng([seed, 0x666F])
    dealt = np.empty(names.size, np.intp)
    dealt[rng.permutation(names.size)] = np.arange(names.size) % min(_FOLDS, names.size)
    return dealt[codes]


def _part(pool: Pool, members: Indices) -> Pool:
    return Pool(
        pool.facts.subset(members), pool.rows.subset(members), np.ones(members.size, bool),
        flagged=None if pool.flagged is None else pool.flagged[members],
    )  # fmt: skip


def _size_json(size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {
        "k": size.k, "mean_distance": size.mean_distance,
        "largest_distance": size.largest_distance, "odd": size.odd, "flagged": size.flagged,
        "attributes": {name: round(share, 4) for name, share in size.attributes.items()},
    }  # fmt: skip
    for name, skill in (("probe", size.probe), ("neighbor", size.neighbor)):
        if skill is not None:
            found[name] = {
                "accuracy": round(skill.accuracy, 4), "above_random": round(skill.above_random, 4),
                "interval": [round(skill.low, 4), round(skill.high, 4)],
            }  # fmt: skip
    return found
