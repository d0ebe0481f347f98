"""A bucket compared with the ledger, and the DLQ, on moto and a real PostgreSQL."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ledger_world import image, ledger_of, new_collection, turned
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.events import ObjectCreated, ObjectRemoved, parse_notification
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.reconcile import Comparison, Differences
from pixsift.core.sources import SourceRule
from pixsift.operations.reconcile import KEYS_PER_MESSAGE, Reconciler, backfill_bodies
from pixsift.operations.redrive import peek, redrive


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3")
        for bucket in ("raw", "plain"):
            client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
        yield client


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as opened:
        yield opened


@pytest.fixture
def collection(ledger: Ledger) -> Collection:
    return new_collection(ledger, sources=[SourceRule("raw", exclude=("*.json",))])


def put(s3: Any, key: str, bucket: str = "raw") -> ObjectVersion:
    answer = s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    etag = answer["ETag"].strip('"')
    return ObjectVersion(bucket, key, answer.get("VersionId", f"etag:{etag}"))


def decide(ledger: Ledger, collection: Collection, version: ObjectVersion) -> None:
    found = image(version.key, turned(len(version.key) * 40))
    judged = Judged(
        version, "embedded", content_sha256=found.content_sha256,
        pixel_sha256=found.pixel_sha256, embedding=found.embedding,
    )  # fmt: skip
    ledger.commit(collection, [judged])


def run(
    database_url: str, s3: Any, comparison: Comparison, **options: Any
) -> tuple[Differences, list[Any]]:
    """Compare; the differences and the events a consumer would read from what was sent."""
    sent: list[str] = []

    def send(bodies: Any) -> int:
        before = len(sent)
        sent.extend(bodies)
        return len(sent) - before

    with Database(database_url) as database:
        found = Reconciler(database, S3Objects(client=s3), send).run(comparison, **options)
    return found, [record for body in sent for record in parse_notification(body).records]


def test_run__missing_settled_and_ignored(
    database_url: str, s3: Any, ledger: Ledger, collection: Collection
) -> None:
    decide(ledger, collection, put(s3, "known.jpg"))
    lost = put(s3, "a +ü%25.jpg")
    put(s3, "sidecar.json")
    found, sent = run(database_url, s3, Comparison([collection], "raw"))
    assert (found.listed, found.settled, found.missing, found.ignored) == (3, 1, 1, 1)
    assert [(e.key, e.version_id, type(e)) for e in sent] == [
        (lost.key, lost.version_id, ObjectCreated)
    ]


def test_run__both_versions_of_a_key(
    database_url: str, s3: Any, ledger: Ledger, collection: Collection
) -> None:
    first, second = put(s3, "k.jpg"), put(s3, "k.jpg")
    decide(ledger, collection, second)
    _, sent = run(database_url, s3, Comparison([collection], "raw"))
    assert [event.version_id for event in sent] == [first.version_id]


def test_run__deleted_hidden_and_those_behind_the_last_key(
    database_url: str, s3: Any, ledger: Ledger, collection: Collection
) -> None:
    kept, deleted, hidden, last = (put(s3, f"{name}.jpg") for name in "abcz")
    for version in (kept, deleted, hidden, last):
        decide(ledger, collection, version)
    for version in (deleted, last):
        s3.delete_object(Bucket="raw", Key=version.key, VersionId=version.version_id)
    s3.delete_object(Bucket="raw", Key=hidden.key)
    found, sent = run(database_url, s3, Comparison([collection], "raw"))
    assert (found.gone, found.missing, found.settled) == (3, 0, 1)
    assert all(isinstance(event, ObjectRemoved) for event in sent)
    assert {(e.key, e.version_id, e.delete_marker) for e in sent} == {
        ("b.jpg", deleted.version_id, False),
        ("c.jpg", hidden.version_id, True),
        ("z.jpg", last.version_id, False),
    }
    ledger.remove(collection, [deleted, hidden, last])
    assert run(database_url, s3, Comparison([collection], "raw"))[1] == []


def test_run__without_removals_nothing_is_said_to_be_gone(
    database_url: str, s3: Any, ledger: Ledger, collection: Collection
) -> None:
    version = put(s3, "a.jpg")
    decide(ledger, collection, version)
    s3.delete_object(Bucket="raw", Key="a.jpg", VersionId=version.version_id)
    found, sent = run(database_url, s3, Comparison([collection], "raw", removals=False))
    assert (found.gone, sent) == (0, [])


def test_run__the_newest_are_left_to_the_queue(
    database_url: str, s3: Any, collection: Collection
) -> None:
    put(s3, "a.jpg")
    now = datetime.now(UTC)
    young = Comparison([collection], "raw", older_than=now - timedelta(minutes=15))
    assert run(database_url, s3, young)[0].too_new == 1
    old = Comparison([collection], "raw", older_than=now + timedelta(minutes=1))
    assert run(database_url, s3, old)[0].missing == 1


def test_run__an_erased_source_left_in_its_bucket_is_settled(
    database_url: str, s3: Any, ledger: Ledger, collection: Collection
) -> None:
    version = put(s3, "erased.jpg")
    ledger.commit(collection, [Judged(version, "gone", "erased")])
    with Database(database_url) as database, database.connection() as connection:
        connection.execute("UPDATE object SET erased_at = now()")
    found, sent = run(database_url, s3, Comparison([collection], "raw"))
    assert (found.settled, found.missing, sent) == (1, 0, [])


def test_run__an_unversioned_bucket(database_url: str, s3: Any, ledger: Ledger) -> None:
    collection = new_collection(ledger, sources=[SourceRule("plain")])
    decide(ledger, collection, put(s3, "a.jpg", "plain"))
    lost = put(s3, "b.jpg", "plain")
    found, sent = run(database_url, s3, Comparison([collection], "plain"))
    assert (found.settled, found.missing) == (1, 1)
    assert (sent[0].version_id, f"etag:{sent[0].etag}") == (None, lost.version_id)


def test_run__what_lies_there_again_without_versioning(
    database_url: str, s3: Any, ledger: Ledger
) -> None:
    """A, B, A of which the last event was lost: A is sent, and B is gone."""
    collection = new_collection(ledger, sources=[SourceRule("plain")])
    first = put(s3, "a.jpg", "plain")
    ledger.commit(collection, [Judged(first, "gone", "overwritten")])
    found, sent = run(database_url, s3, Comparison([collection], "plain"))
    assert (found.missing, [f"etag:{event.etag}" for event in sent]) == (1, [first.version_id])
    with Database(database_url) as database, database.connection() as connection:
        connection.execute("UPDATE object SET erased_at = now()")
    found, sent = run(database_url, s3, Comparison([collection], "plain"))
    assert (found.settled, sent) == (1, [])


def test_run__many_keys_per_message_and_again_from_where_it_stopped(
    database_url: str, s3: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixsift.operations.reconcile._LINES_PER_PAGE", 50)
    for number in range(230):
        put(s3, f"{number:03d}.jpg")
    whole = Comparison([collection], "raw", removals=False)
    found, sent = run(database_url, s3, whole)
    assert (found.missing, found.messages) == (230, 3)
    assert len({event.key for event in sent}) == 230
    assert KEYS_PER_MESSAGE == 100

    stopped = Comparison([collection], "raw", removals=False)

    def stop(at: Differences) -> None:
        if at.last_key:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(database_url, s3, stopped, progress=stop)
    _, rest = run(
        database_url, s3, Comparison([collection], "raw", removals=False),
        after=stopped.found.last_key,
    )  # fmt: skip
    assert stopped.found.last_key == "099.jpg"
    assert {event.key for event in rest} == {f"{n:03d}.jpg" for n in range(100, 230)}


def test_dlq__peek_gives_back_and_redrive_moves(s3: Any) -> None:
    client = boto3.client("sqs")
    for name in ("ingest", "dlq"):
        client.create_queue(QueueName=name)
    ingest, dlq = SqsQueue("ingest", client=client), SqsQueue("dlq", client=client)
    bodies = list(backfill_bodies([ObjectVersion("raw", "a.jpg", "v1")]))
    dlq.send([*bodies, "rubbish", *(json.dumps({"n": n}) for n in range(12))])
    letters = peek(dlq, 20)
    assert len(letters) == 14
    assert ["s3://raw/a.jpg"] in [letter.objects for letter in letters]
    assert dlq.depth() == (14, 0)
    assert redrive(None, dlq, ingest, limit=3).messages == 3
    assert redrive(None, dlq, ingest).messages == 11
    assert (dlq.depth()[0], ingest.depth()[0]) == (0, 14)
    assert redrive(None, dlq, ingest).messages == 0
