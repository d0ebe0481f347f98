"""``pixsift calibrate``: measure the epsilon of near-duplicates on your own pictures."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
from pixsift.adapters.models.load import load_embedder
from pixsift.config import ModelSettings
from pixsift.core.calibration import (
    NOISE_MARGIN,
    Calibration,
    CurvePoint,
    LabeledPairs,
    bootstrap_recall,
    curve,
    exceeds_noise,
    propose,
    recall_by_edit,
)
from pixsift.core.calibration_chart import chart
from pixsift.core.second_look import LookRule
from pixsift.errors import RequestError
from pixsift.ports import Embedder, EmbeddingSpace
from pixsift_cli.common import JsonOption, check_writable, no_nan, write_text
from pixsift_cli.progress import progress

EPSILONS = tuple(round(0.005 * step, 3) for step in range(1, 81))
TOLD = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class _Asked:
    precision: float
    recall: float


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Pictures to measure; ``edited`` of them get their edits measured as well."""

    paths: list[Path]
    frames: list[Frame | None]
    cameras: list[str]
    edited: set[int]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(calibrate)


def calibrate(
    *,
    images: Annotated[Path, typer.Option(help="Folder of different pictures, each only once.")],
    sequences: Annotated[
        Path | None, typer.Option(help="Folder of sequences: one folder each, in order of name.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Default: PIXSIFT_MODEL.")] = None,
    precision: Annotated[float, typer.Option(min=0.5, max=0.9999, callback=no_nan)] = 0.99,
    recall: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=no_nan, help="Recall to aim for.")
    ] = 0.93,
    edited: Annotated[int, typer.Option(min=1, help="Pictures to measure edits of.")] = 120,
    sequence_gap: Annotated[
        int, typer.Option(min=1, help="Frames at least so far apart show different things.")
    ] = 200,
    camera_pattern: Annotated[
        str | None, typer.Option(help="Regular expression on the path with a group 'camera'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the calibration here, for 'collection create'.")
    ] = None,
    chart_file: Annotated[
        Path | None, typer.Option("--chart", help="Write the curve here, as SVG.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure precision and recall of near-duplicates against epsilon, and propose one."""
    check_writable(out, chart_file)
    pool = _pool(images, sequences, edited, camera_pattern)
    settings = ModelSettings()
    embedder = load_embedder(
        model or settings.model,
        revision=settings.model_revision,
        device=settings.device,
        max_batch=settings.max_batch,
        weights_sha256=settings.model_weights_sha256 if model is None else "",
    )
    rule = LookRule()
    measured = _measure(embedder, pool)
    pairs = label_pairs(measured, rule, frames=pool.frames, sequence_gap=sequence_gap)
    result = _conclude(embedder.space, pairs, _Asked(precision, recall), pool, rule)
    result = replace(
        result,
        noise=measure_noise(embedder, measured.inputs),
        sequences=burst_report(measured, rule, pool.frames, result.epsilon),
        recolored=recolor_report(measured, rule, result.epsilon),
    )
    if not exceeds_noise(result.epsilon, result.noise or 0.0):
        raise RequestError(
            f"epsilon {result.epsilon} is not {NOISE_MARGIN:g} times the embedder's own noise "
            f"({result.noise:.2g}): ask for more recall, or use float32"
        )
    if out:
        write_text(out, json.dumps(result.to_json(), indent=1) + "\n")
    if chart_file:
        write_text(chart_file, _chart(result, pairs))
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=2))
    else:
        _print(result, pairs)


def _pool(images: Path, sequences: Path | None, edited: int, pattern: str | None) -> _Pool:
    singles = list_pictures(images)
    paths = list(singles)
    frames: list[Frame | None] = [None] * len(paths)
    if sequences is not None:
        found = list_pictures(sequences)
        paths += found
        frames += frames_of(found, sequences)
    step = max(1.0, len(paths) / edited)
    return _Pool(
        paths,
        frames,
        _cameras(paths, pattern),
        {int(i * step) for i in range(min(edited, len(paths)))},
    )


def _cameras(paths: Sequence[Path], pattern: str | None) -> list[str]:
    if pattern is None:
        return [""] * len(paths)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"--camera-pattern: {error}") from error
    if "camera" not in compiled.groupindex:
        raise RequestError("--camera-pattern needs a group: (?P<camera>...)")
    matches = [compiled.search(path.as_posix()) for path in paths]
    return [(match["camera"] or "") if match else "" for match in matches]


def _measure(embedder: Embedder, pool: _Pool) -> Measured:
    total = len(pool.paths) + len(pool.edited) * PER_EDITED
    with (
        DecoderPool(embedder.input_side) as decoder,
        progress("measuring", total=total) as advance,
    ):
        laboratory = Laboratory(embedder, decoder, progress=advance)
        for index, path in enumerate(pool.paths):
            laboratory.add(index, path, edit=index in pool.edited)
        return laboratory.finish()


def _conclude(
    space: EmbeddingSpace, pairs: LabeledPairs, asked: _Asked, pool: _Pool, rule: LookRule
) -> Calibration:
    points = curve(pairs, EPSILONS, second_look=True)
    chosen = propose(points, precision=asked.precision, recall=asked.recall)
    if chosen is None:
        raise RequestError(
            f"no epsilon is sure of precision {asked.precision}: {pairs.positives} positive pairs "
            "may be too few, or the pictures hold copies of each other; ask for less or add images"
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
    pairs: LabeledPairs, cameras: Sequence[str], asked: _Asked
) -> dict[str, dict[str, Any]]:
    """The epsilon that each camera's own pictures would ask for."""
    told: dict[str, dict[str, Any]] = {}
    for camera in sorted(set(cameras) - {""}):
        own = pairs.of_pictures({i for i, name in enumerate(cameras) if name == camera})
        if not own.positives:
            continue
        points = curve(own, EPSILONS, second_look=True)
        chosen = propose(points, precision=asked.precision, recall=asked.recall)
        told[camera] = {"positive_pairs": own.positives} | (
            asdict(chosen) if chosen else {"epsilon": None}
        )
    return told


def _points(stored: Sequence[dict[str, Any]]) -> list[CurvePoint]:
    return [CurvePoint(**point) for point in stored]


def _chart(result: Calibration, pairs: LabeledPairs) -> str:
    return chart(
        f"{result.model}: {pairs.positives:,} edited and {pairs.distinct:,} distinct pairs",
        _points(result.curve),
        _points(result.curve_without_look),
        epsilon=result.epsilon,
    )


def _print(result: Calibration, pairs: LabeledPairs) -> None:
    console = Console()
    console.print(
        f"{result.model}, recipe {result.recipe_id}: {pairs.positives:,} pairs of edits, "
        f"{pairs.distinct:,} distinct pairs; noise {result.noise:.1e}"
    )
    table = Table("epsilon", "alone: precision", "recall", "wrong",
                  "second look: precision", "recall", "wrong", header_style="")  # fmt: skip
    for alone, looked in zip(
        _points(result.curve_without_look), _points(result.curve), strict=True
    ):
        if looked.epsilon in (*TOLD, result.epsilon):
            mark = " *" if looked.epsilon == result.epsilon else ""
            table.add_row(f"{looked.epsilon:.3f}{mark}", *_cells(alone), *_cells(looked))
    console.print(table)
    edits = Table("recall at epsilon, by edit", "mild", "medium", "strong", header_style="")
    for kind, recalls in result.recall_by_edit.items():
        edits.add_row(kind, *("-" if value is None else f"{value:.3f}" for value in recalls))
    console.print(edits)
    for row in result.sequences:
        console.print(
            f"{row['sequence']}: frames {row['gap']} apart ({row['pairs']} pairs): "
            f"{row['duplicates']:.0%} duplicates, median distance {row['median_distance']:.3f}"
        )
    for row in result.recolored:
        console.print(
            f"hues turned by {row['degrees']} degrees ({row['pairs']} pictures): "
            f"{row['duplicates']:.0%} taken for copies, {row['within_epsilon']:.0%} within epsilon"
        )
    for camera, facts in result.per_camera.items():
        console.print(f"camera {camera}: epsilon {facts['epsilon']}")
    console.print(f"proposed epsilon {result.epsilon:.3f}, with the second look")


def _cells(point: CurvePoint) -> tuple[str, str, str]:
    return (
        f"{point.precision:.4f} (>{point.precision_interval[0]:.3f})",
        f"{point.recall:.3f}",
        str(point.wrong),
    )
