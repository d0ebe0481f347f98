"""``pixsift calibrate``: measure the epsilon of near-duplicates on your own pictures."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pixsift.answers.quality import CalibrationFile
from pixsift.core.calibration import Calibration, CurvePoint, LabeledPairs
from pixsift.operations.calibrate import Asked, Pictures
from pixsift.operations.calibrate import calibrate as run
from pixsift.pages.calibration_chart import chart
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, check_writable, emit_json, no_nan, write_text
from pixsift_cli.progress import progress
from pixsift_cli.terminal import console

TOLD = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(calibrate)


def calibrate(
    *,
    images: Annotated[Path, typer.Option(help="Folder of distinct pictures without copies.")],
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
        int, typer.Option(min=1, help="Frames at least this far apart show different scenes.")
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
    result, pairs = run(
        wiring.model(model),
        Pictures(images, sequences, edited, sequence_gap, camera_pattern),
        Asked(precision, recall),
        progress=partial(progress, "measuring"),
    )
    if out:
        write_text(out, json.dumps(result.to_json(), indent=1) + "\n")
    if chart_file:
        write_text(chart_file, _chart(result, pairs))
    if as_json:
        emit_json(CalibrationFile(result.to_json()))
    else:
        _print(result, pairs)


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
    out = console()
    out.print(
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
    out.print(table)
    edits = Table("recall at epsilon, by edit", "mild", "medium", "strong", header_style="")
    for kind, recalls in result.recall_by_edit.items():
        edits.add_row(kind, *("-" if value is None else f"{value:.3f}" for value in recalls))
    out.print(edits)
    for row in result.sequences:
        out.print(
            f"{row['sequence']}: frames {row['gap']} apart ({row['pairs']} pairs): "
            f"{row['duplicates']:.0%} duplicates, median distance {row['median_distance']:.3f}"
        )
    for row in result.recolored:
        out.print(
            f"hues turned by {row['degrees']} degrees ({row['pairs']} pictures): "
            f"{row['duplicates']:.0%} taken for copies, {row['within_epsilon']:.0%} within epsilon"
        )
    for camera, facts in result.per_camera.items():
        out.print(f"camera {camera}: epsilon {facts['epsilon']}")
    out.print(f"proposed epsilon {result.epsilon:.3f}, with the second look")


def _cells(point: CurvePoint) -> tuple[str, str, str]:
    return (
        f"{point.precision:.4f} (>{point.precision_interval[0]:.3f})",
        f"{point.recall:.3f}",
        str(point.wrong),
    )
