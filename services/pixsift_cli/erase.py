"""``pixsift erase s3://...``: erases an image permanently."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pixsift.answers.checks import ErasureReport
from pixsift.core.identity import ObjectVersion
from pixsift.errors import RequestError
from pixsift.operations.erase import new_erasure
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit, s3_uri
from pixsift_cli.terminal import confirm, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(erase)


def erase(
    uri: Annotated[str, typer.Argument(help="s3://bucket/key: every version, or ?versionId=...")],
    *,
    source: Annotated[
        bool, typer.Option("--source", help="Delete the versions in the source bucket as well.")
    ] = False,
    only_this: Annotated[
        bool,
        typer.Option(
            "--only-this",
            help="Keep copies under other keys, and allow the same bytes to be uploaded again.",
        ),
    ] = False,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone, e.g. a ticket.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase an image: vector, metrics, thumbnail, copies in snapshots; leave a tombstone.

    Every copy of the image in the ledger goes with it. May be repeated after an interruption.
    """
    wanted = s3_uri(uri)
    with wiring.database() as database:
        erasure = new_erasure(
            database, wiring.s3_objects(),
            derived_bucket=wiring.derived_bucket(), curated_bucket=wiring.curated_bucket(),
            journal_bucket=wiring.journal_bucket(), actor=wiring.ACTOR,
        )  # fmt: skip
        found = erasure.wanted(wanted, copies=not only_this)
        if not yes:
            _ask(found, source)
        done = erasure.erase(found, reason=reason, block_content=not only_this, source=source)
    emit(done, as_json, _text(done, source))


def _ask(found: Sequence[dict[str, Any]], source: bool) -> None:
    for row in found:
        say(ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri, err=True)
    where = "the ledger, snapshots and the source bucket" if source else "the ledger and snapshots"
    if not confirm(f"Erase these {len(found)} versions from {where} for good?"):
        raise RequestError("Cancelled: nothing was erased", code="cancelled")


def _text(done: ErasureReport, source: bool) -> list[str]:
    lines = [f"erased {len(done.objects)} object versions:"]
    lines += [f"  {uri}" for uri in done.objects]
    held = ", ".join(done.snapshots) or "no snapshot"
    lines.append(f"{done.vectors} vectors, {done.thumbnails} thumbnails; redacted in {held}")
    if done.kept_vectors:
        lines.append(f"{done.kept_vectors} vectors kept: other objects have the same pixels")
    if not source:
        lines.append("the source versions are still in their bucket: add --source to delete them")
    lines += [f"journaled as {key}" for key in done.journal]
    lines.append("VACUUM removes the dead rows from disk (docs/operations.md)")
    return lines
