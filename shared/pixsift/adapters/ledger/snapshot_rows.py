"""What the ledger knows about snapshots, as values: rows in, values of the core out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pixsift.core.copyplan import CopyItem
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest_rows import ManifestRow

_ATTRIBUTE_SOURCES = ("exif", "key", "metadata", "sidecar")
"""Weakest first: a later source overrides an earlier one."""


@dataclass(frozen=True, slots=True)
class TakenRequest:
    """A request on record, pinned to its point of the collection."""

    request_id: str
    collection_id: int | None
    generation: int | None
    at_seq: int | None
    snapshot_id: str | None
    error: str | None
    body: dict[str, Any]
    collection: str | None
    seq: int | None
    """The collection's present seq."""
    collection_created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot as the ledger knows it."""

    snapshot_id: str
    collection_id: int
    collection: str
    generation: int
    request_id: str
    name: str
    request: dict[str, Any]
    spec_hash: str
    seed: int
    at_seq: int
    state: str
    """``resolved``, ``copying``, ``published`` or ``failed``."""
    error: str | None
    report: dict[str, Any]
    location: str | None
    fence: int
    stalls: int
    """Exporters that ended one after another without progress and without giving it back."""
    created_at: datetime
    published_at: datetime | None
    announced_at: datetime | None
    space_id: str
    epsilon: float | None
    second_look: Any
    calibration: Any
    images: int
    copied: int

    @property
    def prefix(self) -> str:
        """Where it lies in the curated bucket, with the closing slash."""
        return snapshot_prefix(self.name, self.snapshot_id)


@dataclass(frozen=True, slots=True)
class NewItem:
    """One chosen object, as the stored list has it; its rank is its place in the list."""

    object_id: int
    split: str
    destination_key: str
    reason: str = ""
    covering_radius: float | None = None


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot that is not an image."""

    path: str
    size_bytes: int
    sha256: str


def snapshot_prefix(name: str, snapshot_id: str) -> str:
    """``<name>/<snapshot-id>/``."""
    return f"{name}/{snapshot_id}/"


def copy_item(row: dict[str, Any]) -> CopyItem:
    """From ``planned_items``."""
    return CopyItem(
        rank=row["rank"],
        object_id=row["object_id"],
        source=ObjectVersion(row["bucket"], row["key"], row["version_id"]),
        etag=row["etag"],
        size_bytes=row["size_bytes"],
        content_sha256=bytes(row["content_sha256"] or b""),
        split=row["split"],
        destination_key=row["destination_key"],
    )


def manifest_row(row: dict[str, Any], duplicates: int) -> ManifestRow:
    """From ``manifest_rows``; duplicates: how many it stands for."""
    facts = row["image_facts"] or {}
    by_source = row["attributes"] or {}
    attributes: dict[str, str | None] = {}
    for source in _ATTRIBUTE_SOURCES:
        attributes |= by_source.get(source, {})
    return ManifestRow(
        rank=row["rank"],
        split=row["split"],
        path=row["destination_key"],
        source=ObjectVersion(row["bucket"], row["key"], row["version_id"]),
        etag=row["etag"],
        size_bytes=row["size_bytes"],
        content_sha256=bytes(row["content_sha256"] or b"").hex(),
        pixel_sha256=bytes(row["pixel_sha256"] or b"").hex(),
        format=facts.get("format", ""),
        width=facts.get("width", 0),
        height=facts.get("height", 0),
        captured_at=row["captured_at"],
        reason=row["reason"],
        covering_radius=row["covering_radius"],
        duplicates=duplicates,
        attributes={n: str(value) for n, value in attributes.items() if value is not None},
        quality=row["quality"] or {},
        rulings=row["rulings"] or [],
    )
