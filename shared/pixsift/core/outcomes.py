"""Findings about an object version, and the outcome that the ledger decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from pixsift.core.dedup import Halves
from pixsift.core.identity import ObjectVersion

Outcome = Literal["kept", "duplicate", "rejected", "gone", "failed"]
OUTCOMES: Final = ("kept", "duplicate", "rejected", "gone", "failed")
"""In the order in which people read them."""
Finding = Literal["embedded", "rejected", "failed", "gone"]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One object version with its facts, ready to be decided."""

    version: ObjectVersion
    finding: Finding
    """``embedded``: the ledger decides between kept and duplicate. The others are outcomes."""
    reason: str = ""
    """Short code; of a ``gone``: ``deleted``, ``expired``, ``erased``, ``not_found``."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    etag: str | None = None
    size_bytes: int | None = None
    sequencer: str | None = None
    content_sha256: bytes | None = None
    pixel_sha256: bytes | None = None
    """Both are needed for ``embedded``."""
    image_facts: Mapping[str, Any] | None = None
    quality: Mapping[str, float] | None = None
    captured_at: datetime | None = None
    """From metadata or EXIF; a ``captured_at`` in the key overrides it."""
    stored_at: datetime | None = None
    """S3's time of the write, used where no capture time is known."""
    thumbnail_key: str | None = None
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Source (``metadata``, ``exif``, ``sidecar``) -> name -> text. Those of the key are added by
    the ledger."""
    embedding: Halves | None = None
    """(D,) float16 of unit length; None when the ledger has one for these pixels already. Where
    both exist, the stored one counts."""
    look: bytes = b""


@dataclass(frozen=True, slots=True)
class Decision:
    """The current outcome of one object version in one collection."""

    version: ObjectVersion
    object_id: int
    outcome: Outcome
    reason: str
    representative_object_id: int | None
    distance: float | None
    seq: int
    """Since when it holds."""
    is_new: bool
    """False: it was there already, this delivery changed nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownImage:
    """Facts about bytes that were decoded and embedded before."""

    pixel_sha256: bytes
    image_facts: Mapping[str, Any] | None
    quality: Mapping[str, float] | None
    captured_at: datetime | None
    thumbnail_key: str | None


@dataclass(frozen=True, slots=True)
class ObjectOutcome:
    """One object version and its current outcome."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    content_sha256: bytes | None
    thumbnail_key: str | None
    quality: Mapping[str, float] | None
    outcome: Outcome
    reason: str
    representative_object_id: int | None
    distance: float | None


@dataclass(frozen=True, slots=True)
class SnapshotObject:
    """One object of a snapshot."""

    object_id: int
    rank: int
    split: str
    destination_key: str
    bucket: str
    key: str
    version_id: str
    content_sha256: bytes | None


def one_per_version(judged: Sequence[Judged]) -> list[Judged]:
    """Repeats within a batch folded: the most final finding of a version, at its first place."""
    chosen: dict[ObjectVersion, Judged] = {}
    for item in judged:
        other = chosen.get(item.version)
        if other is None or _RANK[item.finding] > _RANK[other.finding]:
            chosen[item.version] = item
    return list(chosen.values())


def lasting(detail: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a decision's detail that stays when the image is decided again: flags."""
    flags = (detail or {}).get("flags")
    return {"flags": flags} if flags else {}


_RANK: dict[Finding, int] = {"failed": 0, "embedded": 1, "rejected": 1, "gone": 2}


@dataclass(frozen=True, slots=True)
class Ended:
    """When an object was gone, as far as that is known."""

    sequencer: str | None
    """Of the event that ended it."""
    stored_at: datetime | None
    """S3's time of the write that was gone."""


def comes_back(item: Judged, ended: Ended) -> bool:
    """Whether an object that was gone was written again.

    Without versioning the same bytes under the same key are the same version to S3.
    Judged by S3's order of events where both are known, else by S3's time of the write. A fetch
    that was running when the object was deleted has neither a later event nor a later time: the
    object stays gone.
    """
    if item.version.is_versioned or item.finding == "gone":
        return False
    if item.sequencer is not None and ended.sequencer is not None:
        width = max(len(item.sequencer), len(ended.sequencer))
        mine, theirs = (s.upper().ljust(width, "0") for s in (item.sequencer, ended.sequencer))
        return mine > theirs
    times = (item.stored_at, ended.stored_at)
    return times[0] is not None and times[1] is not None and times[0] > times[1]


def replaces(
    finding: Finding,
    reason: str,
    outcome: Outcome | None,
    was: str | None,
    *,
    came_back: bool = False,
) -> bool:
    """Whether a new finding changes an object's open outcome (None: it has none yet).

    Any outcome except ``failed`` is final, with three exceptions: a deleted object becomes gone
    whatever it was, an erasure replaces being gone, and an object that ``came_back`` is judged
    again.
    """
    if outcome is None:
        return True
    if outcome == "gone":
        return was != "erased" and (came_back or (finding == "gone" and reason == "erased"))
    if finding == "gone":
        return True
    return outcome == "failed" and finding != "failed"
