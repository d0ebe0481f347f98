"""Finds a threshold from labeled pairs: precision and recall at each epsilon.

A pair is *positive* when both images are the same picture (an edit of a known grade) and
*distinct* when they are different pictures. All pairs of different pictures are used, look-alikes
included, not a sample of easy ones: so precision says what an epsilon does to a whole collection.
The proposed epsilon is the one where the lower end of the precision's interval reaches the
precision asked for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixsift.core import presets
from pixsift.core.second_look import LookRule

SCHEMA = "pixsift.calibration/1"
Z = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""
NOISE_MARGIN = 10.0
"""Epsilon must exceed the embedder's own noise by this factor."""


@dataclass(frozen=True, slots=True, eq=False)
class LabeledPairs:
    """Pairs with their distances; (N,) arrays. Only pairs near enough need a second look."""

    distance: NDArray[np.float64]
    agrees: NDArray[np.bool_]
    """The verdict of the second look."""
    positive: NDArray[np.bool_]
    kind: tuple[str, ...]
    """Name of the edit, or ``distinct``."""
    grade: NDArray[np.intp]
    """0 mild, 1 medium, 2 strong; -1 for distinct pairs."""
    picture: NDArray[np.intp]
    """Which picture the pair is about: pairs of one picture are not independent."""
    other: NDArray[np.intp]
    """The other picture of a distinct pair; the same one where the pair is positive."""
    far_distinct: int = 0
    """Distinct pairs beyond every epsilon of interest, counted and not kept."""

    @property
    def positives(self) -> int:
        """Number of positive pairs."""
        return int(self.positive.sum())

    @property
    def distinct(self) -> int:
        """Number of distinct pairs, near and far."""
        return len(self.distance) - self.positives + self.far_distinct

    def of_pictures(self, pictures: set[int]) -> "LabeledPairs":
        """The pairs with one of ``pictures`` on either side; far distinct pairs are left out."""
        of = sorted(pictures)
        chosen = np.isin(self.picture, of) | np.isin(self.other, of)
        return LabeledPairs(
            self.distance[chosen],
            self.agrees[chosen],
            self.positive[chosen],
            tuple(kind for kind, keep in zip(self.kind, chosen, strict=True) if keep),
            self.grade[chosen],
            self.picture[chosen],
            self.other[chosen],
        )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one epsilon does. Intervals are 95 % Wilson."""

    epsilon: float
    found: int
    """Positive pairs called duplicates."""
    wrong: int
    """Distinct pairs called duplicates."""
    precision: float
    precision_interval: tuple[float, float]
    recall: float
    recall_interval: tuple[float, float]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share. (0, 1) without trials.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; sound at 0 and 1, where the usual
    interval has no width.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    center = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    half /= 1 + Z * Z / trials
    low = center - half if successes else 0.0  # exact at the ends, where rounding would show
    high = center + half if successes < trials else 1.0
    return low, high


def curve(pairs: LabeledPairs, epsilons: Sequence[float], *, second_look: bool) -> list[CurvePoint]:
    """Precision and recall at each epsilon, with or without the second look."""
    called = pairs.agrees if second_look else np.ones(len(pairs.distance), np.bool_)
    found = np.sort(pairs.distance[called & pairs.positive])
    wrong = np.sort(pairs.distance[called & ~pairs.positive])
    return [
        _point(
            epsilon,
            found=int(np.searchsorted(found, epsilon, side="right")),
            wrong=int(np.searchsorted(wrong, epsilon, side="right")),
            positives=pairs.positives,
        )
        for epsilon in epsilons
    ]


def _point(epsilon: float, *, found: int, wrong: int, positives: int) -> CurvePoint:
    called = found + wrong
    return CurvePoint(
        epsilon=float(epsilon),
        found=found,
        wrong=wrong,
        precision=found / called if called else 1.0,
        precision_interval=wilson(found, called),
        recall=found / positives if positives else 0.0,
        recall_interval=wilson(found, positives),
    )


def propose(points: Sequence[CurvePoint], *, precision: float, recall: float) -> CurvePoint | None:
    """The smallest epsilon that reaches the precision asked for (with the lower end of its
    interval) and the recall asked for. Smallest: a wider epsilon only costs comparisons and trust.
    If no epsilon reaches the recall, the one with the most recall among those that reach the
    precision; None if no epsilon reaches the precision.
    """
    sure = [point for point in points if point.precision_interval[0] >= precision]
    enough = [point for point in sure if point.recall >= recall]
    if enough:
        return min(enough, key=lambda point: point.epsilon)
    return max(sure, key=lambda point: (point.recall, -point.epsilon), default=None)


def recall_by_edit(
    pairs: LabeledPairs, epsilon: float, *, second_look: bool
) -> dict[str, list[float | None]]:
    """Edit -> recall at grades mild, medium, strong; None where there is no pair."""
    called = pairs.distance <= epsilon
    if second_look:
        called = called & pairs.agrees
    kinds = np.array(pairs.kind)
    table: dict[str, list[float | None]] = {}
    for kind in dict.fromkeys(pairs.kind):
        of_kind = (kinds == kind) & pairs.positive
        if of_kind.any():
            grades = [of_kind & (pairs.grade == grade) for grade in range(3)]
            table[kind] = [float(called[g].mean()) if g.any() else None for g in grades]
    return table


def bootstrap_recall(
    pairs: LabeledPairs, epsilon: float, *, second_look: bool, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the recall by drawing pictures, not pairs, with replacement."""
    called = pairs.distance <= epsilon
    if second_look:
        called = called & pairs.agrees
    pictures, index = np.unique(pairs.picture[pairs.positive], return_inverse=True)
    if not len(pictures):
        return 0.0, 1.0
    total = np.bincount(index).astype(np.float64)
    found = np.bincount(index, weights=called[pairs.positive].astype(np.float64))
    drawn = np.random.default_rng(seed).integers(0, len(pictures), (rounds, len(pictures)))
    recalls = found[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(recalls, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The epsilon of a collection, and how it was measured."""

    model: str
    weights_sha256: str
    recipe_id: str
    epsilon: float
    second_look: dict[str, float] | None
    calibrated: bool
    """False: a default from practice elsewhere, not measured with these weights."""
    note: str = ""
    noise: float | None = None
    """Largest distance of an image to itself across batch sizes and positions."""
    images: dict[str, int] = field(default_factory=dict)
    """Counts: pictures, positive pairs, distinct pairs."""
    asked: dict[str, float] = field(default_factory=dict)
    """Precision and recall that were asked for."""
    reached: dict[str, Any] | None = None
    """The curve's point at epsilon, and the recall's interval over pictures."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    curve_without_look: list[dict[str, Any]] = field(default_factory=list)
    recall_by_edit: dict[str, list[float | None]] = field(default_factory=dict)
    per_camera: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequences: list[dict[str, Any]] = field(default_factory=list)
    recolored: list[dict[str, Any]] = field(default_factory=list)
    """Share of pictures with turned hues that are taken for copies, by turn."""

    def to_json(self) -> dict[str, Any]:
        """The form that ``from_json`` reads and ``collection create --calibration`` stores."""
        return {"schema": SCHEMA, **asdict(self)}

    def summary(self) -> dict[str, Any]:
        """What a collection stores: everything but the curves."""
        curves = ("curve", "curve_without_look")
        return {name: value for name, value in self.to_json().items() if name not in curves}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValueError when it is not a calibration of this version."""
        if stored.get("schema") != SCHEMA:
            raise ValueError(f"not a calibration: schema is {stored.get('schema')!r}, not {SCHEMA}")
        values = {name: value for name, value in stored.items() if name != "schema"}
        try:
            calibration = cls(**values)
        except TypeError as error:
            raise ValueError(f"not a calibration: {error}") from error
        look, epsilon, noise = calibration.second_look, calibration.epsilon, calibration.noise
        if look is not None and not isinstance(look, dict):
            raise ValueError(f"second_look is a second-look rule or null, not {look!r}")
        if look is not None:
            LookRule.from_json(look)
        if not (_is_number(epsilon) and 0 <= epsilon <= 2):
            raise ValueError(f"epsilon is a cosine distance from 0 to 2, not {epsilon!r}")
        if noise is not None and not (_is_number(noise) and noise >= 0):
            raise ValueError(f"noise of a calibration is a distance or null, not {noise!r}")
        return calibration


def vouches_for(
    calibration: Mapping[str, Any] | None, epsilon: float, second_look: Mapping[str, Any] | None
) -> bool:
    """Whether a stored calibration measured this very epsilon and second look, or those that a
    preset makes of them."""
    if calibration is None:
        return False
    narrow, look = calibration["epsilon"], calibration["second_look"]
    rule = _rule(second_look)
    if narrow == epsilon and _rule(look) == rule:
        return True
    made = [
        presets.apply(name, narrow=narrow, second_look=look, calibrated=True)
        for name in presets.PRESETS
    ]
    plain = None if rule is None else replace(rule, mask=())
    return any((reach, _rule(wide)) == (epsilon, plain) for reach, wide in made)


def noise_warning(epsilon: float, noise: float | None) -> str | None:
    """A warning where epsilon is so small that the embedder's own noise may decide; None where it
    is large enough, or where the noise was not measured. noise: of the model's calibration."""
    if noise is None or exceeds_noise(epsilon, noise):
        return None
    return (
        f"epsilon {epsilon:g} is not {NOISE_MARGIN:g} times the embedder's own noise "
        f"({noise:.2g}): whether a copy is found may depend on the batch that it came in"
    )


def _rule(stored: Mapping[str, Any] | None) -> LookRule | None:
    return None if stored is None else LookRule.from_json(stored)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def exceeds_noise(epsilon: float, noise: float) -> bool:
    """Whether epsilon is at least ten times the embedder's own noise."""
    return epsilon > NOISE_MARGIN * noise
