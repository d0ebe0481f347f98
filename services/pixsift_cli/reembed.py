"""``pixsift reembed``: another model or decode recipe for a collection."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixsift.answers.decisions import ModelComparison, ReembedEstimate
from pixsift.errors import RequestError
from pixsift.operations import reembed as operation
from pixsift.operations.compare_models import compare_models, pictures_of
from pixsift.operations.embedder import load
from pixsift.operations.reembed import Parts, Wanted, check_recipe
from pixsift.operations.retrieve import only_collection
from pixsift.pages.models import models_page
from pixsift_cli import wiring
from pixsift_cli.collection import read_calibration
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.generations import Name, TakeOver, switched_text
from pixsift_cli.terminal import confirm, console, say

_SECONDS_BETWEEN_LINES = 5.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(reembed)


def reembed(
    name: Name = None,
    *,
    model: Annotated[
        str | None, typer.Option(help="The new model; default: that of PIXSIFT_MODEL.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="The decode recipe that this release must have, such as px2."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="static_camera, moving_camera or photos; default: the present one."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Cosine distance; default: the preset's.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File that 'pixsift calibrate' wrote for the new model.")
    ] = None,
    wait_seconds: Annotated[
        float,
        typer.Option(min=0, help="How long the switch may wait for arrivals that are undecided."),
    ] = 600.0,
    fetch_threads: Annotated[
        int, typer.Option(min=1, max=256, help="Objects fetched at the same time.")
    ] = 8,
    decode_workers: Annotated[int, typer.Option(min=1, max=64, help="Decoder processes.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what it would take.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Embed and judge next to what is in use, say what differs, and do not switch.",
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="Of --compare: also write an HTML page with pictures to this file."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    take_over: TakeOver = False,
    as_json: JsonOption = False,
) -> None:
    """Embed and judge all images again with another model or recipe, and switch to the result.

    Consumers continue to decide. After an interruption, run it again to continue.
    """
    if page is not None and not compare:
        raise RequestError("--page needs --compare")
    embedder = load(wiring.model(model))
    check_recipe(embedder.space, recipe)
    measured = None if calibration is None else read_calibration(calibration)
    wanted = Wanted(preset, epsilon, measured)
    with (
        wiring.database() as database,
        wiring.decoder(embedder.input_side, workers=decode_workers) as decoder,
    ):
        name = only_collection(database, name).name
        objects = wiring.s3_objects(connections=fetch_threads + 4)
        parts = Parts(database, objects, decoder, embedder, fetch_threads)
        found = operation.estimate(parts, name, wanted)
        if dry_run:
            emit(found, as_json, estimate_text(found))
            return
        say(estimate_text(found), err=True)
        if not yes and not confirm("Start?"):
            raise RequestError("Cancelled: nothing was changed", code="cancelled")
        wiring.meet_journal(database)
        if compare:
            with _progress() as report:
                told = compare_models(
                    parts, name, wanted, take_over=take_over, progress=report, actor=wiring.ACTOR
                )
            if page is not None:
                pictures = pictures_of(parts, wiring.derived_bucket(), told)
                _write(page, models_page(told, pictures))
            emit(told, as_json, comparison_text(told))
            return
        with _progress() as report:
            done = operation.reembed(
                parts, name, wanted, patience_seconds=wait_seconds, take_over=take_over,
                progress=report, actor=wiring.ACTOR,
            )  # fmt: skip
    emit(done, as_json, switched_text(done))


def comparison_text(found: ModelComparison) -> list[str]:
    """What another model would decide otherwise, for people."""
    now, other = found.now, found.other
    lines = [
        f"{found.collection} at seq {found.at_seq}, {now.model} -> {other.model} (not switched):",
        f"  kept        {now.kept} -> {other.kept}",
        f"  duplicates  {now.duplicate} -> {other.duplicate}",
        f"  {found.newly_duplicate} kept ones would become duplicates, {found.newly_kept} "
        f"duplicates would be kept, {found.otherwise} would differ otherwise",
        f"  {found.other_representative} would be duplicates of another image",
    ]
    if not other.calibrated:
        lines.append(
            "  warning     the rule was not calibrated with this model; pixsift calibrate does that"
        )
    return [*lines, f"To switch: pixsift reembed {found.collection} --model {other.model}"]


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}") from error
    say(f"the page is in {path}", err=True)


def estimate_text(found: ReembedEstimate) -> list[str]:
    """The estimate of a run, for people."""
    rule = found.preset or "a rule of its own"
    lines = [
        f"{found.collection}: space {found.space_id} -> {found.to_space_id} "
        f"({found.model}, {found.recipe_id})",
        f"  to embed    {found.objects} objects",
        f"  to fetch    {found.fetches} GET requests, {_size(found.bytes)}, "
        f"${found.request_dollars:.2f} for the requests",
        f"  time        {_duration(found.seconds)}"
        + (f", measured on {found.measured_on} of them" if found.measured_on else ""),
        f"  rule        {rule}, epsilon {found.epsilon:g}",
    ]
    if not found.calibrated:
        lines.append(
            "  warning     the rule was not calibrated with this model; pixsift calibrate does that"
        )
    if found.forgotten:
        lines.append(
            f"  warning     {found.forgotten} expired images are only remembered and cannot be "
            "embedded: they stop filtering (undo brings them back)"
        )
    return lines


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "nothing to embed"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 120 else f"about {minutes / 60:.1f} h"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, a line with the rate every five seconds elsewhere."""
    there = console(err=True)
    if not there.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[rate]}", markup=False))  # fmt: skip
    with Progress(*columns, console=there, transient=True) as bar:
        task = bar.add_task("embedding", total=None, rate="")
        started = time.monotonic()

        def report(what: str, done: int, of: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-3)
            speed = f"{rate:.1f} a second" if what == "embedding" else ""
            bar.update(task, description=what, completed=done, total=of, rate=speed)

        yield report


class _Lines:
    """Progress for a log."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        if done < of and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = f", {done / max(now - self._started, 1e-3):.1f} a second"
        say(f"{what}: {done} of {of}{rate if what == 'embedding' else ''}", err=True)
