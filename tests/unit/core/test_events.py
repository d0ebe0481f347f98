"""The parser against real bodies, forged ones and many made-up ones."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counts import examples
from pixsift.core.events import (
    ObjectCreated,
    ObjectEvent,
    ObjectRemoved,
    ParsedMessage,
    notification_of,
    parse_notification,
)

DATA = Path(__file__).resolve().parents[2] / "data" / "events"
BUCKET = "robot-images"


def s3_event(key: str, name: str = "ObjectCreated:Put", **changes: Any) -> dict[str, Any]:
    return {
        "eventVersion": changes.pop("eventVersion", "2.1"),
        "eventName": name,
        "s3": {
            "bucket": {"name": changes.pop("bucket", BUCKET)},
            "object": {"key": key, "size": 5, "eTag": "abc", "versionId": "v1",
                       "sequencer": "0055AED6DCD90281E5"} | changes,
        },
    }  # fmt: skip


def body(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


GOLDEN: dict[str, list[ObjectEvent]] = {
    "s3_put_2_1_versioned.json": [
        ObjectCreated(BUCKET, "robot 2/cam+front/näher.jpg", "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                      "d41d8cd98f00b204e9800998ecf8427e", 1024, "0055AED6DCD90281E5"),
    ],
    "s3_multipart_2_6_unversioned.json": [
        ObjectCreated(BUCKET, "a/b.png", None, "9b2cf535f27731c974343645a3985328-3", 17825792,
                      "0068B0A1C2D3E4F500"),
    ],
    "s3_several_records.json": [
        ObjectCreated(BUCKET, "1.jpg", "v1", "e1", 1, "01"),
        ObjectRemoved(BUCKET, "1.jpg", "m1", None, "02", delete_marker=True),
        ObjectRemoved(BUCKET, "2.jpg", "v9", None, "03", expired=True),
    ],
    "localstack_put.json": [
        ObjectCreated("pixsift-raw", "robot-1/with space.jpg", "AZ2q3hWcWpEpRHvBFl1sHw",
                      "e5c7b3f0", 32, "0055AED6DCD90281E5"),
    ],
    "moto_put.json": [ObjectCreated(BUCKET, "robot/a b.jpg", None, "8d777f38", 5, None)],
    "eventbridge_created.json": [
        ObjectCreated(BUCKET, "a+b %25.jpg", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
                      "b1946ac92492d2347c6235b4d2611184", 6, "617f08299329d189"),
    ],
    "eventbridge_delete_marker.json": [
        ObjectRemoved(BUCKET, "a.jpg", "1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF",
                      "d41d8cd98f00b204e9800998ecf8427e", "617b398000000000", delete_marker=True),
    ],
    "eventbridge_expired.json": [
        ObjectRemoved(BUCKET, "a.jpg", "v1", None, "617b398000000001", expired=True),
    ],
    "sns_envelope.json": [ObjectCreated(BUCKET, "a.jpg", None, "abc", 5, None)],
    "backfill.json": [
        ObjectCreated(BUCKET, "raw+key %20.jpg", "v1", "e1", 9),
        ObjectRemoved(BUCKET, "gone.jpg", "v2"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_parse_notification__golden_bodies(name: str) -> None:
    parsed = parse_notification((DATA / name).read_text("utf-8"))
    assert parsed == ParsedMessage(records=tuple(GOLDEN[name]))


def test_parse_notification__the_test_message_of_s3_concerns_no_object() -> None:
    text = (DATA / "s3_test_event.json").read_text("utf-8")
    assert parse_notification(text) == ParsedMessage()


@pytest.mark.parametrize(
    "body",
    [
        {"Records": [{"eventVersion": "2.1", "eventName": "ObjectRestore:Completed", "s3": {
            "bucket": {"name": "raw"}, "object": {"key": "a+b.jpg", "versionId": "v1"}}}]},
        {"source": "aws.s3", "detail-type": "Object Restore Completed", "detail": {
            "bucket": {"name": "raw"}, "object": {"key": "a b.jpg", "version-id": "v1"}}},
    ],
)  # fmt: skip
def test_parse_notification__what_is_restored_is_judged_again(body: dict[str, Any]) -> None:
    assert parse_notification(json.dumps(body)).records == (
        ObjectCreated("raw", "a b.jpg", version_id="v1"),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        ("[" * 100_000, "not_json"),  # nesting that would end the parser's stack
        ("9" * 5_000, "not_json"),  # more digits than Python turns into an integer
        ("[]", "not_an_event"),
        ("null", "not_an_event"),
        ('{"Records": {}}', "not_an_event"),
        ('{"Records": []}', "no_records"),
        ('{"Records": [null]}', "missing_eventName"),
        (body(s3_event("a", eventVersion="3.0")), "unknown_event_version"),
        (body(s3_event("a", "ObjectRestore:Post")), "unknown_event_name"),
        (body(s3_event("a", "ObjectRemoved:Vanished")), "unknown_event_name"),
        (body(s3_event("%FF.jpg")), "bad_key"),  # no UTF-8
        (body(s3_event("a%00b.jpg")), "bad_key"),  # PostgreSQL stores no NUL
        (body(s3_event("")), "bad_key"),
        (body(s3_event("x" * 1025)), "bad_key"),
        (body(s3_event("\ud800")), "bad_key"),
        (body(s3_event("a", bucket="../etc")), "bad_bucket"),
        (body(s3_event("a", versionId={"$ne": 1})), "bad_version_id"),
        (body(s3_event("a", versionId="v" * 1025)), "bad_version_id"),
        ('{"schema": "pixsift.backfill/1", "bucket": "b-b"}', "bad_backfill"),
    ],
)
def test_parse_notification__anomalies(text: str, reason: str) -> None:
    assert parse_notification(text) == ParsedMessage(anomaly=reason)


def test_parse_notification__sound_records_survive_a_bad_neighbor() -> None:
    parsed = parse_notification(body(s3_event("%FF"), s3_event("b.jpg")))
    assert parsed.anomaly == "bad_key"
    assert [record.key for record in parsed.records] == ["b.jpg"]


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6"])
def test_parse_notification__every_minor_version(version: str) -> None:
    assert parse_notification(body(s3_event("a", eventVersion=version))).records


@pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload", "Later"])
def test_parse_notification__every_kind_of_creation(name: str) -> None:
    for prefix in ("", "s3:"):
        parsed = parse_notification(body(s3_event("a", f"{prefix}ObjectCreated:{name}")))
        assert isinstance(parsed.records[0], ObjectCreated)


@pytest.mark.parametrize("version_id", [None, "", "null"])
def test_parse_notification__the_null_version_is_none(version_id: str | None) -> None:
    """A suspended bucket overwrites it in place, so it identifies no write."""
    [record] = parse_notification(body(s3_event("a", versionId=version_id))).records
    assert record.version_id is None


def test_parse_notification__odd_optional_fields_count_as_unknown() -> None:
    [record] = parse_notification(
        body(s3_event("a", size=-1, eTag=7, sequencer="not hex", versionId=None))
    ).records
    assert record == ObjectCreated(BUCKET, "a")


def test_parse_notification__envelopes_nest_only_so_deep() -> None:
    text = body(s3_event("a"))
    for _ in range(4):
        text = json.dumps({"Type": "Notification", "Message": text})
    assert parse_notification(text).records
    text = json.dumps({"Type": "Notification", "Message": text})
    assert parse_notification(text).anomaly == "nested_too_deep"


KEYS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200
).filter(lambda key: len(key.encode()) <= 1024)


@settings(max_examples=examples(quick=1_000, thorough=10_000), deadline=None)
@given(KEYS)
@example("a+b c%20d%2Be\n\u202e.jpg")
@example("ü" * 512)
def test_keys__survive_every_encoding_once(key: str) -> None:
    """S3 encodes as forms do; emulators leave out plus signs or escape slashes."""
    for encoded in (quote_plus(key), quote_plus(key, safe="/"), quote(key), quote(key, safe="")):
        [record] = parse_notification(body(s3_event(encoded))).records
        assert record.key == key


@settings(max_examples=examples(quick=200, thorough=1_000), deadline=None)
@given(
    KEYS,
    st.sampled_from([
        ObjectCreated(BUCKET, "k"),
        ObjectCreated(BUCKET, "k", "v1", "e1", 0, "0055AED6"),
        ObjectRemoved(BUCKET, "k"),
        ObjectRemoved(BUCKET, "k", "v1", "e1", "0055AED6"),
        ObjectRemoved(BUCKET, "k", delete_marker=True),
        ObjectRemoved(BUCKET, "k", "v1", expired=True),
        ObjectRemoved(BUCKET, "k", "v1", delete_marker=True, expired=True),
    ]),
)  # fmt: skip
def test_notification_of__is_read_as_the_same_event(key: str, event: ObjectEvent) -> None:
    event = replace(event, key=key)
    assert parse_notification(notification_of(event)) == ParsedMessage(records=(event,))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "s3", "object", "bucket", "name", "key", "versionId", "eventName",
                 "eventVersion", "detail", "detail-type", "source", "Message", "Type", "schema",
                 "objects", "size", "eTag", "sequencer", "Event"]
            ),
            inner | st.sampled_from(
                ["aws.s3", "Object Created", "Object Deleted", "Notification", "2.1", BUCKET,
                 "ObjectCreated:Put", "ObjectRemoved:Delete", "pixsift.backfill/1"]
            ),
            max_size=5,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=examples(quick=200, thorough=1_000), deadline=None)
@given(JSON | st.text(max_size=80))
def test_parse_notification__never_raises(document: Any) -> None:
    check_never_raises(document)


@pytest.mark.full
@settings(max_examples=20_000, deadline=None)
@given(JSON | st.text(max_size=80))
def test_parse_notification__never_raises_in_twenty_thousand(document: Any) -> None:
    check_never_raises(document)


def check_never_raises(document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    parsed = parse_notification(text)
    assert parsed.records or parsed.anomaly


def test_parse_notification__ten_thousand_mutated_real_bodies() -> None:
    """Cut, doubled and overwritten bytes of real bodies: sound records or an anomaly."""
    for seed in range(10_000):
        check_mutated(random.Random(seed))


def check_mutated(chance: random.Random) -> None:
    text = bytearray(chance.choice(BODIES))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        text[at : at + chance.randint(0, 12)] = chance.randbytes(chance.randint(0, 12))
    body = text.decode("utf-8", errors="replace")
    parsed = parse_notification(body)
    assert parsed.records or parsed.anomaly or "s3:TestEvent" in body
    for record in parsed.records:
        assert record.key.encode() and "\0" not in record.key


BODIES = [path.read_bytes() for path in sorted(DATA.glob("*.json"))]
