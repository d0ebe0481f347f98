"""Takes an erased image out of the snapshots that hold it.

A published snapshot never changes otherwise: its manifest stays, the image goes, and
``redactions.json`` next to it says which. A shard that holds the image is written again without it.
An unpublished snapshot fails, since its list can never be whole.
"""

import io
import tarfile
from typing import Any

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.snapshots import Snapshot, Snapshots
from pixsift.core.descriptor import SNAPSHOT_FILE, build_redactions
from pixsift.core.identity import ListedVersion, ObjectVersion, version_id_of

REDACTIONS_FILE = "redactions.json"
SHARDS = "webdataset/"
"""Below a snapshot's prefix."""


class Redactor:
    """Redacts snapshots in the curated bucket."""

    def __init__(self, snapshots: Snapshots, objects: S3Objects, curated_bucket: str) -> None:
        self._snapshots = snapshots
        self._objects = objects
        self._bucket = curated_bucket

    def redact(self, object_id: int) -> list[str]:
        """Remove the object's copies; returns the snapshots that held it. May be repeated."""
        held = self._snapshots.holding(object_id)
        for row in held:
            # Recorded first: a running exporter loses its right to publish before anything is
            # deleted, and a snapshot that is published then stays published.
            self._snapshots.redact(row["snapshot_id"], object_id)
            snapshot = self._snapshots.get(row["snapshot_id"])
            if snapshot.state == "published":
                self._take_out(snapshot, row)
            else:
                drop_unpublished(self._snapshots, self._objects, self._bucket, snapshot)
            content = build_redactions(self._snapshots.redactions(snapshot.snapshot_id))
            self._objects.put(
                self._bucket, snapshot.prefix + REDACTIONS_FILE, content,
                content_type="application/json",
            )  # fmt: skip
        return [str(row["snapshot_id"]) for row in held]

    def _take_out(self, snapshot: Snapshot, row: dict[str, Any]) -> None:
        """The image and its sample. The bucket says which shards there are, not the ledger: one
        may have been written by an exporter that died before it could note it."""
        delete_every_version(self._objects, self._bucket, snapshot.prefix + row["destination_key"])
        shards = {
            listed.key
            for listed in self._objects.iter_versions(self._bucket, snapshot.prefix + SHARDS)
            if listed.key.endswith(".tar")
        }
        for key in sorted(shards):
            self._rewrite(key, row["rank"])

    def _rewrite(self, key: str, rank: int) -> None:
        head = self._objects.head(self._bucket, key)
        if head is None:
            return
        identity = version_id_of(head.version_id, head.etag) or f"etag:{head.etag}"
        shard = self._objects.get(ObjectVersion(self._bucket, key, identity))
        without = shard_without(shard, rank)
        if without is not None:
            delete_every_version(self._objects, self._bucket, key)
            self._objects.put(self._bucket, key, without, content_type="application/x-tar")


def drop_unpublished(
    snapshots: Snapshots, objects: S3Objects, bucket: str, snapshot: Snapshot
) -> None:
    """Delete what an unpublished snapshot holds of erased images.

    Its shards are deleted as a whole, since they will not be read, and also its descriptor, if an
    exporter wrote it before the erasure: the rest must not look like a snapshot. Called by the
    erasure, and again by an exporter that finds its right to publish gone.
    """
    for row in snapshots.redactions(snapshot.snapshot_id):
        delete_every_version(objects, bucket, snapshot.prefix + row["destination_key"])
    for listed in list(objects.iter_versions(bucket, snapshot.prefix + SHARDS)):
        _delete_version(objects, bucket, listed.key, listed.version)
    delete_every_version(objects, bucket, snapshot.prefix + SNAPSHOT_FILE)


def delete_every_version(objects: S3Objects, bucket: str, key: str) -> None:
    """Delete markers included."""
    for version in objects.list_versions(bucket, key):
        _delete_version(objects, bucket, key, version)


def _delete_version(objects: S3Objects, bucket: str, key: str, version: ListedVersion) -> None:
    identity = None if version.version_id == "null" else version.version_id
    objects.delete(bucket, key, version_id=identity)


def shard_without(shard: bytes, rank: int) -> bytes | None:
    """The tar without the sample of ``rank``; None when it is not in there."""
    name = f"{rank:09d}."
    found = False
    rest = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(shard)) as old,
        tarfile.open(fileobj=rest, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in old:
            if member.name.startswith(name):
                found = True
            else:
                new.addfile(member, old.extractfile(member))
    return rest.getvalue() if found else None
