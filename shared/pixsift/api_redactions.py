"""What the HTTP API answers of images that were erased out of a snapshot."""

from pixsift.api import _Answer as Answer


class RedactedImage(Answer):
    """One image that a published snapshot holds no longer."""

    rank: int
    path: str
    """Where its copy was, below the snapshot's location."""


class Redactions(Answer):
    """What erasures took out of a snapshot; its list stays as it was published."""

    snapshot_id: str
    redacted: list[RedactedImage]
