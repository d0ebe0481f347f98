"""What the HTTP API takes and answers of coverage and novelty."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from pixsift.api import Ask, Example, Text
from pixsift.api import _Answer as Answer

NoveltyBy = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class CoverageAsk(Ask):
    """Compare a collection with a reference set: by exactly one of folder, snapshot, examples."""

    radius: Annotated[float, Field(gt=0, le=2)]
    """Cosine distance within which an image covers another one."""
    folder: Text | None = None
    """``s3://bucket/prefix``: the kept images below it, in this collection or another one of the
    same embedding space."""
    snapshot: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Its id, request id or name."""
    examples: Annotated[list[Example], Field(max_length=10_000)] = Field(default_factory=list)
    pictures: Annotated[int, Field(ge=0, le=200)] = 24
    """Gaps and regions to list, at most so many of each."""

    @model_validator(mode="after")
    def _names_one_reference(self) -> "CoverageAsk":
        if sum((self.folder is not None, self.snapshot is not None, bool(self.examples))) != 1:
            raise ValueError("name one reference: folder, snapshot or examples")
        return self


class Seen(Answer):
    """One image of a report."""

    object_id: int | None
    """None: a file that came with the request."""
    uri: str
    thumbnail: str | None


class Gap(Answer):
    """A reference without an image of the collection within the radius."""

    reference: Seen
    distance: float | None
    """Cosine distance to the nearest image; None: the collection holds nothing else."""
    nearest: Seen | None


class Region(Answer):
    """Images that look alike and that no reference covers."""

    images: int
    share: float
    """Of the collection's images that are not references."""
    examples: list[Seen]
    """Those nearest to its center, the nearest first."""


class CoverageReport(Answer):
    """A collection and a reference set compared, both ways."""

    collection: str
    at_seq: int
    radius: float
    references: int
    images: int
    """Of the collection, without the references themselves and what has the very same pixels."""
    gaps: int
    """References that no image of the collection covers."""
    uncovered: int
    """Images of the collection that no reference covers."""
    gap_list: list[Gap]
    """The farthest first."""
    regions: list[Region]
    """The largest first."""
    reference_distances: dict[str, float]
    """Quantiles of the references' distances to their nearest image: to choose a radius by."""
    image_distances: dict[str, float]
    """Quantiles of the images' distances to their nearest reference."""
    failures: dict[str, str]
    """Example -> why it was left out."""


class NoveltyAsk(Ask):
    """How much of what came was new."""

    by: NoveltyBy = "day"
    """An attribute (``robot``, ``site``), or ``day`` or ``hour`` of the capture."""
    last: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Only the newest so many frames of each group."""
    where: dict[Text, list[Text]] = Field(default_factory=dict)
    """Attributes that frames must have."""
    captured_after: datetime | None = None
    captured_before: datetime | None = None
    order: Literal["group", "novelty", "frames"] = "group"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class NoveltyGroup(Answer):
    """The frames of one robot, site or day."""

    group: str | None
    frames: int
    """That were judged: kept and duplicates; broken and rejected ones are counted apart."""
    kept: int
    novelty: float
    """Share of the frames that was kept."""
    rejected: int
    first_captured: datetime | None
    last_captured: datetime | None


class NoveltyReport(Answer):
    """Per group, how much of what came was new to the collection."""

    collection: str
    by: str
    last: int | None
    frames: int
    kept: int
    novelty: float
    groups: list[NoveltyGroup]


CoverageReport.model_rebuild()
