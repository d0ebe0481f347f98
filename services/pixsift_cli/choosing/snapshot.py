"""``pixsift snapshot``: ask for snapshots, look at them, fetch them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.snapshots import Snapshot, Snapshots
from pixsift.config import QueueSettings
from pixsift.errors import PermanentError, RequestError, TransientError
from pixsift.messages import SnapshotRequest, why_not_storable
from pixsift_cli.choosing import files
from pixsift_cli.choosing.files import find
from pixsift_cli.choosing.options import Changes, with_selection_options
from pixsift_cli.common import JsonOption, emit, open_database

_POLL_SECONDS = 0.5

app = typer.Typer(no_args_is_help=True, help="Ask for snapshots, look at them, fetch them.")


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(files.download)
    app.command()(files.clean)
    root.add_typer(app, name="snapshot")


@app.command()
@with_selection_options
def request(
    *,
    changes: Changes,
    name: Annotated[str | None, typer.Option(help="Name of the snapshot, a folder at S3.")] = None,
    mode: Annotated[str | None, typer.Option(help="copy, or reference: no bytes.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="parquet, webdataset; may be repeated.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Id of the request: the same id gives the same snapshot.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON of a request; options change its fields.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is published.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, seconds.")] = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Send a snapshot request to the curator's queue."""
    changes |= {"name": name, "request_id": request_id,
                "export": {"mode": mode, "formats": formats}}  # fmt: skip
    asked = build_request(file, changes)
    queue = SqsQueue(QueueSettings().snapshot_queue)
    queue.send([asked.model_dump_json(by_alias=True)])
    if not wait:
        emit(
            {"request_id": asked.request_id, "queue": queue.name}, as_json,
            f"request {asked.request_id} sent to {queue.name}",
        )  # fmt: skip
        return
    with open_database() as database:
        snapshots = Snapshots(database)
        found = wait_for(snapshots, asked.request_id, timeout, quiet=as_json)
        emit(_facts(found), as_json, f"{found.snapshot_id} published at {found.location}")


@app.command("list")
def list_(
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Snapshots, newest first, and the requests that led to none."""
    with open_database() as database:
        snapshots = Snapshots(database)
        rows = snapshots.recent(collection=collection, limit=limit)
        refused = snapshots.refused(limit)
    lines = [
        f"{row['snapshot_id']:<24} {row['state']:<10} {row['copied']:>6}/{row['images']:<6} "
        f"{row['collection']}/{row['name']}  {row['location'] or row['error'] or ''}"
        for row in rows
    ] + [f"{row['request_id']:<24} refused     {row['error']}" for row in refused]
    emit({"snapshots": rows, "refused": refused}, as_json, "\n".join(lines) or "no snapshots yet")


@app.command()
def show(
    snapshot: Annotated[str, typer.Argument(help="Id, request id or name (the newest of it).")],
    as_json: JsonOption = False,
) -> None:
    """One snapshot: its request, state, list and report."""
    with open_database() as database:
        snapshots = Snapshots(database)
        found = find(snapshots, snapshot)
        items = snapshots.manifest_rows(found.snapshot_id)
    facts = {
        **_facts(found),
        "request": found.request,
        "report": found.report,
        "items": [
            {"rank": row.rank, "split": row.split, "path": row.path, "source": row.source.uri,
             "reason": row.reason, "duplicates": row.duplicates}
            for row in items
        ],
    }  # fmt: skip
    lines = [f"{name:<13} {value}" for name, value in _facts(found).items() if value is not None]
    lines += [f"{row.rank:>6}  {row.split:<6} {row.source.uri}  {row.reason}" for row in items[:20]]
    if len(items) > 20:
        lines.append(f"        and {len(items) - 20} more (--json lists all)")
    emit(facts, as_json, "\n".join(lines))


def build_request(file: Path | None, changes: dict[str, Any]) -> SnapshotRequest:
    """A request from a file and options; an option that was not given changes nothing.

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
    obstacle = why_not_storable(merged)
    if obstacle is not None:
        raise RequestError(f"the request {obstacle}")
    try:
        return SnapshotRequest.model_validate(merged)
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise RequestError(
            f"{field or 'request'}: {problem['msg']} (pixsift snapshot request --help)"
        ) from exc


def wait_for(
    snapshots: Snapshots, request_id: str, timeout_seconds: float, *, quiet: bool = False
) -> Snapshot:
    """Wait until a request has its end, with a progress bar on a terminal's stderr.

    Raises PermanentError when it was refused or failed, TransientError after the time is up.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=console, disable=quiet or not console.is_terminal,
    ) as progress:  # fmt: skip
        bar = progress.add_task("waiting for the curator", total=None)
        for found in _polls(snapshots, request_id, timeout_seconds):
            if found is None:
                continue
            progress.update(
                bar, description=f"{found.snapshot_id} {found.state}",
                completed=found.copied, total=found.images,
            )  # fmt: skip
            if found.state == "published":
                return found
            if found.state == "failed":
                raise PermanentError("snapshot_failed", f"{found.snapshot_id}: {found.error}")
    raise TransientError(
        f"request {request_id} has no snapshot after {timeout_seconds:g} s: is pixsift-curator "
        "running? It goes on by itself; see pixsift snapshot list"
    )


def _polls(
    snapshots: Snapshots, request_id: str, timeout_seconds: float
) -> Iterator[Snapshot | None]:
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        taken = snapshots.request(request_id)
        if taken is not None and taken.snapshot_id is not None:
            yield snapshots.get(taken.snapshot_id)
        elif taken is not None and taken.error is not None:
            raise PermanentError("request_refused", f"{request_id}: {taken.error}")
        else:
            yield None
        time.sleep(_POLL_SECONDS)


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.snapshot_id,
        "name": snapshot.name,
        "collection": snapshot.collection,
        "state": snapshot.state,
        "images": snapshot.images,
        "copied": snapshot.copied,
        "at_seq": snapshot.at_seq,
        "generation": snapshot.generation,
        "request_id": snapshot.request_id,
        "location": snapshot.location,
        "error": snapshot.error,
        "created_at": snapshot.created_at,
        "published_at": snapshot.published_at,
    }


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
