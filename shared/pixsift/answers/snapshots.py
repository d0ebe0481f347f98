"""Snapshots: requested, listed, shown, downloaded, cleaned up."""

from datetime import datetime
from typing import Any, Literal

from pixsift.answers.base import Answer


class SnapshotLine(Answer):
    """A snapshot in a list."""

    snapshot_id: str
    collection: str
    name: str
    at_seq: int
    state: Literal["resolved", "copying", "published", "failed"]
    error: str | None
    location: str | None
    created_at: datetime
    published_at: datetime | None
    images: int
    copied: int


class SnapshotFacts(SnapshotLine):
    """One snapshot and its progress."""

    generation: int
    request_id: str


class SnapshotImage(Answer):
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


class RefusedRequest(Answer):
    """A request that led to no snapshot."""

    request_id: str
    error: str
    received_at: datetime
    body: dict[str, Any]


class SnapshotList(Answer):
    """Snapshots, newest first, and the requests that led to none."""

    snapshots: list[SnapshotLine]
    refused: list[RefusedRequest]


class Downloaded(Answer):
    """What a download brought home."""

    snapshot_id: str
    folder: str
    files: int
    fetched: int
    missing: list[str]
    """Paths that are gone at S3."""


class Cleaned(Answer):
    """What failed snapshots had left behind."""

    applied: bool
    objects: dict[str, int]
    """Snapshot id -> objects."""


class SentRequest(Answer):
    """A snapshot request on its way."""

    request_id: str
    queue: str
