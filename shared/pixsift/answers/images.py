"""What is known of uploaded images and their attributes."""

from datetime import datetime

from pydantic import Field

from pixsift.answers.base import Answer


class ImageLine(Answer):
    """One image with the outcome that holds now."""

    object_id: int
    uri: str
    outcome: str
    reason: str | None
    distance: float | None
    representative: str | None
    decided_at: datetime
    thumbnail_key: str | None


class ImageList(Answer):
    """Images of a collection, the newest decision first."""

    collection: str
    images: list[ImageLine]


class KeyOutcomes(Answer):
    """What became of uploaded keys."""

    outcomes: dict[str, int]
    """``outcome (reason)`` -> decisions."""
    ignored: int
    """Keys that no collection judges."""
    undecided: int
    """Keys without an outcome when the wait was over."""


class AttributeOverview(Answer):
    """One attribute of a collection from one source."""

    name: str
    source: str
    objects: int
    values: int


class Uploaded(Answer):
    """What became of the files of one upload."""

    location: str
    bucket: str
    uploaded: int
    uploaded_keys: list[str] = Field(exclude=True, repr=False)
    skipped: int
    bytes: int
    failed: dict[str, str] = Field(default_factory=dict)
    """Relative path -> why."""
    became: KeyOutcomes | None = None
    """Where it was waited for."""


class ImportedAttributes(Answer):
    """What an import of attributes did."""

    rows: int
    objects: int
    changed: int
    """Objects whose attributes are now others."""
    unknown: int
    """Rows that name no object of the collection."""
    seq: int
    """The collection's point after the import."""
