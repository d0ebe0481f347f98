"""What operations answer, where it leaves the process: ``--json`` today, HTTP tomorrow.

Keys are stable: programs read them. Beside ``pixsift.messages``, which holds what is asked.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ChosenImage(_Answer):
    """One pick of a selection."""

    rank: int
    object_id: int
    uri: str
    split: str
    reason: str


class SelectionPreview(_Answer):
    """What a request would choose, and how well that covers the pool. Strategies add facts."""

    model_config = ConfigDict(extra="allow", frozen=True)

    strategy: str
    k: int
    seed: int
    candidates: int
    eligible: int
    preselected: int
    outliers: int
    erased: int
    collection: str
    at_seq: int
    generation: int
    coverage: dict[str, Any]
    """See ``Comparison.to_json``."""
    splits: dict[str, int]
    outlier_uris: list[str]
    images: list[ChosenImage]


class ImageLine(_Answer):
    """One image with the outcome that holds now."""

    object_id: int
    uri: str
    outcome: str
    reason: str | None
    distance: float | None
    representative: str | None
    decided_at: datetime
    thumbnail_key: str | None


class ImageList(_Answer):
    """Images of a collection, the newest decision first."""

    collection: str
    images: list[ImageLine]


class KeyOutcomes(_Answer):
    """What became of uploaded keys."""

    outcomes: dict[str, int]
    """``outcome (reason)`` -> decisions."""
    ignored: int
    """Keys that no collection judges."""
    undecided: int
    """Keys without an outcome when the wait was over."""


class Neighbor(_Answer):
    """One kept image near a query."""

    object_id: int
    uri: str
    distance: float
    """Cosine distance to the nearest of the query's images."""
    nearest_to: str
    """That image's file, or its URI."""
    mode: int = 0
    """Which group of query images found it; 0 where they were not grouped."""


class Neighbors(_Answer):
    """The kept images nearest to a query."""

    collection: str
    neighbors: list[Neighbor]
    """Nearest first."""
    failures: dict[str, str]
    """Query file -> why it was left out."""


class ChangedOutcome(_Answer):
    """One object whose outcome is another one now."""

    object_id: int
    was: str
    outcome: str
    reason: str
    representative: int | None
    distance: float | None


class TakenBack(_Answer):
    """What became of a decision that was taken back."""

    sent_again: list[str]
    """URIs sent through the ingest queue once more."""
    decided_again: list[ChangedOutcome]
    unchanged: int
    """Versions decided again with the same outcome."""


class RuledChange(_Answer):
    """One image that a ruling gives another outcome."""

    uri: str
    was: str
    outcome: str
    reason: str
    representative: str | None
    distance: float | None


class RulingDone(_Answer):
    """What rulings, or taking them back, changed; or would change (``dry_run``)."""

    collection: str
    dry_run: bool
    rulings: int
    ruling_ids: list[str]
    batch: str | None
    """Of several rulings: what they are undone by."""
    groups: int | None
    """Of a bulk ruling: groups of two images and more that were looked at."""
    changed: dict[str, int]
    """``kept -> duplicate`` and so on: how many images."""
    sample: list[RuledChange]
    """Some of these images, drawn at random."""


class RulingLine(_Answer):
    """A ruling."""

    ruling_id: str
    kind: str
    uri: str
    other: str | None
    who: str
    why: str
    batch: str | None
    said_at: datetime
    from_seq: int
    to_seq: int | None
    """None: it is in force."""


class RulingList(_Answer):
    """Rulings of a collection, the oldest first."""

    collection: str
    rulings: list[RulingLine]


class ProtectedLine(_Answer):
    """An evaluation set that selections keep away from."""

    protected_id: str
    kind: Literal["snapshot", "prefix", "folder"]
    source: str
    distance: float
    """Cosine distance within which nothing is chosen."""
    pictures: int
    """Different pictures in it now."""
    who: str
    why: str
    declared_at: datetime


class ProtectedList(_Answer):
    """The evaluation sets in force of a collection, the oldest first."""

    collection: str
    sets: list[ProtectedLine]


class QueueDepth(_Answer):
    """About how many messages a queue holds; None and an error where it does not answer."""

    waiting: int | None
    in_flight: int | None
    error: str | None


class DeadLetter(_Answer):
    """One message of a dead-letter queue."""

    message_id: str
    receive_count: int
    sent_at: float | None
    objects: list[str]
    anomaly: str | None


class DeadLetterQueue(_Answer):
    """A dead-letter queue as it is now."""

    waiting: int
    in_flight: int
    messages: list[DeadLetter]


class FailedVersion(_Answer):
    """An object version whose outcome is ``failed``."""

    bucket: str
    key: str
    version_id: str
    etag: str | None
    size_bytes: int | None
    reason: str
    collection: str
    decided_at: datetime


class Anomaly(_Answer):
    """A message that was not an object event."""

    anomaly_id: int
    queue: str
    message_id: str
    reason: str
    received_at: datetime
    body: str
    """Its beginning."""


class Undecided(_Answer):
    """What could not be decided: waiting messages, failed objects, anomalies."""

    dlq: DeadLetterQueue
    failed: list[FailedVersion]
    failed_total: int
    anomalies: list[Anomaly]


class Redriven(_Answer):
    """What was sent to the ingest queue once more."""

    messages: int
    failed_objects: int


class ReasonCount(_Answer):
    """Objects with one outcome for one reason."""

    outcome: str
    reason: str
    objects: int


class FlagCount(_Answer):
    """Objects with one outcome that a quality check flagged."""

    outcome: str
    flag: str
    objects: int


class SnapshotCount(_Answer):
    """Snapshots in one state."""

    state: str
    snapshots: int
    newest: datetime | None


class GrowingShare(_Answer):
    """A reason of refusals whose share among the newest decisions has grown."""

    reason: str
    share: float
    """Among the newest, 0 to 1."""
    before: float
    """Among those before them."""
    newest: int
    """How many the newest are."""


class Counts(_Answer):
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
    epsilon: float
    generation: int
    seq: int


class AnomalyCount(_Answer):
    """Messages that were not object events, by reason."""

    reason: str
    messages: int
    newest: datetime


class StatusReport(_Answer):
    """What is in the ledger and what is still on its way."""

    collections: list[CollectionStatus]
    queues: dict[str, QueueDepth]
    anomalies: list[AnomalyCount]


class GenerationRule(_Answer):
    """A generation and what it decides by."""

    generation: int
    epsilon: float
    second_look: dict[str, Any] | None
    state: str
    created_at: datetime
    switched_at_seq: int | None


class Space(_Answer):
    """The model and recipe that a collection's vectors come from."""

    space_id: str
    name: str
    revision: str
    weights_sha256: str
    recipe_id: str
    pooling: str
    dimension: int


class CollectionSettings(_Answer):
    """Everything that decides what becomes of an object in a collection."""

    name: str
    sources: list[dict[str, Any]]
    key_pattern: str | None
    space: Space
    epsilon: float
    second_look: dict[str, Any] | None
    quality_policy: dict[str, Any] | None
    expiry_policy: str
    calibration: dict[str, Any] | None
    generation: int
    seq: int
    generations: list[GenerationRule]


class CollectionDetails(CollectionSettings):
    """A collection's settings and counts."""

    counts: Counts


class CollectionLine(BaseModel):
    """A collection in a list: one key per outcome."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str
    epsilon: float
    generation: int
    seq: int
    kept: int
    duplicate: int
    rejected: int
    gone: int
    failed: int


class SnapshotFacts(_Answer):
    """One snapshot and its progress."""

    snapshot_id: str
    name: str
    collection: str
    state: Literal["resolved", "copying", "published", "failed"]
    images: int
    copied: int
    at_seq: int
    generation: int
    request_id: str
    location: str | None
    error: str | None
    created_at: datetime
    published_at: datetime | None


class SnapshotImage(_Answer):
    """One image of a snapshot."""

    rank: int
    split: str
    path: str
    source: str
    reason: str
    duplicates: int


class SnapshotDetails(SnapshotFacts):
    """A snapshot with its request, report and list."""

    request: dict[str, Any]
    report: dict[str, Any]
    items: list[SnapshotImage]


class SnapshotLine(_Answer):
    """A snapshot in a list."""

    snapshot_id: str
    collection: str
    name: str
    at_seq: int
    state: str
    error: str | None
    location: str | None
    created_at: datetime
    published_at: datetime | None
    images: int
    copied: int


class RefusedRequest(_Answer):
    """A request that led to no snapshot."""

    request_id: str
    error: str
    received_at: datetime
    body: dict[str, Any]


class SnapshotList(_Answer):
    """Snapshots, newest first, and the requests that led to none."""

    snapshots: list[SnapshotLine]
    refused: list[RefusedRequest]


class Downloaded(_Answer):
    """What a download brought home."""

    snapshot_id: str
    folder: str
    files: int
    fetched: int
    missing: list[str]
    """Paths that are gone at S3."""


class Cleaned(_Answer):
    """What failed snapshots had left behind."""

    applied: bool
    objects: dict[str, int]
    """Snapshot id -> objects."""


class SentRequest(_Answer):
    """A snapshot request on its way."""

    request_id: str
    queue: str


class AttributeOverview(_Answer):
    """One attribute of a collection from one source."""

    name: str
    source: str
    objects: int
    values: int


class Uploaded(_Answer):
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


class DoctorFinding(_Answer):
    """One dependency, with the remedy in the words of a terminal."""

    name: str
    state: Literal["ok", "wrong", "note"]
    detail: str
    remedy: str


class DoctorReport(_Answer):
    """Every dependency."""

    ok: bool
    findings: list[DoctorFinding]


class DemoReport(_Answer):
    """What the demo found; ``complaints`` is empty when the ledger is right."""

    uploaded: int
    ignored: int
    outcomes: dict[str, dict[str, int]]
    """Outcome -> reason -> objects."""
    snapshot_id: str
    snapshot_images: int
    snapshot_location: str
    snapshot_folder: str
    contact_sheet: str
    seconds: float
    complaints: list[str]


class LoopFacts(_Answer):
    """The local loop that runs."""

    environment: dict[str, str]
    """The variables with which any process finds it."""
    state: str
    """Its folder."""


class LoopStopped(_Answer):
    """What became of the local loop."""

    stopped: list[str]
    object_versions_saved: int | None
    """None: there was nothing to save, or LocalStack was gone."""
    deleted: bool


class ObjectFacts(_Answer):
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


class RuleOfStory(_Answer):
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


class DecisionOfStory(_Answer):
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


class Proof(_Answer):
    """A duplicate's distance and verdict, measured again from the stored vectors."""

    recomputed_distance: float | None
    """None where a vector is missing."""
    stored_distance: float | None = None
    verdict: str | None
    verifies: bool | None
    second_look: dict[str, Any] | None


class NearMiss(_Answer):
    """Of a kept image: the nearest kept image within epsilon, which is not the same picture."""

    uri: str
    stored_distance: float
    recomputed_distance: float | None
    """None where a vector is missing."""
    second_look: dict[str, Any] | None
    """Its score and signals, from the stored signals of both."""


class NearChild(_Answer):
    """One of the duplicates that an object stands for."""

    uri: str
    reason: str
    distance: float | None


class StandsFor(_Answer):
    """The duplicates that an object stands for: how many, and the nearest few."""

    count: int
    nearest: list[NearChild]


class Chapter(_Answer):
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


class SnapshotOfStory(_Answer):
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


class Story(_Answer):
    """The whole story of one object version."""

    uri: str
    object: ObjectFacts
    collections: list[Chapter]
    snapshots: list[SnapshotOfStory]
