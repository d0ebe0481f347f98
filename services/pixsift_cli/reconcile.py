"""``pixsift reconcile`` and ``pixsift backfill s3://...``: what the queue never told us."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.config import QueueSettings
from pixsift.core.collection import Collection
from pixsift.core.reconcile import Comparison, Differences
from pixsift.errors import NotFoundError, Remedy
from pixsift.operations.reconcile import Progress, Reconciler, Send
from pixsift_cli.common import JsonOption, emit, no_nan, open_database, printable, s3_uri

OnlyOne = Annotated[
    str | None, typer.Option("--collection", help="Only for this collection; default: all.")
]
_CENTURY_MINUTES = 52_560_000
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count; send nothing.")]


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
            help="Leave versions younger than this many minutes alone.",
        ),
    ] = 15.0,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the sources with the ledger; send what never arrived, or is gone, to the queue.

    Exit status 1 when something differed: a schedule can alarm on it.
    """
    age = datetime.now(UTC) - timedelta(minutes=older_than)
    with open_database() as database:
        collections = _collections(Ledger(database), collection)
        reconciler = Reconciler(database, S3Objects(), _sender(dry_run))
        results = {}
        for bucket, prefix in _scopes(collections):
            comparison = Comparison(collections, bucket, older_than=age)
            with _told() as progress:
                results[f"s3://{bucket}/{prefix}"] = reconciler.run(
                    comparison, prefix, progress=progress
                )
    text = "\n".join(_text(uri, found, dry_run) for uri, found in results.items())
    emit({uri: asdict(found) for uri, found in results.items()}, as_json, text or "no sources")
    if any(found.missing or found.gone for found in results.values()):
        raise typer.Exit(1)


def backfill(
    uri: Annotated[str, typer.Argument(help="s3://bucket/prefix that holds images already.")],
    *,
    collection: OnlyOne = None,
    after: Annotated[
        str, typer.Option(help="Go on behind this key, as an interrupted run told.")
    ] = "",
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Send an existing bucket through the queue, many keys per message.

    Versions with an outcome are not sent, and the consumer asks again before it fetches: running
    this twice, or beside live uploads, does no work twice.
    """
    wanted = s3_uri(uri)
    with open_database() as database:
        collections = _collections(Ledger(database), collection)
        if not any(_overlaps(c, wanted.bucket, wanted.key) for c in collections):
            raise NotFoundError(
                f"no collection judges {uri}",
                code="no_collection", remedy=Remedy("create_collection", {"source": uri}),
            )  # fmt: skip
        comparison = Comparison(collections, wanted.bucket, removals=False)
        reconciler = Reconciler(database, S3Objects(), _sender(dry_run))
        try:
            with _told() as progress:
                found = reconciler.run(comparison, wanted.key, after=after, progress=progress)
        except KeyboardInterrupt:
            found = comparison.found
            typer.echo(f"interrupted; go on with: --after '{printable(found.last_key)}'", err=True)
            raise typer.Exit(130) from None
    emit(asdict(found), as_json, _text(uri, found, dry_run))


def _collections(ledger: Ledger, name: str | None) -> list[Collection]:
    found = [ledger.collection(name)] if name else ledger.collections()
    if not found:
        raise NotFoundError(
            "no collections yet",
            code="no_collection", remedy=Remedy("create_collection", {"source": "s3://bucket/"}),
        )  # fmt: skip
    return found


def _scopes(collections: Sequence[Collection]) -> list[tuple[str, str]]:
    """Buckets and prefixes to list; one that lies inside another is not listed twice."""
    every = {(rule.bucket, rule.prefix) for c in collections for rule in c.sources}
    return sorted(
        (bucket, prefix)
        for bucket, prefix in every
        if not any(
            b == bucket and p != prefix and prefix.startswith(p) for b, p in every
        )
    )  # fmt: skip


def _overlaps(collection: Collection, bucket: str, prefix: str) -> bool:
    return any(
        rule.bucket == bucket and (rule.prefix.startswith(prefix) or prefix.startswith(rule.prefix))
        for rule in collection.sources
    )


def _sender(dry_run: bool) -> Send | None:
    return None if dry_run else SqsQueue(QueueSettings().ingest_queue).send


@contextmanager
def _told() -> Iterator[Progress]:
    """A line on stderr where that is a terminal."""
    console = Console(stderr=True)
    with Status("listing", console=console) as line:

        def tell(found: Differences) -> None:
            if console.is_terminal:
                line.update(f"{found.listed} listed, {found.missing} missing: {found.last_key}")

        yield tell


def _text(uri: str, found: Differences, dry_run: bool) -> str:
    verb = "would be sent" if dry_run else "sent"
    lines = [
        f"{uri}: {found.listed} versions at S3; {found.settled} settled, {found.missing} never "
        f"arrived, {found.gone} gone at S3, {found.too_new} too new to tell, "
        f"{found.ignored} ignored",
        f"  {found.missing + found.gone} {verb}" + (
            "" if dry_run else f" in {found.messages} messages"),
    ]  # fmt: skip
    return "\n".join(lines + [f"  {example}" for example in found.examples])
