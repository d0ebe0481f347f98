"""Collections: their settings, their counts, and the status report."""

from datetime import datetime
from typing import Any

from pixsift.answers.base import Answer
from pixsift.answers.queues import QueueDepth
from pixsift.core.arrival_health import GrowingShare


class ReasonCount(Answer):
    """Objects with one outcome for one reason."""

    outcome: str
    reason: str
    objects: int


class FlagCount(Answer):
    """Objects with one outcome that a quality check flagged."""

    outcome: str
    flag: str
    objects: int


class SnapshotCount(Answer):
    """Snapshots in one state."""

    state: str
    snapshots: int
    newest: datetime | None


class Counts(Answer):
    """A collection's outcomes that hold now, and how fast they come."""

    outcomes: dict[str, int]
    reasons: list[ReasonCount]
    flags: list[FlagCount]
    decisions_last_minute: int
    newest_decision: datetime | None
    snapshots: list[SnapshotCount]
    growing: list[GrowingShare]


class CollectionStatus(Counts):
    """A collection in a status report."""

    name: str
    model: str
    epsilon: float
    calibrated: bool
    """Whether the rule in use was measured with this very model."""
    generation: int
    seq: int


class AnomalyCount(Answer):
    """Messages that were not object events, by reason."""

    reason: str
    messages: int
    newest: datetime


class StatusReport(Answer):
    """What is in the ledger and what is still on its way."""

    collections: list[CollectionStatus]
    queues: dict[str, QueueDepth]
    anomalies: list[AnomalyCount]


class GenerationRule(Answer):
    """A generation and what it decides by."""

    generation: int
    epsilon: float
    second_look: dict[str, Any] | None
    keep_best: float | None
    state: str
    created_at: datetime
    switched_at_seq: int | None


class Space(Answer):
    """The model and recipe that a collection's vectors come from."""

    space_id: str
    name: str
    revision: str
    weights_sha256: str
    recipe_id: str
    pooling: str
    dimension: int


class CollectionSettings(Answer):
    """Everything that decides what becomes of an object in a collection."""

    name: str
    sources: list[dict[str, Any]]
    key_pattern: str | None
    space: Space
    epsilon: float
    second_look: dict[str, Any] | None
    keep_best: float | None = None
    quality_policy: dict[str, Any] | None
    expiry_policy: str
    calibration: dict[str, Any] | None
    generation: int
    seq: int
    generations: list[GenerationRule]


class CollectionDetails(CollectionSettings):
    """A collection's settings and counts."""

    counts: Counts


class CollectionLine(Answer):
    """A collection in a list: one key per outcome."""

    name: str
    epsilon: float
    generation: int
    seq: int
    kept: int
    duplicate: int
    rejected: int
    gone: int
    failed: int
