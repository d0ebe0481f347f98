"""Identity of object versions, and the order of writes to one key."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

UNVERSIONED = "etag:"
"""Prefix of the version id of an object in a bucket without versioning."""
FILE_VERSION = "file:"
"""Prefix of the version id of a file (``pixsift.core.files``)."""
FOLDER = "file://"
"""Prefix of the bucket of a folder's files."""
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""Bucket names that boto3 accepts: old buckets may have capitals and "_", new ones may not."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One write of one object, at S3 or in a folder.

    ``version_id`` is S3's version id, or ``etag:<etag>`` in a bucket without versioning: even S3
    cannot distinguish two writes of the same bytes there. Of a file it is
    ``file:<size>-<time>-<hash>``.
    """

    bucket: str
    key: str
    """Decoded, as S3 shows it."""
    version_id: str

    @property
    def uri(self) -> str:
        """``s3://bucket/key?versionId=...`` or ``file:///folder//key?versionId=...``, for people
        and logs."""
        return f"{location(self.bucket, self.key)}?versionId={self.version_id}"

    @property
    def is_versioned(self) -> bool:
        """Whether the store keeps this write when the next one comes."""
        return not self.version_id.startswith((UNVERSIONED, FILE_VERSION))

    @property
    def etag(self) -> str | None:
        """The ETag that stands in for a version id; None for other versions."""
        found = self.version_id.startswith(UNVERSIONED)
        return self.version_id.removeprefix(UNVERSIONED) if found else None


@dataclass(frozen=True, slots=True)
class S3Uri:
    """``s3://bucket/key?versionId=...`` as people write it; the key may be empty or a prefix.

    Or an object of a folder as pixsift writes it: ``file:///folder//key``, where the two slashes
    say which part is the bucket.
    """

    bucket: str
    key: str
    version_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> "S3Uri":
        """Raises ValueError, saying why. Keys are taken as they are: nothing is URL-decoded."""
        if text.startswith(FOLDER):
            folder, _, key = text.removeprefix(FOLDER).partition("//")
            return cls(FOLDER + folder, *_with_version(key))
        rest = text.removeprefix("s3://")
        bucket, _, key = rest.partition("/")
        if rest == text or not bucket:
            raise ValueError("is not an S3 URI: write s3://bucket/key")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"is not an S3 URI: invalid bucket name {bucket!r}")
        return cls(bucket, *_with_version(key))

    @property
    def location(self) -> str:
        """Without the version."""
        return location(self.bucket, self.key)


def location(bucket: str, key: str = "") -> str:
    """``s3://bucket/key``, or ``file:///folder//key`` in the bucket of a folder."""
    return f"{bucket}//{key}" if bucket.startswith(FOLDER) else f"s3://{bucket}/{key}"


def _with_version(key: str) -> tuple[str, str | None]:
    # Only the last one counts: a key may contain the same text.
    if "?versionId=" not in key:
        return key, None
    key, _, version_id = key.rpartition("?versionId=")
    return key, version_id or None


def version_id_of(version_id: str | None, etag: str | None) -> str | None:
    """The ledger's version id of a write, or None where neither id nor ETag is known.

    The version ``null`` (versioning suspended) is overwritten in place, so it counts as none.
    """
    if version_id and version_id != "null":
        return version_id
    return f"{UNVERSIONED}{etag.strip(chr(34))}" if etag and etag.strip('"') else None


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One line of S3's listing of a key's versions, as S3 orders them: newest first."""

    version_id: str
    is_delete_marker: bool = False
    size_bytes: int | None = None
    etag: str | None = None
    modified_at: datetime | None = None


def versions_hidden_by_markers(listing: Iterable[ListedVersion]) -> list[str]:
    """Version ids that lie under a delete marker; ``listing`` is of one key, newest first.

    A write after the marker is alive again, and a version fetched by its id answers even under a
    marker: only the listing shows the marker.
    """
    hidden = False
    found: list[str] = []
    for line in listing:
        if line.is_delete_marker:
            hidden = True
        elif hidden:
            found.append(version_id_of(line.version_id, line.etag) or line.version_id)
    return found
