"""What long or rare operations answer, where it leaves the process: audits, re-decisions, health.

The everyday answers are in ``pixsift.answers``. Keys are stable: programs read them.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from pixsift.answers import ChangedOutcome


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, from_attributes=True)


class Finding(_Report):
    """One broken invariant."""

    invariant: str
    """``INV1`` ... ``INV10``."""
    message: str
    objects: list[int]
    """object_ids it is about."""


class AuditReport(_Report):
    """What an audit of one collection looked at and found."""

    collection: str
    seq: int
    generation: int
    kept: int
    duplicates: int
    pairs_compared: int
    undecided: int
    """Objects whose decision was taken back and that are in the queue again."""
    findings: list[Finding]
    repaired: list[ChangedOutcome]
    miss_rate: float
    """Share of kept images that should have been duplicates."""


class Reindexed(_Report):
    """A collection's HNSW index was built anew."""

    built_to_seq: int


class RuleComparison(_Report):
    """What another rule would change; nothing was changed."""

    collection: str
    at_seq: int
    epsilon_now: float
    epsilon: float
    kept_now: int
    kept: int
    duplicate_now: int
    duplicate: int
    newly_kept: int
    newly_duplicate: int
    seconds: float
    examples: list[dict[str, Any]]
    """Objects whose outcome would change: uri, from, to, of, distance."""


class SwitchedGeneration(_Report):
    """A new generation is in use."""

    collection: str
    generation: int
    seq: int
    epsilon: float
    kept: int
    duplicate: int
    seconds: float
    lock_seconds: float
    """How long decisions of the collection had to wait."""


class ReembedEstimate(_Report):
    """What a run in another embedding space takes, before it starts."""

    collection: str
    space_id: str
    to_space_id: str
    model: str
    recipe_id: str
    epsilon: float
    preset: str | None
    calibrated: bool
    objects: int
    """Judged objects that have no vector there yet."""
    fetches: int
    """GET requests: one for all objects with the same bytes."""
    bytes: int
    request_dollars: float
    """For the requests; what leaves a region is not counted."""
    seconds: float | None
    """To fetch and embed, measured on ``measured_on`` of the images; None: there are none."""
    measured_on: int
    forgotten: int
    """Expired images whose memory ends, since their bytes are gone."""


class SourceDifferences(_Report):
    """What the comparison of one source with the ledger found, and how far it got."""

    listed: int
    """Versions at S3, delete markers not counted."""
    ignored: int
    """Versions that no collection judges."""
    too_new: int
    settled: int
    missing: int
    gone: int
    messages: int
    """Sent to the ingest queue."""
    last_key: str
    """Everything up to here is done: an interrupted run continues after it."""
    examples: list[str]


class DifferencesBySource(RootModel[dict[str, SourceDifferences]]):
    """Differences by ``s3://bucket/prefix``."""


class ErasureReport(_Report):
    """What an erasure removed."""

    objects: list[str]
    """URIs, the copies under other keys among them."""
    vectors: int
    thumbnails: int
    snapshots: list[str]
    """Snapshots that held it, redacted."""
    source_versions: int
    kept_vectors: int
    """Vectors left because another object, which is not erased, has the same pixels."""
    journal: list[str]
    """Entries of the journal that oblige a restored ledger to the same."""


class ImportedAttributes(_Report):
    """What an import of attributes did."""

    rows: int
    objects: int
    changed: int
    """Objects whose attributes are now others."""
    unknown: int
    """Rows that name no object of the collection."""
    seq: int
    """The collection's point after the import."""


class FileQuality(_Report):
    """One file of a folder."""

    image: str
    outcome: str
    reason: str | None
    checks: list[str]
    metrics: dict[str, float]


class FolderQuality(_Report):
    """The quality of a folder's images."""

    outcomes: dict[str, int]
    checks: dict[str, int]
    refusals: dict[str, int]
    policy: dict[str, Any]
    images: list[FileQuality]


class StuckRun(_Report):
    """Equal frames in a row."""

    first: str
    last: str
    frames: int
    seconds: float


class ExposureDrift(_Report):
    """How brightness changed."""

    change: float
    per_hour: float
    scatter: float


class CameraReport(_Report):
    """The health of one camera over time."""

    camera: str
    frames: int
    healthy: bool
    stuck: list[StuckRun]
    drifts: bool
    drift: ExposureDrift | None


class CostLine(_Report):
    """One thing that is paid for."""

    name: str
    amount: float
    unit: str
    dollars: float
    source: str


class CostReport(_Report):
    """What a month on AWS costs, in dollars."""

    month: float
    per_million_images: float
    prices_as_of: str
    lines: list[CostLine]


class ReleaseImages(_Report):
    """The two images of a release, by digest."""

    gpu: str
    services: str


class StackChange(_Report):
    """One line of a change set, in CloudFormation's words."""

    action: str
    logical_id: str
    type: str
    replacement: str


class PlannedStack(_Report):
    """What would happen to a stack. types: what a new one is made of, with counts."""

    stack: str
    action: str
    changes: list[StackChange]
    types: list[tuple[str, int]]


class DeploymentPlan(_Report):
    """What a deployment would change, and what a month costs, in dollars."""

    account: str
    region: str
    notes: list[str]
    stacks: list[PlannedStack]
    images_per_day: float
    month: float


class TaskReport(_Report):
    """How a one-off task ended, and its last lines."""

    status: int | None
    reason: str
    lines: list[str]


class DeploymentReport(_Report):
    """What a deployment did. stacks: created, updated or unchanged by name."""

    ok: bool
    account: str
    region: str
    notes: list[str]
    stacks: dict[str, str]
    images: ReleaseImages
    doctor: TaskReport | None


class PendingMigrations(_Report):
    """Migrations that would be applied now."""

    pending: list[str]


class AppliedMigrations(_Report):
    """Migrations that were applied."""

    applied: list[str]


class StrategyComparison(_Report):
    """Every strategy at several sizes, on the pool of one request."""

    collection: str
    at_seq: int
    candidates: int
    compared_on: int
    odd: int
    label: str | None
    group: str | None
    tested: int
    k: list[int]
    strategies: dict[str, dict[str, Any]]


class CalibrationFile(RootModel[dict[str, Any]]):
    """A calibration, as ``Calibration.to_json`` writes it."""


class OutcomeOfFiles(_Report):
    """How many files of a folder became the same for the same reason."""

    outcome: str
    reason: str
    images: int


class FolderReport(_Report):
    """What became of a folder of pictures, and where the output is."""

    folder: str
    collection: str
    ledger: str
    seconds: float
    stopped: bool
    """Asked to stop before the end: run again to go on."""
    files: int
    judged: int
    """In this run."""
    unchanged: int
    ignored: int
    removed: int
    undecided: int
    unreadable_folders: list[str]
    outcomes: list[OutcomeOfFiles]
    flags: dict[str, int]
    snapshot_id: str | None
    chosen: int
    changed: list[str]
    """Chosen files that changed meanwhile and were left out."""
    out: str | None
    report: str | None
