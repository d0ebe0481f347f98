"""Snapshots for users: request one, wait for it, show it, clean up failed ones."""

import time
from collections.abc import Callable, Iterator

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.ledger.snapshots import Snapshot, Snapshots, unknown_snapshot
from pixsift.adapters.postgres.database import Database
from pixsift.answers.snapshots import (
    Cleaned,
    RefusedRequest,
    SentRequest,
    SnapshotDetails,
    SnapshotFacts,
    SnapshotImage,
    SnapshotLine,
    SnapshotList,
)
from pixsift.core.descriptor import SNAPSHOT_FILE
from pixsift.core.outcomes import SnapshotObject
from pixsift.errors import ConflictError, PermanentError, Remedy, TransientError
from pixsift.messages import SnapshotRequest

_POLL_SECONDS = 0.5


def send_request(queue: SqsQueue, request: SnapshotRequest) -> SentRequest:
    """Put a request on the curator's queue."""
    queue.send([request.model_dump_json(by_alias=True)])
    return SentRequest(request_id=request.request_id, queue=queue.name)


def follow(
    database: Database, request_id: str, *, timeout_seconds: float
) -> Iterator[SnapshotFacts | None]:
    """Yield a request's snapshot repeatedly until it is published; None while there is none.

    Raises PermanentError when it was refused or failed, TransientError after the time is up.
    """
    snapshots = Snapshots(database)
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        taken = snapshots.request(request_id)
        if taken is not None and taken.snapshot_id is not None:
            found = snapshots.get(taken.snapshot_id)
            yield facts_of(found)
            if found.state == "published":
                return
            if found.state == "failed":
                raise PermanentError("snapshot_failed", f"{found.snapshot_id}: {found.error}")
        elif taken is not None and taken.error is not None:
            raise PermanentError("request_refused", f"{request_id}: {taken.error}")
        else:
            yield None
        time.sleep(_POLL_SECONDS)
    raise TransientError(
        f"request {request_id} has no snapshot after {timeout_seconds:g} s: is pixsift-curator "
        "running? The request stays in the queue",
        remedy=Remedy("list_snapshots"),
    )


def wait_for_snapshot(
    database: Database,
    request_id: str,
    *,
    timeout_seconds: float,
    show: Callable[[SnapshotFacts], None] = lambda found: None,
) -> SnapshotFacts:
    """Wait until a request's snapshot is published; raises as ``follow`` does.

    show: gets the snapshot as it grows.
    """
    published: SnapshotFacts | None = None
    for found in follow(database, request_id, timeout_seconds=timeout_seconds):
        if found is not None:
            published = found
            show(found)
    assert published is not None  # noqa: S101 - it ends with a published one, or raises
    return published


def find(database: Database, text: str) -> Snapshot:
    """The snapshot of an id, request id or name, the newest where several fit.

    Raises NotFoundError when there is none, ConflictError when the request led to none.
    """
    snapshots = Snapshots(database)
    found = snapshots.find(text)
    if not found:
        refused = snapshots.request(text)
        if refused is not None and refused.error is not None:
            raise ConflictError(
                f"request {text} was refused: {refused.error}", code="request_refused"
            )
        raise unknown_snapshot(text)
    return snapshots.get(found[0])


def show(database: Database, text: str) -> SnapshotDetails:
    """One snapshot with its request, report and list; see ``find``."""
    found = find(database, text)
    return SnapshotDetails(
        **facts_of(found).model_dump(),
        request=found.request,
        report=found.report,
        items=[
            SnapshotImage(
                rank=row.rank, split=row.split, path=row.path, source=row.source.uri,
                reason=row.reason, duplicates=row.duplicates,
            )
            for row in Snapshots(database).manifest_rows(found.snapshot_id)
        ],
    )  # fmt: skip


def objects_of(database: Database, snapshot_id: str) -> list[SnapshotObject]:
    """The objects of a snapshot and where their copies are, by rank."""
    return Overview(database).snapshot_objects(snapshot_id)


def list_snapshots(database: Database, *, collection: str | None, limit: int) -> SnapshotList:
    """Snapshots, newest first, and the requests that led to none."""
    snapshots = Snapshots(database)
    return SnapshotList(
        snapshots=[
            SnapshotLine(**row) for row in snapshots.recent(collection=collection, limit=limit)
        ],
        refused=[RefusedRequest(**row) for row in snapshots.refused(limit)],
    )


def clean(
    database: Database, objects: S3Objects, bucket: str, *, older_than_days: float, apply: bool
) -> Cleaned:
    """The files of long-failed snapshots in the curated bucket; ``apply`` deletes them."""
    left: dict[str, int] = {}
    for row in Snapshots(database).abandoned(older_than_days):
        found = list(objects.iter_versions(bucket, row.prefix))
        if any(version.key == row.prefix + SNAPSHOT_FILE for version in found):
            continue  # a published snapshot is there: do not remove it
        left[row.snapshot_id] = len(found)
        for version in found if apply else []:
            identity = version.version.version_id
            objects.delete(bucket, version.key, version_id=None if identity == "null" else identity)
    return Cleaned(applied=apply, objects=left)


def facts_of(snapshot: Snapshot) -> SnapshotFacts:
    """A snapshot as an answer."""
    return SnapshotFacts.model_validate(snapshot, from_attributes=True)
