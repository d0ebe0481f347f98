"""The findings of an arrival for the ledger."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from pixsift.core.collection import Collection
from pixsift.core.events import ObjectCreated
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage, DecodeFailure, ImageFacts
from pixsift.errors import ObjectGoneError, PermanentError, TransientError
from pixsift.judging import findings
from pixsift.judging.arrivals import Arrival, Delivery, StoredFacts

VERSION = ObjectVersion("b", "k", "v1")


def arrival(**more: Any) -> Arrival:
    delivery = Delivery()
    event = ObjectCreated("b", "k", "v1", etag="e", size_bytes=5, sequencer="0A")
    return Arrival(delivery, event, [collection()], VERSION, **more)


def collection(**policy: Any) -> Collection:
    return Collection(1, "c", (), None, "space", 0.1, None, quality_policy=policy)


def image(**quality: float) -> DecodedImage:
    facts = ImageFacts("JPEG", 8, 8, "RGB", captured_at="2026-11-22T10:15:03")
    pixels = np.zeros((224, 224, 3), np.uint8)
    return DecodedImage(facts, b"p" * 32, pixels, quality=quality, look=b"look")


@pytest.mark.parametrize(
    ("error", "finding", "reason"),
    [
        (ObjectGoneError("deleted", "get"), "gone", "deleted"),
        (ObjectGoneError("overwritten", "get"), "gone", "overwritten"),
        (PermanentError("empty"), "rejected", "empty"),
        (PermanentError("too_large", "9 bytes"), "rejected", "too_large"),
        (PermanentError("archived", "Glacier"), "failed", "archived"),
        (PermanentError("embed_nonfinite"), "failed", "embed_nonfinite"),
    ],
)
def test_from_error(error: PermanentError, finding: str, reason: str) -> None:
    judged = findings.from_error(arrival(), VERSION, error)
    assert (judged.finding, judged.reason) == (finding, reason)
    assert (judged.etag, judged.size_bytes, judged.sequencer) == ("e", 5, "0A")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TransientError("403", reason="access_denied"), "access_denied"),
        (TransientError("the body broke off"), "gave_up"),
        (ZeroDivisionError("bug"), "internal_error"),
    ],
)
def test_from_last_try(error: Exception, reason: str) -> None:
    judged = findings.from_last_try(arrival(), VERSION, error)
    assert (judged.finding, judged.reason) == ("failed", reason)
    assert type(error).__name__ in judged.detail["message"]


def test_from_decode_failure__its_message_can_be_stored() -> None:
    failure = DecodeFailure("truncated", "found \0 at 7" + "x" * 1000)
    judged = findings.from_decode_failure(arrival(), VERSION, failure)
    assert (judged.finding, judged.reason) == ("rejected", "truncated")
    assert "\0" not in judged.detail["message"] and len(judged.detail["message"]) == 500


def test_for_collection__an_embedded_image_with_its_facts() -> None:
    decoded = image(sharpness=0.5, brightness_p99=0.9, odd=float("nan"))
    stored = StoredFacts("real-etag", 7, {"robot": "r2"})
    one = arrival(decoded=decoded, stored=stored, content_sha256=b"c" * 32,
                  embedding=np.ones(4, np.float32), thumbnail_key="t")  # fmt: skip
    [judged] = findings.for_collection(one, collection())
    assert judged.finding == "embedded"
    assert (judged.etag, judged.size_bytes) == ("real-etag", 7)
    assert judged.quality is not None and "odd" not in judged.quality, "JSON has no NaN"
    assert judged.attributes == {"metadata": {"robot": "r2"}}
    assert judged.captured_at == datetime(2026, 11, 22, 10, 15, 3, tzinfo=UTC)
    assert judged.embedding is not None and judged.embedding.dtype == np.float16
    assert judged.look == b"look"


def test_for_collection__metadata_knows_the_time_better_than_exif() -> None:
    stored = StoredFacts("e", 7, {"captured-at": "2025-01-02T03:04:05Z"})
    [judged] = findings.for_collection(arrival(decoded=image(), stored=stored), collection())
    assert judged.captured_at == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "told"),
    [("captured_at", "2025-01-02T12:04:05+09:00"), ("capture-time", "1735787045"),
     ("timestamp", "1735787045000000000")],
)  # fmt: skip
def test_for_collection__times_in_metadata(name: str, told: str) -> None:
    stored = StoredFacts("e", 7, {"captured_at_unknown": "x", name: told})
    [judged] = findings.for_collection(arrival(decoded=image(), stored=stored), collection())
    assert judged.captured_at == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_for_collection__s3s_own_time_is_kept_apart() -> None:
    written = datetime(2026, 11, 23, tzinfo=UTC)
    decoded = image()
    timeless = replace(decoded, facts=replace(decoded.facts, captured_at=None))
    one = arrival(decoded=timeless, stored=StoredFacts("e", 7, {}, written))
    [judged] = findings.for_collection(one, collection())
    assert (judged.captured_at, judged.stored_at) == (None, written)


def test_for_collection__exif_becomes_attributes() -> None:
    decoded = image()
    told = {"camera_model": "C920", "gps_latitude": "50.1"}
    known = replace(decoded, facts=replace(decoded.facts, exif=told))
    [judged] = findings.for_collection(arrival(decoded=known), collection())
    assert judged.attributes == {"exif": told}


def test_for_collection__a_sound_files_oddity_is_a_flag_that_may_reject() -> None:
    one = arrival(decoded=image(stray_bytes=3.0, brightest_block=0.9))
    [kept] = findings.for_collection(one, collection())
    assert kept.finding == "embedded" and "stray_bytes" in kept.detail["flags"]
    [rejected] = findings.for_collection(one, collection(stray_bytes="reject"))
    assert (rejected.finding, rejected.reason) == ("rejected", "stray_bytes")


def test_for_collection__each_collection_has_its_own_policy() -> None:
    one = arrival(decoded=image(entropy_bits=2.0))
    strict = collection(low_information={"action": "reject", "min": 5.0})
    assert findings.for_collection(one, collection())[0].finding == "embedded"
    [rejected] = findings.for_collection(one, strict)
    assert (rejected.finding, rejected.reason) == ("rejected", "low_information")
    assert not findings.rejected_everywhere(one)
    one.collections = [strict]
    assert findings.rejected_everywhere(one)


def test_given_up__needs_a_version_to_blame() -> None:
    judged = findings.given_up(arrival())
    assert judged is not None and judged.finding == "failed"
    nameless = arrival()
    nameless.version = None
    assert findings.given_up(nameless) is None
