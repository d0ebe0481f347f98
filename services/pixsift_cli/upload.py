"""``pixsift upload``: a folder into a bucket; objects that are there already are skipped."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pixsift.answers.images import KeyOutcomes
from pixsift.operations.images import ledger_time, wait_for_outcomes
from pixsift.operations.paths import last_choice
from pixsift.operations.upload import upload as send
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.progress import progress

_WAIT = "for the outcomes: pixsift status, or pixsift upload --wait"
_NEXT = "see them: pixsift images --outcome rejected --html page.html"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(upload)


def upload(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the images.")],
    location: Annotated[str, typer.Argument(metavar="S3URI", help="s3://bucket/prefix")],
    *,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Concurrent uploads.")] = 8,
    selected: Annotated[
        bool, typer.Option("--selected", help="Only what pixsift curate chose last from DIR.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the outcomes and print them.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Maximum wait, seconds.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Upload a folder; after an interruption, run it again to continue."""
    only = _chosen(folder) if selected else None
    if wait:
        with wiring.database() as database:
            since = ledger_time(database)
    done = send(
        wiring.uploads(threads=threads), folder, location, threads=threads,
        own_buckets=(wiring.derived_bucket(), wiring.curated_bucket()), only=only,
        progress=partial(progress, "uploading"),
    )  # fmt: skip
    lines = [f"{done.uploaded} uploaded, {done.skipped} already there, {len(done.failed)} failed"]
    lines += [f"{k}: {v}" for k, v in done.failed.items()]
    if wait:
        with wiring.database() as database:
            became = wait_for_outcomes(
                database, done.bucket, done.uploaded_keys, since=since, timeout_seconds=timeout
            )
        done = done.model_copy(update={"became": became})
        lines += _became(became)
    emit(done, as_json, [*lines, _NEXT if wait else _WAIT])
    if done.failed or (done.became is not None and done.became.undecided):
        raise typer.Exit(1)


def _chosen(folder: Path) -> set[str]:
    with wiring.database(str(folder.resolve())) as database:
        return last_choice(database, folder.resolve())


def _became(found: KeyOutcomes) -> list[str]:
    lines = [f"{count:>7} {_in_words(outcome)}" for outcome, count in found.outcomes.items()]
    if found.ignored:
        lines.append(f"{found.ignored:>7} ignored by every collection's rules")
    if found.undecided:
        lines.append(f"{found.undecided:>7} without an outcome yet: see pixsift status")
    return lines


def _in_words(outcome_and_reason: str) -> str:
    """``duplicate (content)`` as ``duplicate (same bytes)``."""
    outcome, _, reason = outcome_and_reason.removesuffix(")").partition(" (")
    return f"{outcome} ({in_words(reason)})"
