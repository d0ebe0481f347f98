"""Measures near-duplicates on the user's pictures, and proposes an epsilon."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pixsift.adapters.calibration.labeled_pairs import (
    PER_EDITED,
    Frame,
    Laboratory,
    Measured,
    burst_report,
    frames_of,
    label_pairs,
    list_pictures,
    measure_noise,
    recolor_report,
)
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.core.calibration import (
    NOISE_MARGIN,
    Calibration,
    LabeledPairs,
    bootstrap_recall,
    curve,
    exceeds_noise,
    propose,
    recall_by_edit,
)
from pixsift.core.second_look import LookRule
from pixsift.errors import RequestError
from pixsift.operations.embedder import ModelChoice, load
from pixsift.ports import CountProgress, Embedder, EmbeddingSpace

EPSILONS = tuple(round(0.005 * step, 3) for step in range(1, 81))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the threshold should reach."""

    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is measured."""

    images: Path
    """Folder of distinct pictures without copies."""
    sequences: Path | None = None
    """Folder of sequences: one folder each, in order of name."""
    edited: int = 120
    """How many pictures to measure edits of."""
    sequence_gap: int = 200
    """Frames at least this far apart show different scenes."""
    camera_pattern: str | None = None
    """Regular expression on the path with a group ``camera``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Pictures to measure; ``edited`` of them get their edits measured as well."""

    paths: list[Path]
    frames: list[Frame | None]
    cameras: list[str]
    edited: set[int]


def calibrate(
    model: ModelChoice,
    pictures: Pictures,
    asked: Asked,
    *,
    progress: CountProgress = lambda total: nullcontext(lambda count: None),
) -> tuple[Calibration, LabeledPairs]:
    """The calibration of a model on these pictures, and the pairs it was measured on.

    Raises RequestError when no epsilon reaches what was asked for, or only one too near to the
    embedder's own noise.
    """
    pool = _pool(pictures)
    embedder = load(model)
    rule = LookRule.without_change()  # the narrow epsilon; a preset adds the test for change
    measured = _measure(embedder, pool, progress)
    pairs = label_pairs(measured, rule, frames=pool.frames, sequence_gap=pictures.sequence_gap)
    result = _conclude(embedder.space, pairs, asked, pool, rule)
    result = replace(
        result,
        noise=measure_noise(embedder, measured.inputs),
        sequences=burst_report(measured, rule, pool.frames, result.epsilon),
        recolored=recolor_report(measured, rule, result.epsilon),
    )
    if not exceeds_noise(result.epsilon, result.noise or 0.0):
        raise RequestError(
            f"epsilon {result.epsilon} is not {NOISE_MARGIN:g} times the embedder's own noise "
            f"({result.noise:.2g}): raise the recall, or use float32"
        )
    return result, pairs


def _pool(pictures: Pictures) -> _Pool:
    paths = list(list_pictures(pictures.images))
    frames: list[Frame | None] = [None] * len(paths)
    if pictures.sequences is not None:
        found = list_pictures(pictures.sequences)
        paths += found
        frames += frames_of(found, pictures.sequences)
    step = max(1.0, len(paths) / pictures.edited)
    return _Pool(
        paths,
        frames,
        _cameras(paths, pictures.camera_pattern),
        {int(i * step) for i in range(min(pictures.edited, len(paths)))},
    )


def _cameras(paths: Sequence[Path], pattern: str | None) -> list[str]:
    if pattern is None:
        return [""] * len(paths)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"camera pattern: {error}") from error
    if "camera" not in compiled.groupindex:
        raise RequestError("the camera pattern needs a group: (?P<camera>...)")
    matches = [compiled.search(path.as_posix()) for path in paths]
    return [(match["camera"] or "") if match else "" for match in matches]


def _measure(embedder: Embedder, pool: _Pool, progress: CountProgress) -> Measured:
    total = len(pool.paths) + len(pool.edited) * PER_EDITED
    with (
        DecoderPool(embedder.input_side) as decoder,
        progress(total) as advance,
    ):
        laboratory = Laboratory(embedder, decoder, progress=advance)
        for index, path in enumerate(pool.paths):
            laboratory.add(index, path, edit=index in pool.edited)
        return laboratory.finish()


def _conclude(
    space: EmbeddingSpace, pairs: LabeledPairs, asked: Asked, pool: _Pool, rule: LookRule
) -> Calibration:
    points = curve(pairs, EPSILONS, second_look=True)
    chosen = propose(points, precision=asked.precision, recall=asked.recall)
    if chosen is None:
        raise RequestError(
            f"no epsilon is sure of precision {asked.precision}: {pairs.positives} positive pairs "
            "may be too few, or the pictures may include copies; lower the precision, "
            "or add images"
        )
    interval = bootstrap_recall(pairs, chosen.epsilon, second_look=True)
    return Calibration(
        model=space.model,
        weights_sha256=space.weights_sha256,
        recipe_id=space.recipe_id,
        epsilon=chosen.epsilon,
        second_look=rule.to_json(),
        calibrated=True,
        images={
            "pictures": len(pool.paths),
            "edited": len(pool.edited),
            "positive_pairs": pairs.positives,
            "distinct_pairs": pairs.distinct,
        },
        asked=asdict(asked),
        reached=asdict(chosen) | {"recall_interval_over_pictures": interval},
        curve=[asdict(point) for point in points],
        curve_without_look=[asdict(p) for p in curve(pairs, EPSILONS, second_look=False)],
        recall_by_edit=recall_by_edit(pairs, chosen.epsilon, second_look=True),
        per_camera=_per_camera(pairs, pool.cameras, asked),
    )


def _per_camera(
    pairs: LabeledPairs, cameras: Sequence[str], asked: Asked
) -> dict[str, dict[str, Any]]:
    """The epsilon for each camera's own pictures."""
    by_camera: dict[str, dict[str, Any]] = {}
    for camera in sorted(set(cameras) - {""}):
        own = pairs.of_pictures({i for i, name in enumerate(cameras) if name == camera})
        if not own.positives:
            continue
        points = curve(own, EPSILONS, second_look=True)
        chosen = propose(points, precision=asked.precision, recall=asked.recall)
        by_camera[camera] = {"positive_pairs": own.positives} | (
            asdict(chosen) if chosen else {"epsilon": None}
        )
    return by_camera
