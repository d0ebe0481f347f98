"""The whole story of one object version."""

from datetime import datetime
from typing import Any

from pixsift.answers.base import Answer
from pixsift.answers.decisions import RulingLine


class ObjectFacts(Answer):
    """What is known of an object version; of an erased one hardly anything."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    etag: str | None
    size_bytes: int | None
    sequencer: str | None
    content_sha256: str | None
    pixel_sha256: str | None
    image_facts: dict[str, Any] | None
    quality: dict[str, Any] | None
    captured_at: datetime | None
    stored_at: datetime | None
    thumbnail_key: str | None
    first_seen_at: datetime
    erased_at: datetime | None


class RuleOfStory(Answer):
    """The rule that an object was judged by."""

    collection_id: int
    collection: str
    space_id: str
    model: str
    recipe_id: str
    generation: int
    state: str
    epsilon: float
    second_look: dict[str, Any] | None
    calibration: dict[str, Any] | None
    seq: int
    current_generation: int


class DecisionOfStory(Answer):
    """One decision about an object, and while it held."""

    collection_id: int
    collection: str
    generation: int
    outcome: str
    reason: str
    detail: dict[str, Any] | None
    distance: float | None
    valid_from_seq: int
    valid_to_seq: int | None
    """None: it still holds."""
    decided_at: datetime
    is_current_generation: bool
    representative: str | None
    representative_object_id: int | None


class Proof(Answer):
    """A duplicate's distance and verdict, measured again from the stored vectors."""

    recomputed_distance: float | None
    """None where a vector is missing."""
    stored_distance: float | None = None
    verdict: str | None
    verifies: bool | None
    second_look: dict[str, Any] | None


class NearMiss(Answer):
    """Of a kept image: the nearest kept image within epsilon, which is not the same picture."""

    uri: str
    stored_distance: float
    recomputed_distance: float | None
    """None where a vector is missing."""
    second_look: dict[str, Any] | None
    """Its score and signals, from the stored signals of both."""


class NearChild(Answer):
    """One of the duplicates that an object stands for."""

    uri: str
    reason: str
    distance: float | None


class StandsFor(Answer):
    """The duplicates that an object stands for: how many, and the nearest few."""

    count: int
    nearest: list[NearChild]


class Chapter(Answer):
    """What one collection makes of an object."""

    collection: str
    outcome: str | None
    """None: its decision was taken back, and it is in the queue again."""
    reason: str | None
    message: str | None
    """What the decoder said, where it refused or failed."""
    flags: list[str]
    """Quality checks that fired when it was decided."""
    rulings: list[RulingLine]
    """What people said of it, taken back or not."""
    representative: str | None
    rule: RuleOfStory
    history: list[DecisionOfStory]
    proof: Proof | None
    near_miss: NearMiss | None
    """None: no kept image was within epsilon when it was decided."""
    stands_for: StandsFor
    attributes: dict[str, Any]


class SnapshotOfStory(Answer):
    """A snapshot that holds the object."""

    snapshot_id: str
    name: str
    state: str
    at_seq: int
    location: str | None
    published_at: datetime | None
    rank: int
    split: str
    destination_key: str
    copy_state: str


class Story(Answer):
    """The whole story of one object version."""

    uri: str
    object: ObjectFacts
    collections: list[Chapter]
    snapshots: list[SnapshotOfStory]
