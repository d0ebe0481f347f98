"""``pixsift curate DIR``: judges a folder of pictures and chooses the best of them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixsift import curation
from pixsift.answers.local import FolderReport, OutcomeOfFiles
from pixsift.operations.curate import (
    Curated,
    Tools,
    Wishes,
    facts,
    outcome_lines,
    source_folder,
)
from pixsift.operations.folder_output import default_output
from pixsift.operations.judge_folder import FolderTally
from pixsift.worker import StopSignal
from pixsift_cli import wiring
from pixsift_cli.choosing.options import attribute_conditions, shares
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.terminal import console as make_console
from pixsift_cli.terminal import say

_SECONDS_BETWEEN_LINES = 5.0
_STOP_SECONDS = 30.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(curate)


def curate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the images.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report, manifest and links; default: DIR-curated."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="Number of images to choose.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="auto, typical, balanced, mixed, k_center, farthest, random or all."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="What counts as a change: moving_camera (default), static_camera or photos."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Choose only where attribute=value; may be repeated (folder=2024/may)."),
    ] = None,
    flagged: Annotated[
        Literal["exclude", "include", "only"],
        typer.Option(help="Whether images that a quality check flagged may be chosen."),
    ] = "exclude",
    split: Annotated[
        str | None, typer.Option(help="Shares of train, val and test, as 0.8,0.1,0.1.")
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(help="Attribute whose values must stay in one split.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the selection.")] = 0,
    link: Annotated[
        Literal["hard", "copy", "symbolic"],
        typer.Option(help="How the chosen get into the output: hard, copy or symbolic."),
    ] = "hard",
    key_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression for paths; its named groups become attributes."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder of the ledger; default: the user's data folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a folder of images, choose the best, write a report; originals stay as they are."""
    started = time.monotonic()
    folder = source_folder(folder)
    wishes = Wishes(
        out=out or default_output(folder),
        select=curation.select_of(k=k, strategy=strategy, seed=seed, split=split),
        where={"attributes": attribute_conditions(where), "flagged": flagged},
        split={**shares(split), "group_by": group_by or []},
        preset=preset,
        key_pattern=key_pattern,
        link=link,
    )
    with _shown() as shown, StopSignal(limit_seconds=_STOP_SECONDS) as stop:
        tools = Tools(
            model=wiring.model(),
            logger=curation.quiet_logger(),
            say=shown.say,
            progress=shown.progress,
            next_steps=_next_steps,
        )
        result = curation.run(folder, wiring.folder_ledger(ledger), wishes, tools, stop)
    seconds = time.monotonic() - started
    emit(_report(result, seconds), as_json, _lines(result, seconds))
    if result.tally.stopped:
        raise typer.Exit(130)
    if result.tally.undecided or result.changed:
        raise typer.Exit(1)


def _lines(result: Curated, seconds: float) -> list[str]:
    if result.tally.stopped:
        return ["stopped; what was judged is kept: run the same command again to go on"]
    lines = facts(result)
    lines += ["", *_table(outcome_lines(result.counts))]
    if result.counts.flags:
        flags = ", ".join(
            f"{count:,} {name.replace('_', ' ')}"
            for name, count in result.counts.flags.most_common(6)
        )
        lines.append(f"flagged: {flags}")
    lines += ["", f"{seconds:.0f} s"]
    if result.page is not None and result.out is not None:
        lines += [f"report    {result.page}", f"manifest  {result.out / 'manifest.parquet'}, .csv"]
        if result.chosen:
            lines.append(f"chosen    {result.out / 'data'}")
    return lines


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    shown = [("outcome", "why", "images"), *rows]
    first, second, third = (max(len(row[at]) for row in shown) for at in range(3))
    return [f"{a:<{first}}  {b:<{second}}  {c:>{third}}" for a, b, c in shown]


def _report(result: Curated, seconds: float) -> FolderReport:
    tally = result.tally
    return FolderReport(
        folder=str(result.folder), collection=result.collection, ledger=str(result.ledger),
        seconds=round(seconds, 3), stopped=tally.stopped, files=tally.total, judged=tally.judged,
        unchanged=tally.unchanged, ignored=tally.ignored, removed=tally.removed,
        undecided=tally.undecided, unreadable_folders=tally.walked.unreadable,
        outcomes=[
            OutcomeOfFiles(outcome=outcome, reason=reason, images=count)
            for (outcome, reason), count in sorted(result.counts.outcomes.items())
        ],
        flags=dict(result.counts.flags), snapshot_id=result.snapshot_id,
        chosen=len(result.chosen), changed=result.changed,
        out=str(result.out) if result.out else None,
        report=str(result.page) if result.page else None,
    )  # fmt: skip


def _next_steps(folder: Path) -> Sequence[str]:
    return (
        f"Why is a picture in or out? pixsift explain {folder}/... tells its whole story.",
        f"Choose 500 that cover it all, as a dataset to train on: pixsift curate {folder} -k 500",
        "Pictures that arrive in S3 by the minute, from many cameras? The event-driven service "
        "makes the same decisions on arrival: pixsift demo shows it on this machine, "
        "docs/deploy.md deploys it, and pixsift upload sends this folder to its bucket.",
    )


@contextmanager
def _shown() -> Iterator["_Shown"]:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    console = make_console(err=True)
    if not console.is_terminal:
        yield _Shown(None)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}", markup=False), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Shown(bar)


class _Shown:
    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, rate="") if bar else None
        self._began = self._last = time.monotonic()

    def say(self, step: str) -> None:
        """The step that begins now."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=step)
        else:
            self._line(step)
        self._began = self._last = time.monotonic()

    def progress(self, tally: FolderTally) -> None:
        """The progress of the judging."""
        now = time.monotonic()
        worked = tally.judged + tally.removed
        rate = worked / max(now - self._began, 1e-3)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=tally.total, completed=tally.done,
                             rate=f"{rate:.0f} images/s" if worked else "")  # fmt: skip
        elif now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            left = (tally.total - tally.done) / rate if worked else 0.0
            self._line(
                f"{tally.done:,} of {tally.total:,} files, {rate:.0f} images/s, {left:.0f} s left"
            )

    def _line(self, text: str) -> None:
        say(text, err=True)
