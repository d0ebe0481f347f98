"""``pixsift audit``: checks the invariants of the ledger."""

from typing import Annotated

import typer

from pixsift.answers.checks import AuditReport
from pixsift.core.files import shown
from pixsift.errors import RequestError
from pixsift.operations.audit import audit as run
from pixsift.operations.audit import reindex as rebuild
from pixsift.operations.paths import collection_name
from pixsift.operations.retrieve import only_collection
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.terminal import status_line

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(audit)
    app.command()(reindex)


def audit(
    name: Annotated[str | None, typer.Argument(help="Collection; default: all.")] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Decide wrong kept and duplicate images again.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Compare only this many kept images with all others.")
    ] = None,
    snapshots: Annotated[
        bool,
        typer.Option("--snapshots", help="Also check that every listed image is in the bucket."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every invariant of the ledger; exit status 1 when one is broken (after repair)."""
    with wiring.database(name) as database, status_line("auditing") as tell:
        if snapshots and wiring.uses_folders():
            raise RequestError(
                "--snapshots looks into a bucket, and what is chosen from a folder lies on this "
                "machine: leave it out"
            )
        name = collection_name(database, name) if name else None
        if repair:
            wiring.meet_journal(database)
        reports = run(
            database, collection=name, sample=sample, repair=repair,
            curated=(wiring.s3_objects(), wiring.curated_bucket()) if snapshots else None,
            progress=lambda what: tell(f"auditing {what}"), actor=wiring.ACTOR,
        )  # fmt: skip
        again = "the next run" if wiring.uses_folders() else "the queue"
    lines = [line for report in reports for line in _text(report, again)]
    emit(reports, as_json, lines or "no collections")
    if any(report.findings for report in reports):
        raise typer.Exit(1)


def reindex(
    name: Annotated[
        str | None, typer.Argument(help="Collection; default: 'default', or the only one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Drop and rebuild a collection's HNSW index.

    Decisions continue; until the index is built, search is exact and slower.
    Only a ledger searched with PIXSIFT_SEARCH=hnsw, or too large for memory, has one.
    """
    with wiring.database() as database:
        name = only_collection(database, name).name
        built = rebuild(database, name)
    emit(built, as_json, f"the index of {name} is built up to seq {built.built_to_seq}")


def _text(report: AuditReport, again: str) -> list[str]:
    lines = [
        f"{report.collection}: {report.kept} kept and {report.duplicates} duplicates at seq "
        f"{report.seq}, generation {report.generation}; {report.pairs_compared} pairs compared",
    ]
    if report.undecided:
        lines.append(f"  {report.undecided} undone, {again} will decide them again")
    for change in report.repaired:
        kept = change.representative_uri
        of = f" of {shown(kept)}" if kept else ""
        lines.append(
            f"  repaired: {shown(change.uri)}: {change.was} -> {change.outcome}{of} "
            f"({in_words(change.reason)})"
        )
    lines += [f"  {f.invariant}: {f.message}" for f in report.findings[:_SHOWN]]
    if len(report.findings) > _SHOWN:
        lines.append(f"  ... and {len(report.findings) - _SHOWN} more (--json shows all)")
    if not report.findings:
        lines.append("  all invariants hold")
    return lines
