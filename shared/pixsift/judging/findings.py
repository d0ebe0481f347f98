"""Turns an arrival into the findings that the ledger stores. Pure."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.core.outcomes import Finding, Judged, KnownImage
from pixsift.core.quality import QualityPolicy, judge
from pixsift.core.sources import parse_timestamp
from pixsift.errors import ObjectGoneError, PermanentError, PixsiftError, TransientError
from pixsift.judging.arrivals import Arrival

_REJECTED = ("empty", "too_large")
_DETAIL_CHARACTERS = 500
_TIME_NAMES = ("captured_at", "captured-at", "timestamp", "capture_time", "capture-time")
"""User metadata that may hold the time, in this order; the first that is one counts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """What is known of the pixels: decoded now, or known from the same bytes."""

    pixel_sha256: bytes
    facts: Mapping[str, Any]
    quality: Mapping[str, float]
    captured_at: datetime | None
    thumbnail_key: str | None
    decoded: DecodedImage | None


def from_error(arrival: Arrival, version: ObjectVersion, error: PermanentError) -> Judged:
    """The outcome of a permanent error: gone, rejected, or failed."""
    finding: Finding = "failed"
    if isinstance(error, ObjectGoneError):
        finding = "gone"
    elif error.reason in _REJECTED:
        finding = "rejected"
    detail = {} if isinstance(error, ObjectGoneError) else _detail(error.detail)
    return _base(arrival, version, finding, error.reason, detail)


def from_decode_failure(arrival: Arrival, version: ObjectVersion, failure: DecodeFailure) -> Judged:
    """An image without pixels is rejected, with the decoder's reason."""
    return _base(arrival, version, "rejected", failure.reason, _detail(failure.detail))


def from_last_try(arrival: Arrival, version: ObjectVersion, error: Exception) -> Judged:
    """The error that ended the slow lane's attempt, as ``failed``."""
    reason = "gave_up" if isinstance(error, PixsiftError) else "internal_error"
    if isinstance(error, TransientError) and error.reason == "access_denied":
        reason = "access_denied"
    return _base(arrival, version, "failed", reason, _detail(f"{type(error).__name__}: {error}"))


def given_up(arrival: Arrival) -> Judged | None:
    """``failed`` for an arrival that was never finished; None for an event without a version."""
    if arrival.version is None:
        return None
    detail = _detail("every attempt ended the process, or outlasted its visibility timeout")
    return _base(arrival, arrival.version, "failed", "ended_the_process", detail)


def gone(version: ObjectVersion, reason: str, sequencer: str | None) -> Judged:
    """A version that is no longer there. sequencer: of the event that ended it."""
    detail = {"sequencer": sequencer} if sequencer and not version.is_versioned else {}
    return Judged(version, "gone", reason, detail, sequencer=None if detail else sequencer)


def rejected_everywhere(arrival: Arrival) -> bool:
    """Whether no collection wants the image: then it need not be embedded."""
    image = _image(arrival)
    return (
        image is not None
        and not arrival.shadows
        and all(_rejection(image, collection) is not None for collection in arrival.collections)
    )


def for_space(arrival: Arrival) -> list[Judged]:
    """The finding in the consumer's space, independent of a collection's policy."""
    if arrival.verdict is not None:
        return [arrival.verdict]
    image = _image(arrival)
    if image is None or arrival.version is None:
        return []
    return [_embedded(arrival, arrival.version, image)]


def for_collection(arrival: Arrival, collection: Collection) -> list[Judged]:
    """All findings of this arrival for one collection."""
    return [*_own(arrival, collection), *arrival.others]


def _own(arrival: Arrival, collection: Collection) -> list[Judged]:
    if arrival.verdict is not None:
        return [arrival.verdict]
    image = _image(arrival)
    if image is None or arrival.version is None:
        return []
    reason = _rejection(image, collection)
    flags = _verdict(image, collection).flags
    judged = replace(
        _embedded(arrival, arrival.version, image),
        finding="rejected" if reason else "embedded",
        reason=reason or "",
        detail={"flags": list(flags)} if flags else {},
    )
    return [judged]


def _embedded(arrival: Arrival, version: ObjectVersion, image: _Image) -> Judged:
    return replace(
        _base(arrival, version, "embedded", ""),
        pixel_sha256=image.pixel_sha256,
        image_facts=image.facts,
        quality=image.quality,
        captured_at=_captured_at(arrival, image),
        thumbnail_key=image.thumbnail_key,
        attributes=_attributes(arrival, image),
        embedding=None if arrival.embedding is None else arrival.embedding.astype(np.float16),
        look=image.decoded.look if image.decoded else b"",
    )


def _image(arrival: Arrival) -> _Image | None:
    if arrival.decoded is not None:
        decoded = arrival.decoded
        return _Image(
            pixel_sha256=decoded.pixel_sha256,
            facts=asdict(decoded.facts),
            quality={n: v for n, v in decoded.quality.items() if math.isfinite(v)},
            captured_at=parse_timestamp(decoded.facts.captured_at or ""),
            thumbnail_key=arrival.thumbnail_key,
            decoded=decoded,
        )
    if arrival.known is not None:
        known: KnownImage = arrival.known
        return _Image(known.pixel_sha256, known.image_facts or {}, known.quality or {},
                      known.captured_at, known.thumbnail_key, None)  # fmt: skip
    return None


def _verdict(image: _Image, collection: Collection) -> Any:
    facts = image.decoded.facts if image.decoded else None
    return judge(image.quality, facts, QualityPolicy.from_stored(collection.quality_policy))


def _rejection(image: _Image, collection: Collection) -> str | None:
    reason: str | None = _verdict(image, collection).rejected_reason
    return reason


def _base(
    arrival: Arrival,
    version: ObjectVersion,
    finding: Finding,
    reason: str,
    detail: Mapping[str, Any] | None = None,
) -> Judged:
    stored = arrival.stored
    return Judged(
        version, finding, reason,
        detail=detail or {},
        etag=stored.etag if stored else arrival.event.etag,
        size_bytes=stored.size_bytes if stored else arrival.size_bytes,
        sequencer=arrival.event.sequencer,
        content_sha256=arrival.content_sha256,
        stored_at=stored.modified_at if stored else None,
    )  # fmt: skip


def _captured_at(arrival: Arrival, image: _Image) -> datetime | None:
    metadata = arrival.stored.metadata if arrival.stored else {}
    for name in _TIME_NAMES:
        if (value := parse_timestamp(metadata.get(name, ""))) is not None:
            return value
    return image.captured_at


def _attributes(arrival: Arrival, image: _Image) -> dict[str, dict[str, str]]:
    metadata = dict(arrival.stored.metadata) if arrival.stored else {}
    found = {"metadata": metadata, "exif": dict(image.facts.get("exif") or {})}
    return {source: value for source, value in found.items() if value}


def _detail(text: str) -> dict[str, str]:
    # PostgreSQL cannot store NUL, and a decoder's message may quote the file.
    return {"message": text.replace("\0", "")[:_DETAIL_CHARACTERS]} if text else {}
