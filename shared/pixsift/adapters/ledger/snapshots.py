"""Snapshots in the ledger: requests, stored lists, copy progress, the lease of their exporter.

A request is pinned to one point of its collection when it is first seen; its list is stored before
anything is copied and never changes. Every write of an exporter carries its fence, so that one
that lost its lease can write nothing more.
"""

from collections.abc import Sequence
from typing import Any

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger.snapshot_rows import (
    NewItem,
    Snapshot,
    SnapshotFile,
    TakenRequest,
    copy_item,
    manifest_row,
    snapshot_prefix,
)
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.copyplan import CopyItem
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest_rows import DuplicateRow, ManifestRow
from pixsift.errors import ConflictError, NotFoundError, Remedy, TransientError
from pixsift.sql import statements

__all__ = ["LeaseLostError", "NewItem", "Snapshot", "SnapshotFile", "Snapshots", "TakenRequest",
           "snapshot_prefix"]  # fmt: skip

_SQL = statements("snapshots")


def unknown_snapshot(text: str) -> NotFoundError:
    """The error where no snapshot has this id, request id or name."""
    return NotFoundError(
        f"snapshot {text!r} does not exist",
        code="unknown_snapshot",
        remedy=Remedy("list_snapshots"),
    )


class LeaseLostError(TransientError):
    """Another exporter has taken the snapshot over; this one must stop."""


class Snapshots:
    """The ledger's tables about snapshots."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- requests ---------------------------------------------------------------------------

    def take(
        self, *, request_id: str, collection: str, at_seq: int | None, body: dict[str, Any]
    ) -> TakenRequest | None:
        """Pin a request, or find it pinned already. None: there is no such collection."""
        parameters = {
            "request_id": request_id, "collection": collection, "at_seq": at_seq,
            "body": Jsonb(body),
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(_SQL["pin_request"], parameters)
        return self.request(request_id)

    def request(self, request_id: str) -> TakenRequest | None:
        """What is on record about a request."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(TakenRequest))
            return cursor.execute(_SQL["request"], {"request_id": request_id}).fetchone()

    def refuse(self, *, request_id: str, body: dict[str, Any], error: str) -> None:
        """Record why a request led to no snapshot."""
        self._run("refuse_request", request_id=request_id, body=Jsonb(body), error=error)

    def record_anomaly(self, *, queue: str, message_id: str, body: bytes, reason: str) -> None:
        """Keep the raw body of a message that was not a request."""
        self._run("record_anomaly", queue=queue, message_id=message_id, body=body, reason=reason)

    def refused(self, limit: int = 20) -> list[dict[str, Any]]:
        """Requests that ended without a snapshot, newest first."""
        return self._rows("refused_requests", limit=limit)

    # -- the list ---------------------------------------------------------------------------

    def same(self, *, collection_id: int, at_seq: int, spec_hash: str) -> str | None:
        """The snapshot of the same spec at the same point, if there is one."""
        rows = self._rows(
            "same_snapshot", collection_id=collection_id, at_seq=at_seq, spec_hash=spec_hash
        )
        return str(rows[0]["snapshot_id"]) if rows else None

    def link(self, *, request_id: str, snapshot_id: str) -> None:
        """Remember which snapshot answers a request."""
        self._run("link_request", request_id=request_id, snapshot_id=snapshot_id)

    def store(
        self, taken: TakenRequest, *, snapshot_id: str, name: str, spec_hash: str, seed: int,
        report: dict[str, Any], items: Sequence[NewItem],
    ) -> str:  # fmt: skip
        """Store a resolved list, and link the request to it; returns the id that stands.

        Another curator may have stored the same one meanwhile: then its list stands.
        """
        parameters = {
            "snapshot_id": snapshot_id, "collection_id": taken.collection_id,
            "generation": taken.generation, "request_id": taken.request_id, "name": name,
            "request": Jsonb(taken.body), "spec_hash": spec_hash, "seed": seed,
            "at_seq": taken.at_seq, "report": Jsonb(report),
        }  # fmt: skip
        with self._database.transaction() as connection:
            fresh = connection.execute(_SQL["insert_snapshot"], parameters).fetchone()
            if fresh is not None:
                _copy_items(connection, snapshot_id, items)
                for statement in ("hold_collection", "note_seq"):
                    connection.execute(_SQL[statement], parameters)
            found = connection.execute(_SQL["same_snapshot"], parameters).fetchone()
            if found is None:  # the request id belongs to another snapshot
                raise TransientError(
                    f"request {taken.request_id!r} was resolved by another curator"
                )
            connection.execute(
                _SQL["link_request"], {"request_id": taken.request_id, "snapshot_id": found[0]}
            )
            return str(found[0])

    def sources(self, object_ids: Sequence[int]) -> dict[int, ObjectVersion]:
        """The object versions behind ids of the ledger."""
        return {
            row["object_id"]: ObjectVersion(row["bucket"], row["key"], row["version_id"])
            for row in self._rows("sources", object_ids=list(object_ids))
        }

    def object_ids(self, snapshot_id: str) -> list[int]:
        """The chosen objects that have not been erased since, by rank."""
        rows = self._rows("snapshot_object_ids", snapshot_id=snapshot_id)
        return [int(row["object_id"]) for row in rows]

    def splits(self, object_ids: Sequence[int], text: str) -> dict[int, str]:
        """The split of each of these objects in the snapshot that ``grown_from`` finds."""
        sound = [self.get(i) for i in self.find(text)]
        chosen = next(snapshot for snapshot in sound if snapshot.state != "failed")
        rows = self._rows("snapshot_object_ids", snapshot_id=chosen.snapshot_id)
        wanted = set(object_ids)
        return {int(r["object_id"]): r["split"] for r in rows if int(r["object_id"]) in wanted}

    def grown_from(self, text: str) -> list[int]:
        """The object ids of the one snapshot of this id, request id or name, to grow from it.

        Raises UserError when there is none or several, or when it failed.
        """
        found = [self.get(snapshot_id) for snapshot_id in self.find(text)]
        sound = [snapshot for snapshot in found if snapshot.state != "failed"]
        if not found:
            raise unknown_snapshot(text)
        if not sound:
            raise ConflictError(
                f"snapshot {text!r} failed and was never published: {found[0].error}"
            )
        if len(sound) > 1:
            raise ConflictError(
                f"{len(sound)} snapshots are named {text!r}; use an id, e.g. {sound[0].snapshot_id}"
            )
        return self.object_ids(sound[0].snapshot_id)

    # -- looking ----------------------------------------------------------------------------

    def get(self, snapshot_id: str) -> Snapshot:
        """One snapshot. Raises KeyError when there is none of that id."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Snapshot))
            found = cursor.execute(_SQL["snapshot"], {"snapshot_id": snapshot_id}).fetchone()
        if found is None:
            raise KeyError(snapshot_id)
        return found

    def find(self, text: str) -> list[str]:
        """Ids of the snapshots with this id, request id or name, newest first."""
        return [str(row["snapshot_id"]) for row in self._rows("find_snapshots", text=text)]

    def recent(self, *, collection: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Snapshots, newest first."""
        return self._rows("list_snapshots", collection=collection, limit=limit)

    def request_ids(self, snapshot_id: str) -> list[str]:
        """The ids of all requests that asked for it."""
        rows = self._rows("request_ids", snapshot_id=snapshot_id)
        return [str(row["request_id"]) for row in rows]

    def unfinished(self) -> str | None:
        """A stored list without a living exporter, the oldest."""
        rows = self._rows("unfinished")
        return str(rows[0]["snapshot_id"]) if rows else None

    def unannounced(self) -> str | None:
        """The oldest finished snapshot without a published event."""
        rows = self._rows("unannounced")
        return str(rows[0]["snapshot_id"]) if rows else None

    def abandoned(self, older_than_days: float) -> Sequence[Snapshot]:
        """Failed snapshots whose copies are still there, the oldest first."""
        rows = self._rows("abandoned", older_than_days=older_than_days)
        return [self.get(row["snapshot_id"]) for row in rows]

    # -- exporting --------------------------------------------------------------------------

    def claim(self, snapshot_id: str, *, lease_seconds: float) -> int | None:
        """Become the exporter. Returns the fence to write with; None while another exporter
        works."""
        rows = self._rows("claim", snapshot_id=snapshot_id, lease_seconds=lease_seconds)
        return int(rows[0]["fence"]) if rows else None

    def renew(self, snapshot_id: str, fence: int, *, lease_seconds: float) -> None:
        """Stay the exporter. Raises LeaseLostError."""
        self._fenced("renew", snapshot_id, fence, lease_seconds=lease_seconds)

    def give_back(self, snapshot_id: str, fence: int, *, delay_seconds: float = 0.0) -> None:
        """Let another exporter take over, after a delay."""
        self._run("yield_lease", snapshot_id=snapshot_id, fence=fence, delay_seconds=delay_seconds)

    def items(self, snapshot_id: str, *, everything: bool = False) -> list[CopyItem]:
        """What is still to be copied, by rank; ``everything``: the whole plan."""
        rows = self._rows("planned_items", snapshot_id=snapshot_id, all=everything)
        return [copy_item(row) for row in rows]

    def mark_copied(self, snapshot_id: str, fence: int, copied: dict[int, str]) -> None:
        """Rank -> checksum of what was copied and verified. Raises LeaseLostError."""
        if copied:
            self._fenced(
                "mark_copied", snapshot_id, fence,
                ranks=list(copied), checksums=list(copied.values()),
            )  # fmt: skip

    def record_file(self, snapshot_id: str, fence: int, file: SnapshotFile) -> None:
        """Remember a file written next to the images. Raises LeaseLostError."""
        self._fenced(
            "record_file", snapshot_id, fence,
            path=file.path, size_bytes=file.size_bytes, sha256=file.sha256,
        )  # fmt: skip

    def files(self, snapshot_id: str) -> list[SnapshotFile]:
        """Files written next to the images, by path."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SnapshotFile))
            return cursor.execute(_SQL["files"], {"snapshot_id": snapshot_id}).fetchall()

    def manifest_rows(self, snapshot_id: str) -> list[ManifestRow]:
        """The list with what was known of each image at the snapshot's own point."""
        duplicates: dict[int, int] = {}
        for row in self.duplicate_rows(snapshot_id):
            duplicates[row.representative_rank] = duplicates.get(row.representative_rank, 0) + 1
        return [
            manifest_row(row, duplicates.get(row["rank"], 0))
            for row in self._rows("manifest_rows", snapshot_id=snapshot_id)
        ]

    def duplicate_rows(self, snapshot_id: str) -> list[DuplicateRow]:
        """The duplicates of the chosen images at that point, by rank."""
        return [
            DuplicateRow(
                representative_rank=row["rank"],
                source=ObjectVersion(row["bucket"], row["key"], row["version_id"]),
                reason=row["reason"],
                distance=row["distance"],
            )
            for row in self._rows("duplicate_rows", snapshot_id=snapshot_id)
        ]

    def publish(self, snapshot_id: str, fence: int, *, location: str) -> None:
        """Mark as published, after snapshot.json is in S3. Raises LeaseLostError."""
        self._fenced("publish", snapshot_id, fence, location=location)

    def fail(self, snapshot_id: str, fence: int, *, error: str) -> None:
        """Give up for good, with the reason. Raises LeaseLostError."""
        self._fenced("fail", snapshot_id, fence, error=error)

    def announced(self, snapshot_id: str) -> None:
        """Note that the event about the snapshot was sent."""
        self._run("mark_announced", snapshot_id=snapshot_id)

    # -- erasure ----------------------------------------------------------------------------

    def holding(self, object_id: int) -> list[dict[str, Any]]:
        """Snapshots that hold an object: id, state, name, rank, destination_key, copy_state."""
        return self._rows("snapshots_holding", object_id=object_id)

    def redact(self, snapshot_id: str, object_id: int) -> None:
        """Note that an image of a snapshot was erased; an unpublished snapshot fails by it."""
        parameters = {
            "snapshot_id": snapshot_id, "object_id": object_id,
            "error": "source_erased: an image of the list was erased before it was published; "
            "request it again",
        }  # fmt: skip
        with self._database.transaction() as connection:
            connection.execute(_SQL["redact_item"], parameters)
            connection.execute(_SQL["fail_unpublished"], parameters)

    def redactions(self, snapshot_id: str) -> list[dict[str, Any]]:
        """Rank and path of every erased image of a snapshot."""
        return self._rows("redactions", snapshot_id=snapshot_id)

    # -- plumbing ---------------------------------------------------------------------------

    def _run(self, statement: str, **parameters: Any) -> None:
        with self._database.connection() as connection:
            connection.execute(_SQL[statement], parameters)

    def _rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL[statement], parameters).fetchall()

    def _fenced(self, statement: str, snapshot_id: str, fence: int, **parameters: Any) -> None:
        if not self._rows(statement, snapshot_id=snapshot_id, fence=fence, **parameters):
            raise LeaseLostError(f"snapshot {snapshot_id} was taken over by another exporter")


def _copy_items(connection: Connection, snapshot_id: str, items: Sequence[NewItem]) -> None:
    with connection.cursor() as cursor, cursor.copy(_SQL["copy_items"]) as copy:
        for rank, item in enumerate(items):
            copy.write_row((
                snapshot_id, rank, item.object_id, item.split, item.destination_key, item.reason,
                item.covering_radius,
            ))  # fmt: skip
