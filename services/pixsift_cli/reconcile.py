"""``pixsift reconcile`` and ``pixsift backfill s3://...``: find what the queue never delivered."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pixsift.core.reconcile import Differences
from pixsift.operations.reconcile import ReportDifferences, Send
from pixsift.operations.reconcile import backfill as fill
from pixsift.operations.reconcile import reconcile as run
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit, no_nan, s3_uri
from pixsift_cli.terminal import say, status_line

OnlyOne = Annotated[
    str | None, typer.Option("--collection", help="Only for this collection; default: all.")
]
_CENTURY_MINUTES = 52_560_000
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only report; send nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(reconcile)
    app.command()(backfill)


def reconcile(
    *,
    collection: OnlyOne = None,
    older_than: Annotated[
        float,
        typer.Option(
            min=0,
            max=_CENTURY_MINUTES,
            callback=no_nan,
            help="Skip versions younger than this many minutes.",
        ),
    ] = 15.0,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the sources with the ledger; send missing and deleted objects to the queue.

    Exit status 1 when something differed: a schedule can alarm on it.
    """
    age = datetime.now(UTC) - timedelta(minutes=older_than)
    with wiring.database() as database, _shown() as progress:
        results = run(
            database, wiring.s3_objects(), _sender(dry_run),
            collection=collection, older_than=age, progress=progress,
        )  # fmt: skip
    by_source = results.root
    lines = [line for uri, found in by_source.items() for line in _text(uri, found, dry_run)]
    emit(results, as_json, lines or "no sources")
    if any(found.missing or found.gone for found in by_source.values()):
        raise typer.Exit(1)


def backfill(
    uri: Annotated[str, typer.Argument(help="s3://bucket/prefix with existing images.")],
    *,
    collection: OnlyOne = None,
    after: Annotated[
        str, typer.Option(help="Continue after this key, as printed by an interrupted run.")
    ] = "",
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Send the existing objects of a bucket to the queue, many keys per message.

    Versions with an outcome are not sent, and the consumer asks again before it fetches: running
    this twice, or during live uploads, does not repeat work.
    """
    wanted = s3_uri(uri)
    so_far = Differences(last_key=after)
    with wiring.database() as database, _shown() as show:

        def progress(found: Differences) -> None:
            nonlocal so_far
            so_far = found
            show(found)

        try:
            found = fill(
                database, wiring.s3_objects(), _sender(dry_run), wanted,
                collection=collection, after=after, progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            say(f"interrupted; to continue, add: --after '{so_far.last_key}'", err=True)
            raise typer.Exit(130) from None
    emit(found, as_json, _text(uri, found.root, dry_run))


def _sender(dry_run: bool) -> Send | None:
    return None if dry_run else wiring.send_to_ingest()


@contextmanager
def _shown() -> Iterator[ReportDifferences]:
    """A line on stderr where that is a terminal."""
    with status_line("listing") as tell:
        yield lambda found: tell(
            f"{found.listed} listed, {found.missing} missing: {found.last_key}"
        )


def _text(uri: str, found: Differences, dry_run: bool) -> list[str]:
    verb = "would be sent" if dry_run else "sent"
    lines = [
        f"{uri}: {found.listed} versions at S3; {found.settled} settled, {found.missing} never "
        f"arrived, {found.gone} gone at S3, {found.too_new} too new to judge, "
        f"{found.ignored} ignored",
        f"  {found.missing + found.gone} {verb}" + (
            "" if dry_run else f" in {found.messages} messages"),
    ]  # fmt: skip
    return lines + [f"  {example}" for example in found.examples]
