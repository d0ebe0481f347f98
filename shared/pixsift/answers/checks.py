"""Audits, comparisons with S3, and erasures."""

from pydantic import RootModel

from pixsift.answers.base import Answer
from pixsift.answers.decisions import NamedOutcome
from pixsift.core.audit import Violation
from pixsift.core.reconcile import Differences


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
    findings: list[Violation]
    repaired: list[NamedOutcome]
    miss_rate: float
    """Share of kept images that should have been duplicates: an approximate search missed them."""


class Reindexed(Answer):
    """A collection's HNSW index was built again."""

    built_to_seq: int


class SourceDifferences(RootModel[Differences]):
    """Differences of one source."""


class DifferencesBySource(RootModel[dict[str, Differences]]):
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
