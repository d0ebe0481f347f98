"""``pixsift audit``: does the ledger keep its promises?"""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.config import BucketSettings
from pixsift.errors import TransientError
from pixsift.operations.audit import Audit, Auditor
from pixsift_cli.common import JsonOption, emit, open_database

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(audit)
    app.command()(reindex)


def audit(
    name: Annotated[str | None, typer.Argument(help="Collection; default: all.")] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Decide wrong kept and duplicate ones again.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Compare only so many kept images with all others.")
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Also look for every listed image in the bucket.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every invariant of the ledger; exit status 1 when one is broken (after repair)."""
    reports = []
    with open_database() as database:
        ledger, auditor = Ledger(database), Auditor(database, actor="cli")
        collections = [ledger.collection(name)] if name else ledger.collections()
        with Status("auditing", console=Console(stderr=True)) as line:
            for collection in collections:
                report = auditor.audit(
                    collection, sample=sample,
                    progress=lambda what: line.update(f"auditing {what}"),
                )  # fmt: skip
                if repair:
                    report = auditor.repair(collection, report)
                if snapshots:
                    bucket = BucketSettings().curated_bucket
                    report.findings += auditor.check_snapshots(collection, S3Objects(), bucket)
                reports.append(report)
    emit([_facts(r) for r in reports], as_json, "\n".join(map(_text, reports)) or "no collections")
    if any(report.findings for report in reports):
        raise typer.Exit(1)


def reindex(
    name: Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Drop a collection's HNSW index and build it anew. Decisions go on; search is exact so long.

    Only a ledger searched with PIXSIFT_SEARCH=hnsw, or too large for memory, has one.
    """
    with open_database() as database:
        collection = Ledger(database).collection(name)
        built_to = PgvectorSearch(database, background=False).rebuild(collection.collection_id)
    if built_to < 0:
        raise TransientError(f"another process works on the index of {name!r}: try again later")
    emit({"built_to_seq": built_to}, as_json, f"the index of {name} is built up to seq {built_to}")


def _facts(report: Audit) -> dict[str, Any]:
    return asdict(report) | {"miss_rate": report.miss_rate}


def _text(report: Audit) -> str:
    lines = [
        f"{report.collection}: {report.kept} kept and {report.duplicates} duplicates at seq "
        f"{report.seq}, generation {report.generation}; {report.pairs_compared} pairs compared",
    ]
    if report.undecided:
        lines.append(f"  {report.undecided} taken back, to be decided again by the queue")
    for change in report.repaired:
        of = f" of {change.representative}" if change.representative else ""
        lines.append(
            f"  repaired: object {change.object_id}: {change.was} -> {change.outcome}{of} "
            f"({change.reason})"
        )
    lines += [f"  {f.invariant}: {f.message}" for f in report.findings[:_SHOWN]]
    if len(report.findings) > _SHOWN:
        lines.append(f"  ... and {len(report.findings) - _SHOWN} more (--json shows all)")
    if not report.findings:
        lines.append("  every invariant holds")
    return "\n".join(lines)
