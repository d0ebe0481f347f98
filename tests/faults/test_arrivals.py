"""Events of every kind, in any order, often: one outcome per object version."""

import json
from collections.abc import Iterator
from itertools import permutations

import psycopg
import pytest

from faults.harness import Harness, PlainDecoder, running
from faults.images import jpeg, truncated
from faults.stub_aws import RAW, StubAws
from pixsift.core.sources import SourceRule
from pixsift.messages import Backfill, BackfillObject


@pytest.fixture
def aws() -> Iterator[StubAws]:
    with StubAws() as made:
        yield made


@pytest.fixture
def consumer(aws: StubAws, database_url: str) -> Iterator[Harness]:
    with running(aws, database_url) as harness:
        yield harness


def anomalies(database_url: str) -> list[tuple[bytes, str]]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT body, reason FROM anomaly ORDER BY reason").fetchall()
    return [(bytes(body), str(reason)) for body, reason in rows]


def test_consumer__exact_duplicates_cost_neither_decoder_nor_model(
    aws: StubAws, consumer: Harness
) -> None:
    aws.raw.put("a.jpg", jpeg(1))
    consumer.wait_until_drained()
    decoded = consumer.decoder.decoded
    aws.raw.put("b.jpg", jpeg(1))
    consumer.wait_until_drained()
    assert sorted(consumer.outcomes().values()) == [("duplicate", "content"), ("kept", "new")]
    assert consumer.decoder.decoded == decoded


def test_consumer__an_overwrite_is_a_version_of_its_own(aws: StubAws, consumer: Harness) -> None:
    aws.raw.put("a.jpg", jpeg(1))
    aws.raw.put("a.jpg", jpeg(2))
    consumer.wait_until_drained()
    assert list(consumer.outcomes().values()) == [("kept", "new")] * 2


def test_consumer__anomalies_are_kept_and_acked_and_sound_records_judged(
    aws: StubAws, consumer: Harness, database_url: str
) -> None:
    version = aws.raw.put("a.jpg", jpeg(1))
    record = json.loads(aws.raw.event("ObjectCreated:Put", "a.jpg", version))["Records"][0]
    bad = {**record, "eventName": "ObjectRestore:Post"}
    aws.ingest.send("\0 not json \udcff")
    aws.ingest.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": RAW}))
    aws.ingest.send(json.dumps({"Records": [bad, record]}))
    consumer.wait_until_drained()
    assert list(consumer.outcomes().values()) == [("kept", "new")]
    assert [reason for _, reason in anomalies(database_url)] == [
        "not_json", "unknown_event_name",
    ]  # fmt: skip


def test_consumer__a_forged_bucket_causes_no_call_to_s3(
    aws: StubAws, consumer: Harness, database_url: str
) -> None:
    other = aws.s3.create("somebody-elses")
    version = other.put("secret.jpg", jpeg(1))
    aws.ingest.send(other.event("ObjectCreated:Put", "secret.jpg", version))
    aws.ingest.send(other.event("ObjectRemoved:Delete", "secret.jpg", version))
    consumer.wait_until_drained()
    assert {reason for _, reason in anomalies(database_url)} == {"foreign_bucket"}
    assert not any(aws.calls[name] for name in ("GetObject", "HeadObject", "ListObjectVersions"))


def test_consumer__what_the_rules_leave_out_is_counted_not_recorded(
    aws: StubAws, database_url: str
) -> None:
    rule = SourceRule(RAW, prefix="cam/", exclude=("*.json",))
    with running(aws, database_url, rule=rule) as consumer:
        aws.raw.put("cam/a.json", b"{}")
        aws.raw.put("elsewhere/a.jpg", jpeg(1))
        consumer.wait_until_drained()
        assert consumer.outcomes() == {}
        assert consumer.telemetry.total("ignored") == 2
        assert anomalies(database_url) == [] and aws.calls["GetObject"] == 0


def test_consumer__puts_and_a_delete_in_every_order(aws: StubAws, consumer: Harness) -> None:
    """PUT1 PUT2 DEL PUT3 of a key: the first two are under the marker, in any order of events."""
    orders = list(permutations(range(4)))
    histories = [record_history(aws, f"{n}.jpg", seed=10 * n) for n in range(len(orders))]
    for step in range(4):
        for order, events in zip(orders, histories, strict=True):
            aws.ingest.send(events[order[step]])
            aws.ingest.send(events[order[step]])  # and everything twice
        consumer.wait_until_drained()
    found: dict[str, list[str]] = {}
    for version, (outcome, _) in consumer.outcomes().items():
        found.setdefault(version.split("@")[0], []).append(outcome)
    assert len(found) == 24
    for key, several in found.items():
        assert sorted(several) == ["gone", "gone", "kept"], key


def record_history(aws: StubAws, key: str, *, seed: int) -> list[str]:
    """Do the four things at once; the events they cause, unsent."""
    events: list[str] = []
    send, aws.raw.notify = aws.raw.notify, events.append
    aws.raw.put(key, jpeg(seed))
    aws.raw.put(key, jpeg(seed + 1))
    aws.raw.delete(key)
    aws.raw.put(key, jpeg(seed + 2))
    aws.raw.notify = send
    return events


def test_consumer__a_deleted_version_is_gone_and_its_duplicate_kept(
    aws: StubAws, consumer: Harness
) -> None:
    version = aws.raw.put("a.jpg", jpeg(1))
    consumer.wait_until_drained()
    aws.raw.put("b.jpg", jpeg(1))
    consumer.wait_until_drained()
    aws.raw.delete("a.jpg", version.version_id)
    consumer.wait_until_drained()
    found = {key.split("@")[0]: outcome for key, (outcome, _) in consumer.outcomes().items()}
    assert found == {"a.jpg": "gone", "b.jpg": "kept"}


def test_consumer__a_removal_that_s3_denies_changes_nothing(
    aws: StubAws, consumer: Harness
) -> None:
    """A forged or early event: the version is still there."""
    version = aws.raw.put("a.jpg", jpeg(1))
    consumer.wait_until_drained()
    aws.ingest.send(aws.raw.event("ObjectRemoved:Delete", "a.jpg", version))
    aws.ingest.send(aws.raw.event("ObjectRemoved:DeleteMarkerCreated", "a.jpg", version))
    consumer.wait_until_drained()
    assert list(consumer.outcomes().values()) == [("kept", "new")]


def test_consumer__without_versioning_the_etag_is_the_version(database_url: str) -> None:
    with StubAws(versioned=False) as aws, running(aws, database_url) as consumer:
        aws.raw.put("a.jpg", jpeg(1))
        consumer.wait_until_drained()
        aws.raw.put("a.jpg", jpeg(2))
        aws.raw.put("b.jpg", jpeg(3))
        consumer.wait_until_drained()
        aws.raw.delete("b.jpg")
        consumer.wait_until_drained()
        assert sorted(consumer.outcomes().values()) == [
            ("gone", "deleted"), ("gone", "overwritten"), ("kept", "new"),
        ]  # fmt: skip


def test_consumer__an_event_without_version_and_etag_means_what_is_there(
    aws: StubAws, consumer: Harness
) -> None:
    version = aws.raw.put("a.jpg", jpeg(1))
    consumer.wait_until_drained()
    bare = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": RAW}, "object": {"key": "a.jpg"}}}]}  # fmt: skip
    aws.ingest.send(json.dumps(bare))
    aws.ingest.send(json.dumps(bare).replace("a.jpg", "never-there.jpg"))
    consumer.wait_until_drained()
    assert consumer.outcomes() == {f"a.jpg@{version.version_id}": ("kept", "new")}


def test_consumer__collections_of_one_space_judge_apart(aws: StubAws, database_url: str) -> None:
    decoder = PlainDecoder()
    names = {"test": {}, "strict": {"low_information": {"action": "reject", "min": 100}}}
    with running(aws, database_url, decoder=decoder, collections=names) as consumer:
        aws.raw.put("a.jpg", jpeg(1))
        aws.raw.put("cut.jpg", truncated(1))
        consumer.wait_until_drained()
        assert sorted(consumer.outcomes("test").values())[0] == ("kept", "new")
        assert sorted(consumer.outcomes("strict").values())[0] == ("rejected", "low_information")
        assert decoder.decoded == 2, "one image is decoded once for all collections"


def test_consumer__ten_thousand_duplicate_deliveries(aws: StubAws, database_url: str) -> None:
    """As messages of their own, and a thousand to a message: every one finds its outcome."""
    versions = [(f"{n}.jpg", aws.raw.put(f"{n}.jpg", jpeg(n))) for n in range(40)]
    with running(aws, database_url) as consumer:
        consumer.wait(lambda: len(consumer.outcomes()) == 40)
        before = consumer.outcomes()
        for key, version in versions:
            for _ in range(50):
                aws.ingest.send(aws.raw.event("ObjectCreated:Put", key, version))
        objects = [
            BackfillObject(key=key, version_id=version.version_id) for key, version in versions
        ]
        backfill = Backfill(bucket=RAW, objects=objects * 25)
        for _ in range(8):
            aws.ingest.send(backfill.model_dump_json(by_alias=True))
        consumer.wait_until_drained(seconds=120)
        assert consumer.outcomes() == before
        assert set(before.values()) == {("kept", "new")}
        assert aws.calls["GetObject"] < 200, "a duplicate delivery is not fetched again"


def test_consumer__the_same_bytes_come_back_without_versioning(
    aws: StubAws, consumer: Harness
) -> None:
    """F9 of the field tests: A, B, A under one key; then deleted, and uploaded once more."""
    aws.raw.versioned = False
    for seed in (1, 2, 1):
        aws.raw.put("a.jpg", jpeg(seed))
        consumer.wait_until_drained()
    first, second = sorted(consumer.outcomes().values(), reverse=True)
    assert (first, second) == (("kept", "new"), ("gone", "overwritten"))
    aws.raw.delete("a.jpg")
    consumer.wait_until_drained()
    assert {outcome for outcome, _ in consumer.outcomes().values()} == {"gone"}
    created = aws.raw.event("ObjectCreated:Put", "a.jpg", aws.raw.put("a.jpg", jpeg(1)))
    consumer.wait_until_drained()
    assert ("kept", "new") in consumer.outcomes().values()
    aws.raw.delete("a.jpg")
    aws.ingest.send(created)  # late: it is older than the deletion
    consumer.wait_until_drained()
    assert {outcome for outcome, _ in consumer.outcomes().values()} == {"gone"}
