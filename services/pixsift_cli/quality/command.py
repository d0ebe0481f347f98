"""``pixsift quality`` for a local folder, ``pixsift cameras`` for a collection's cameras."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pixsift.adapters.decode.pool import DecodeLimits, DecoderPool
from pixsift.adapters.ledger.cameras import camera_frames
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.core.camera_health import CameraHealth, HealthLimits, camera_health
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.core.quality import QualityPolicy, judge
from pixsift.errors import RequestError
from pixsift_cli.common import JsonOption, check_writable, emit, no_nan, open_database, write_text
from pixsift_cli.quality.report import Judged, to_csv, to_facts
from pixsift_cli.quality.sheet import quality_sheet

_BATCH_FILES = 64
_BATCH_BYTES = 64 * 2**20
_MOST_ROWS = 50
_EVERY_FORMAT = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(quality)
    app.command()(cameras)


def quality(
    folder: Annotated[Path, typer.Argument(help="Folder of images; looked through recursively.")],
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
    limits = DecodeLimits(formats=_EVERY_FORMAT) if all_formats else DecodeLimits()
    check_writable(csv, html)
    judged = list(judge_folder(folder, rules, limits, workers, thumbnails=html is not None))
    if csv is not None:
        write_text(csv, to_csv(judged))
    if html is not None:
        write_text(html, quality_sheet(str(folder), judged, rules))
    if as_json:
        emit(to_facts(judged, rules), True, "")
    else:
        _print(judged, rules)


def cameras(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    *,
    by: Annotated[str, typer.Option(help="Attribute that names the camera.")] = "camera",
    since: Annotated[
        datetime | None, typer.Option(help="Only frames captured from then on (UTC).")
    ] = None,
    stuck_frames: Annotated[int, typer.Option(min=2, help="Equal frames in a row.")] = 5,
    drift: Annotated[
        float, typer.Option(min=0.0, callback=no_nan, help="Change of brightness, 0 to 1.")
    ] = 0.1,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if a camera is ill.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell frozen cameras and drifting exposure from what the ledger already knows."""
    with open_database() as database:
        Ledger(database).collection(collection)
        frames = camera_frames(database, collection, by, since=since)
    found = camera_health(frames, HealthLimits(stuck_frames=stuck_frames, drift=drift))
    if as_json:
        emit([_health_facts(health) for health in found], True, "")
    else:
        Console().print(_health_table(found, by))
    if check and not all(health.healthy for health in found):
        raise typer.Exit(1)


def read_policy(text: str) -> QualityPolicy:
    """A policy from JSON text or the name of a file of it. Raises UserError."""
    if text and not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text("utf-8")
        except OSError as error:
            raise RequestError(f"no policy file {text!r}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"policy file {text!r} is no text") from error
    try:
        return QualityPolicy.from_json(text or None)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"quality policy: {error}") from error


def judge_folder(
    folder: Path,
    policy: QualityPolicy,
    limits: DecodeLimits,
    workers: int = 2,
    *,
    thumbnails: bool = False,
) -> Iterator[Judged]:
    """Every file below ``folder``, in order of name. Raises UserError when there is none.

    thumbnails: keep them, some 10 kB each; else a folder of any size fits into memory.
    """
    paths = image_files(folder)
    with DecoderPool(224, workers=workers, limits=limits) as pool:
        for batch in _batches(paths):
            found = [_read(path, limits.max_bytes) for path in batch]
            results = iter(pool.decode([blob for blob in found if isinstance(blob, bytes)]))
            for path, blob in zip(batch, found, strict=True):
                name = path.relative_to(folder).as_posix()
                row = _judged(name, next(results) if isinstance(blob, bytes) else blob, policy)
                yield row if thumbnails else replace(row, thumbnail_webp=b"")


def image_files(folder: Path) -> list[Path]:
    """Files below ``folder`` but hidden ones. Raises UserError when there is none."""
    if not folder.is_dir():
        raise RequestError(f"{str(folder)!r} is no folder")
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    if not paths:
        raise RequestError(f"{str(folder)!r} holds no files")
    return paths


def _batches(paths: list[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    weight = 0
    for path in paths:
        size = _size(path)
        if batch and (len(batch) == _BATCH_FILES or weight + size > _BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(path)
        weight += size
    if batch:
        yield batch


def _read(path: Path, most: int) -> bytes | DecodeFailure:
    """The file's bytes, unless it is too large to be an image (a film, say) or cannot be read."""
    if _size(path) > most:
        return DecodeFailure("too_many_bytes", f"at most {most}")
    try:
        return path.read_bytes()
    except OSError as error:
        return DecodeFailure("unreadable", error.strerror or "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone since it was listed
        return 0


def _printable(name: str) -> str:
    """Without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _judged(name: str, result: DecodedImage | DecodeFailure, policy: QualityPolicy) -> Judged:
    if isinstance(result, DecodeFailure):
        return Judged(name, "refused", result.reason, (), {}, None, b"")
    verdict = judge(result.quality, result.facts, policy)
    outcome = "rejected" if verdict.rejected_reason else "flagged" if verdict.flags else "good"
    return Judged(
        name, outcome, verdict.rejected_reason or "", verdict.flags, result.quality,
        result.facts, result.thumbnail_webp,
    )  # fmt: skip


def _print(judged: list[Judged], policy: QualityPolicy) -> None:
    facts = to_facts(judged, policy)
    console = Console()
    console.print("  ".join(f"{name} {count}" for name, count in facts["outcomes"].items()))
    notable = [row for row in judged if row.outcome != "good"]
    if not notable:
        return
    table = Table("image", "outcome", "checks", "measured")
    for row in notable[:_MOST_ROWS]:
        values = (
            f"{policy.checks[flag].metric} {row.metrics.get(policy.checks[flag].metric, 0):.3g}"
            for flag in row.flags
        )
        what = row.reason if row.outcome == "refused" else ", ".join(row.flags)
        table.add_row(Text(_printable(row.name)), row.outcome, Text(what), ", ".join(values))
    console.print(table)
    if len(notable) > _MOST_ROWS:
        console.print(f"and {len(notable) - _MOST_ROWS} more; all of them with --csv or --json")


def _health_facts(health: CameraHealth) -> dict[str, Any]:
    drift = health.drift
    return {
        "camera": health.camera,
        "frames": health.frames,
        "healthy": health.healthy,
        "stuck": [
            {"first": run.first.uri, "last": run.last.uri, "frames": run.frames,
             "seconds": run.seconds}
            for run in health.stuck
        ],
        "drifts": health.drifts,
        "drift": drift and {"change": drift.change, "per_hour": drift.per_hour,
                            "scatter": drift.scatter},
    }  # fmt: skip


def _health_table(found: list[CameraHealth], by: str) -> Table:
    table = Table(by, "frames", "stuck", "brightness", "verdict")
    for health in found:
        stuck = ", ".join(f"{run.frames} frames, {run.seconds:.0f} s" for run in health.stuck[:3])
        drift = f"{health.drift.change:+.3f}" if health.drift else "-"
        verdict = "good" if health.healthy else " and ".join(_ills(health))
        name = Text(_printable(health.camera) or f"(no {by})")
        table.add_row(name, str(health.frames), stuck or "-", drift, verdict)
    return table


def _ills(health: CameraHealth) -> list[str]:
    stuck = ["stuck"] if health.stuck else []
    return stuck + (["exposure drifts"] if health.drifts else [])
