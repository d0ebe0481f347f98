"""``pixsift quality`` for a local folder, ``pixsift cameras`` for a collection's cameras."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pixsift.answers.quality import CameraReport, StuckRun
from pixsift.core.camera_health import CameraHealth, HealthLimits
from pixsift.core.judged_file import JudgedFile
from pixsift.core.quality import QualityPolicy
from pixsift.errors import RequestError
from pixsift.operations import quality as operation
from pixsift.pages.quality import quality_page
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, check_writable, emit_json, no_nan, write_text
from pixsift_cli.quality.report import folder_quality, to_csv
from pixsift_cli.terminal import cell, console

_MOST_ROWS = 50
_EVERY_FORMAT = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(quality)
    app.command()(cameras)


def quality(
    folder: Annotated[Path, typer.Argument(help="Folder of images; searched recursively.")],
    *,
    policy: Annotated[
        str, typer.Option(help='JSON or a file of it, e.g. {"blurred": "reject"}.')
    ] = "",
    csv: Annotated[Path | None, typer.Option(help="Write every metric as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write histograms and examples.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Decoder processes.")] = 2,
    all_formats: Annotated[bool, typer.Option(help="Also BMP, TIFF and GIF.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the images of a local folder and show what a collection's policy would say."""
    rules = read_policy(policy)
    check_writable(csv, html)
    files = operation.measure_folder(
        folder, rules, workers, formats=_EVERY_FORMAT if all_formats else None,
        thumbnails=html is not None,
    )  # fmt: skip
    judged = list(files)
    if csv is not None:
        write_text(csv, to_csv(judged))
    if html is not None:
        write_text(html, quality_page(str(folder), judged, rules))
    if as_json:
        emit_json(folder_quality(judged, rules))
    else:
        _print(judged, rules)


def cameras(
    collection: Annotated[
        str | None, typer.Argument(help="Collection; default: 'default', or the only one.")
    ] = None,
    *,
    by: Annotated[str, typer.Option(help="Attribute that names the camera.")] = "camera",
    since: Annotated[
        datetime | None, typer.Option(help="Only frames captured at or after this time (UTC).")
    ] = None,
    stuck_frames: Annotated[int, typer.Option(min=2, help="Equal frames in a row.")] = 5,
    drift: Annotated[
        float, typer.Option(min=0.0, callback=no_nan, help="Change of brightness, 0 to 1.")
    ] = 0.1,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with status 1 if a camera has a problem.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report frozen cameras and drifting exposure, from the metrics in the ledger."""
    limits = HealthLimits(stuck_frames=stuck_frames, drift=drift)
    with wiring.database() as database:
        found = operation.cameras(database, collection, by=by, since=since, limits=limits)
    if as_json:
        emit_json([_health(health) for health in found])
    else:
        console().print(_health_table(found, by))
    if check and not all(health.healthy for health in found):
        raise typer.Exit(1)


def read_policy(text: str) -> QualityPolicy:
    """A policy from JSON text or the name of a file of it. Raises UserError."""
    if text and not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text("utf-8")
        except OSError as error:
            raise RequestError(f"cannot read policy file {text!r}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"policy file {text!r} is not a text file") from error
    try:
        return QualityPolicy.from_json(text or None)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"quality policy: {error}") from error


def _print(judged: list[JudgedFile], policy: QualityPolicy) -> None:
    facts = folder_quality(judged, policy)
    out = console()
    out.print("  ".join(f"{name} {count}" for name, count in facts.outcomes.items()))
    notable = [row for row in judged if row.outcome != "good"]
    if not notable:
        return
    table = Table("image", "outcome", "checks", "measured")
    for row in notable[:_MOST_ROWS]:
        values = (
            f"{policy.checks[flag].metric} {row.metrics.get(policy.checks[flag].metric, 0):.3g}"
            for flag in row.flags
        )
        what = (
            in_words(row.reason)
            if row.outcome == "refused"
            else ", ".join(map(in_words, row.flags))
        )
        table.add_row(cell(row.name), row.outcome, cell(what), ", ".join(values))
    out.print(table)
    if len(notable) > _MOST_ROWS:
        out.print(f"and {len(notable) - _MOST_ROWS} more; all of them with --csv or --json")


def _health(health: CameraHealth) -> CameraReport:
    return CameraReport(
        camera=health.camera,
        frames=health.frames,
        healthy=health.healthy,
        stuck=[
            StuckRun(first=run.first.uri, last=run.last.uri, frames=run.frames,
                     seconds=run.seconds)
            for run in health.stuck
        ],
        drifts=health.drifts,
        drift=health.drift,
    )  # fmt: skip


def _health_table(found: list[CameraHealth], by: str) -> Table:
    table = Table(by, "frames", "stuck", "brightness", "verdict")
    for health in found:
        stuck = ", ".join(f"{run.frames} frames, {run.seconds:.0f} s" for run in health.stuck[:3])
        drift = f"{health.drift.change:+.3f}" if health.drift else "-"
        verdict = "good" if health.healthy else " and ".join(_ills(health))
        name = cell(health.camera or f"(no {by})")
        table.add_row(name, str(health.frames), stuck or "-", drift, verdict)
    return table


def _ills(health: CameraHealth) -> list[str]:
    stuck = ["stuck"] if health.stuck else []
    return stuck + (["exposure drifts"] if health.drifts else [])
