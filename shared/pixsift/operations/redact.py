"""Takes an erased image out of the snapshots that hold it.

A published snapshot never changes otherwise: its manifest stays, the image goes, and
``redactions.json`` beside it says which. A shard that holds the image is written again without it.
An unpublished snapshot fails, since its list can never be whole.
"""

import io
import tarfile

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.core.descriptor import build_redactions
from pixsift.core.identity import ObjectVersion, version_id_of

REDACTIONS_FILE = "redactions.json"


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
            snapshot = self._snapshots.get(row["snapshot_id"])
            # Noted first: an exporter at work loses its right to publish before anything goes.
            self._snapshots.redact(snapshot.snapshot_id, object_id)
            self._delete_every_version(snapshot.prefix + row["destination_key"])
            for file in self._snapshots.files(snapshot.snapshot_id):
                if file.path.endswith(".tar"):
                    self._rewrite(snapshot.prefix + file.path, row["rank"])
            content = build_redactions(self._snapshots.redactions(snapshot.snapshot_id))
            self._objects.put(
                self._bucket, snapshot.prefix + REDACTIONS_FILE, content,
                content_type="application/json",
            )  # fmt: skip
        return [str(row["snapshot_id"]) for row in held]

    def _delete_every_version(self, key: str) -> None:
        for version in self._objects.list_versions(self._bucket, key):
            identity = None if version.version_id == "null" else version.version_id
            self._objects.delete(self._bucket, key, version_id=identity)

    def _rewrite(self, key: str, rank: int) -> None:
        head = self._objects.head(self._bucket, key)
        if head is None:
            return
        identity = version_id_of(head.version_id, head.etag) or f"etag:{head.etag}"
        shard = self._objects.get(ObjectVersion(self._bucket, key, identity))
        without = shard_without(shard, rank)
        if without is not None:
            self._delete_every_version(key)
            self._objects.put(self._bucket, key, without, content_type="application/x-tar")


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
