"""Audits, comparisons with S3, and erasures."""

from pydantic import RootModel

from pixsift.answers.base import Answer
from pixsift.answers.decisions import ChangedOutcome


class Finding(Answer):
    """One broken invariant."""

    invariant: str
    """``INV1`` ... ``INV10``."""
    message: str
    objects: list[int]
    """object_ids it is about."""


class AuditReport(Answer):
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


class Reindexed(Answer):
    """A collection's HNSW index was built anew."""

    built_to_seq: int


class SourceDifferences(Answer):
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


class ErasureReport(Answer):
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
