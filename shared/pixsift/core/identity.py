"""Identity of object versions, and the order of writes to one key."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One write of one S3 object.

    ``version_id`` is S3's version id, or ``etag:<etag>`` in a bucket without versioning: there is
    no per-write promise there, since S3 itself cannot tell the writes apart.
    """

    bucket: str
    key: str
    """Decoded, as S3 shows it."""
    version_id: str

    @property
    def uri(self) -> str:
        """``s3://bucket/key?versionId=...``, for people and logs."""
        return f"s3://{self.bucket}/{self.key}?versionId={self.version_id}"


def sequencer_order(sequencer: str) -> str:
    """A text whose plain order is the order of writes to one key.

    S3 sequencers are hexadecimal of varying length; the shorter one is padded with zeros on the
    right before comparing as text (S3 User Guide, "Event message structure"). Comparable for one
    key only. 64 digits are twice the longest seen.
    """
    return sequencer.upper().ljust(64, "0")
