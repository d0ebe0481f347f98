"""``pixsift snapshot``: request snapshots, show them, download them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pixsift.answers.snapshots import SnapshotDetails, SnapshotFacts
from pixsift.core.files import shown
from pixsift.errors import PermanentError, RequestError
from pixsift.messages import SnapshotRequest, parse_snapshot_request, why_not_storable
from pixsift.operations import snapshot_checks
from pixsift.operations import snapshots as operation
from pixsift.operations.download import THREADS
from pixsift.operations.download import download as fetch
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.retrieve import only_collection
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture
from pixsift_cli import wiring
from pixsift_cli.choosing.options import Changes, with_selection_options
from pixsift_cli.common import JsonOption, check_writable, emit, no_nan, short_uris, write_text
from pixsift_cli.terminal import console

if TYPE_CHECKING:
    from pixsift.adapters.postgres.database import Database

app = typer.Typer(no_args_is_help=True, help="Request, list, show and download snapshots.")


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="snapshot")


@app.command()
@with_selection_options
def request(
    *,
    changes: Changes,
    name: Annotated[str | None, typer.Option(help="Name of the snapshot, a folder at S3.")] = None,
    mode: Annotated[str | None, typer.Option(help="copy, or reference (no image bytes).")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="parquet, webdataset; may be repeated.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Request id; the same id always gives the same snapshot.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON of a request; options change its fields.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is published.")] = False,
    timeout: Annotated[float, typer.Option(help="Maximum wait, seconds.")] = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Send a snapshot request to the curator's queue."""
    changes |= {"name": name, "request_id": request_id,
                "export": {"mode": mode, "formats": formats}}  # fmt: skip
    with wiring.database() as database:
        asked = build_request(file, changes, lambda: only_collection(database, None).name)
    sent = operation.send_request(wiring.snapshot_queue(), asked)
    if not wait:
        emit(sent, as_json, f"request {sent.request_id} sent to {sent.queue}")
        return
    with wiring.database() as database, _progress(quiet=as_json) as show:
        found = operation.wait_for_snapshot(
            database, asked.request_id, timeout_seconds=timeout, show=show
        )
    emit(found, as_json, f"{found.snapshot_id} published at {found.location}")


@app.command("list")
def list_(
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Snapshots, newest first, and the requests that led to none."""
    with wiring.database() as database:
        found = operation.list_snapshots(database, collection=collection, limit=limit)
    lines = [
        f"{row.snapshot_id:<24} {row.state:<10} {row.copied:>6}/{row.images:<6} "
        f"{row.collection}/{row.name}  {row.location or row.error or ''}"
        for row in found.snapshots
    ] + [f"{row.request_id:<24} refused     {row.error}" for row in found.refused]
    emit(found, as_json, lines or "no snapshots yet")


@app.command()
def show(
    snapshot: Annotated[
        str, typer.Argument(help="Snapshot id, request id or name (its newest snapshot).")
    ],
    *,
    limit: Annotated[int, typer.Option(min=0, help="How many of its images to list.")] = 20,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with all its images, by rank.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One snapshot: its request, state, list and report."""
    check_writable(html)
    with wiring.database() as database:
        found = operation.show(database, snapshot)
        if html is not None:
            write_text(html, _page(database, found))
    facts = found.model_dump(exclude={"request", "report", "items"})
    lines = [f"{name:<13} {value}" for name, value in facts.items() if value is not None]
    uris = short_uris([row.source for row in found.items])
    lines += [
        f"{row.rank:>6}  {row.split:<6} {uri}  {row.reason}"
        for row, uri in zip(found.items[:limit], uris, strict=False)
    ]
    if len(found.items) > limit:
        lines.append(f"        and {len(found.items) - limit} more: see --limit, --html or --json")
    lines += [f"page: {html}"] if html is not None else []
    emit(found, as_json, lines)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="Id, request id or name of a snapshot.")],
    after: Annotated[str, typer.Argument(help="Of the one to compare it with.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots: what was added, removed, moved."""
    with wiring.database() as database:
        found = snapshot_checks.diff(database, before, after)
    lines = [f"{found.kept} in both, {len(found.added)} added, {len(found.removed)} removed, "
             f"{len(found.moved)} in another split"]  # fmt: skip
    lines += [f"+ {shown(each.uri)}  {each.split}" for each in found.added]
    lines += [
        f"- {shown(each.uri)}  {each.split}"
        + (f"  represented by {each.represented_by}" if each.represented_by else "")
        for each in found.removed
    ]
    lines += [f"~ {shown(each.uri)}  {each.was} -> {each.split}" for each in found.moved]
    emit(found, as_json, lines)


@app.command()
def verify(
    snapshot: Annotated[str, typer.Argument(help="Its id, request id or name.")],
    as_json: JsonOption = False,
) -> None:
    """Check that every file of a snapshot lies in S3.

    Exit status 1 when one does not.
    """
    with wiring.database() as database:
        found = snapshot_checks.verify(
            database, wiring.objects(), wiring.curated_bucket(), snapshot
        )
    whole = "everything is there" if found.is_whole else f"{len(found.problems)} are wrong"
    lines = [f"{found.snapshot_id}: {found.checked} files checked, {whole}"]
    lines += [f"{each.what.replace('_', ' ')}: {each.path}" for each in found.problems]
    emit(found, as_json, lines)
    if not found.is_whole:
        raise typer.Exit(1)


@app.command()
def download(
    snapshot: Annotated[
        str, typer.Argument(help="Snapshot id, request id or name (its newest snapshot).")
    ],
    folder: Annotated[Path, typer.Argument(help="Target folder; created if it does not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch a published snapshot, or what is missing of it.

    The bytes of a reference snapshot come from the source buckets, the exact versions listed.
    """
    with wiring.database() as database:
        done = fetch(database, wiring.s3_objects(connections=THREADS), snapshot, folder)
    lines = [f"{done.files} files in {folder}, {done.fetched} of them fetched now"]
    emit(done, as_json, lines + [f"missing {path}" for path in done.missing])
    if done.missing:
        raise PermanentError("incomplete", f"{len(done.missing)} files are gone")


@app.command()
def clean(
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=36_500,
            callback=no_nan,
            help="Only snapshots that failed at least this many days ago.",
        ),
    ] = 7.0,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it, only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what failed snapshots left in the curated bucket."""
    with wiring.database() as database:
        done = operation.clean(
            database, wiring.s3_objects(), wiring.curated_bucket(),
            older_than_days=older_than_days, apply=apply,
        )  # fmt: skip
    verb = "removed" if apply else "would remove"
    lines = [f"{verb} {count} objects of {name}" for name, count in done.objects.items() if count]
    emit(done, as_json, lines or "nothing to remove")


def build_request(
    file: Path | None,
    changes: dict[str, Any],
    default: Callable[[], str] | None = None,
    *,
    settle: Callable[[dict[str, Any]], None] = lambda raw: None,
) -> SnapshotRequest:
    """A request from a file and options; an option that was not given changes nothing.

    default: finds the collection when none is named. settle: replaces paths by names that the
    ledger knows. Without a file the request has the newest version; a file without a version has
    the first.

    Raises UserError that names the field and the remedy.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as exc:
            raise RequestError(f"--file {file}: {exc}") from exc
        if not isinstance(given, dict):
            raise RequestError(f"--file {file}: a request is a JSON object")
    merged = _merged(given, changes)
    merged.setdefault("request_id", uuid4().hex)
    merged.setdefault("select", {})
    if "collection" not in merged and default is not None:
        merged["collection"] = default()
    settle(merged)
    if file is None:
        merged["schema"] = "pixsift.snapshot-request/2"
    obstacle = why_not_storable(merged)
    if obstacle is not None:
        raise RequestError(f"the request {obstacle}")
    try:
        return parse_snapshot_request(merged)
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise RequestError(
            f"{field or 'request'}: {problem['msg']} (pixsift snapshot request --help)"
        ) from exc


def _page(database: "Database", found: SnapshotDetails) -> str:
    """All its images by rank; one that was erased since has no thumbnail."""
    listed = operation.objects_of(database, found.snapshot_id)
    shown = uris_and_thumbnails(
        database, wiring.objects(), wiring.derived_bucket(), [each.object_id for each in listed]
    )
    pictures = [
        Picture.inline(shown[each.object_id][1], f"{each.rank}, {each.split}",
                       short_uris([shown[each.object_id][0]])[0])
        for each in listed
    ]  # fmt: skip
    facts = [f"{found.state}, {found.images} images of collection {found.collection}",
             found.location or found.error or ""]  # fmt: skip
    return gallery(f"Snapshot {found.snapshot_id}, {found.name}", facts, pictures)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[SnapshotFacts], None]]:
    """A progress bar of a snapshot, on a terminal's stderr."""
    there = console(err=True)
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        console=there, disable=quiet or not there.is_terminal,
    ) as progress:  # fmt: skip
        bar = progress.add_task("waiting for the curator", total=None)
        yield lambda found: progress.update(
            bar, description=f"{found.snapshot_id} {found.state}",
            completed=found.copied, total=found.images,
        )  # fmt: skip


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        if isinstance(value, dict):
            inner = merged.get(name)
            nested = _merged(inner if isinstance(inner, dict) else {}, value)
            if nested:
                merged[name] = nested
        elif value not in (None, []):
            merged[name] = value
    return merged
