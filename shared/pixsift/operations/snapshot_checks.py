"""Compares two snapshots, and a snapshot with its files in S3."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from psycopg.rows import dict_row

from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.ledger.snapshot_rows import snapshot_prefix
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.api_changes import (
    DiffImage,
    MovedImage,
    RemovedImage,
    SnapshotDiff,
    SnapshotProblem,
    SnapshotVerified,
)
from pixsift.api_redactions import RedactedImage, Redactions
from pixsift.core.descriptor import SNAPSHOT_FILE
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import SnapshotObject
from pixsift.errors import ConflictError
from pixsift.operations.snapshots import find
from pixsift.ports import ObjectStore
from pixsift.sql import statements

_THREADS = 16
_SQL = statements("snapshot_checks")


def diff(database: Database, before: str, after: str) -> SnapshotDiff:
    """The images that a second snapshot adds, lacks, or has in another split; each snapshot by id,
    request id or name.

    A removed image may still be represented: by one that is in the second snapshot and in the same
    duplicate group now. Raises as ``find`` does.
    """
    first, second = find(database, before), find(database, after)
    overview = Overview(database)
    old = {row.object_id: row for row in overview.snapshot_objects(first.snapshot_id)}
    new = {row.object_id: row for row in overview.snapshot_objects(second.snapshot_id)}
    group_of = _groups(database, first.collection, [*old, *new])
    by_group = {group_of[i]: row for i, row in reversed(new.items()) if i in group_of}
    removed = []
    for object_id, row in old.items():
        if object_id not in new:
            stands = by_group.get(group_of.get(object_id, -1))
            removed.append(RemovedImage(
                object_id=object_id, uri=_uri(row), split=row.split,
                represented_by=None if stands is None else _uri(stands),
                represented_by_object_id=None if stands is None else stands.object_id,
            ))  # fmt: skip
    return SnapshotDiff(
        before=first.snapshot_id, after=second.snapshot_id,
        kept=len(old.keys() & new.keys()),
        added=[DiffImage(object_id=i, uri=_uri(row), split=row.split)
               for i, row in new.items() if i not in old],
        removed=removed,
        moved=[MovedImage(object_id=i, uri=_uri(row), split=row.split, was=old[i].split)
               for i, row in new.items() if i in old and old[i].split != row.split],
    )  # fmt: skip


def redactions(database: Database, text: str) -> Redactions:
    """What erasures took out of a snapshot. Raises as ``find`` does."""
    found = find(database, text)
    return Redactions(
        snapshot_id=found.snapshot_id,
        redacted=[
            RedactedImage(rank=row["rank"], path=row["destination_key"])
            for row in Snapshots(database).redactions(found.snapshot_id)
        ],
    )


def verify(
    database: Database, objects: ObjectStore, bucket: str, text: str, *,
    progress: Callable[[str, int, int | None], None] = lambda step, done, of: None,
) -> SnapshotVerified:  # fmt: skip
    """Whether every listed file of a published snapshot is in its bucket, with its full size.

    Copies were verified by their checksum when they were made; this asks S3 for each once more.
    Raises ConflictError for a snapshot that is not published; otherwise as ``find`` does.
    """
    found = find(database, text)
    if found.state != "published":
        raise ConflictError(
            f"snapshot {found.snapshot_id} is {found.state}, not published", code="not_published"
        )
    prefix = snapshot_prefix(found.name, found.snapshot_id)
    files = Snapshots(database).files(found.snapshot_id)
    expected: list[tuple[str, int | None, bool]] = [(SNAPSHOT_FILE, None, False)]
    expected += [(file.path, file.size_bytes, False) for file in files]
    if found.request.get("export", {}).get("mode", "copy") == "copy":
        expected += [
            (row["destination_key"], row["size_bytes"], row["copy_state"] == "redacted")
            for row in _rows(database, "items", {"snapshot_id": found.snapshot_id})
        ]

    def check(entry: tuple[str, int | None, bool]) -> SnapshotProblem | None:
        path, size, is_redacted = entry
        there = objects.head(bucket, prefix + path)
        if is_redacted:
            return None if there is None else SnapshotProblem(path=path, what="redacted_but_there")
        if there is None:
            return SnapshotProblem(path=path, what="missing")
        if size is not None and there.size_bytes != size:
            return SnapshotProblem(path=path, what="wrong_size")
        return None

    problems = []
    with ThreadPoolExecutor(_THREADS) as threads:
        for done, problem in enumerate(threads.map(check, expected), 1):
            if done % 100 == 0 or done == len(expected):
                progress("files", done, len(expected))
            if problem is not None:
                problems.append(problem)
    return SnapshotVerified(
        snapshot_id=found.snapshot_id, checked=len(expected), is_whole=not problems,
        problems=problems,
    )  # fmt: skip


def _groups(database: Database, collection: str, object_ids: list[int]) -> dict[int, int]:
    """Representative by object, itself for one that is kept; those that are neither are absent."""
    names = {"collection": collection, "object_ids": object_ids}
    return {row["object_id"]: row["of_group"] for row in _rows(database, "groups_of", names)}


def _rows(database: Database, name: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    with database.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name], names).fetchall()


def _uri(row: SnapshotObject) -> str:
    return ObjectVersion(row.bucket, row.key, row.version_id).uri
