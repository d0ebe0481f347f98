"""What ``erase``, ``undo``, ``audit``, ``reindex``, ``reconcile``, ``backfill`` and ``dlq`` print;
what they do is tested with their adapters and with a consumer process."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from faults.restore import backup, restore
from ledger_world import finding, image, ledger_of, new_collection, outcomes, rows, turned

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        for bucket in ("raw", "pixsift-derived", "pixsift-curated"):
            boto3.client("s3").create_bucket(Bucket=bucket)
        for queue in ("pixsift-ingest", "pixsift-ingest-dlq"):
            boto3.client("sqs").create_queue(QueueName=queue)
        yield


@pytest.fixture
def run(
    aws: None, database_url: str, monkeypatch: pytest.MonkeyPatch,
    run_pixsift: Run,
) -> Run:  # fmt: skip
    """Runs the command over a ledger with two near images, a rejected and a failed one."""
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger)
        ledger.commit(
            collection,
            [image("a.jpg", turned(0)), image("b.jpg", turned(10)),
             finding("r.jpg", "rejected", "blurred"), finding("f.jpg", "failed", "timeout")],
        )  # fmt: skip
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)

    return run_pixsift


def waiting(queue: str) -> int:
    client: Any = boto3.client("sqs")
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    name = "ApproximateNumberOfMessages"
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def test_erase__says_what_went_and_what_stays(run: Run, database_url: str) -> None:
    status, out, err = run("erase", "s3://raw/a.jpg", "--yes", "--reason", "ticket 7")
    assert status == 0, err
    assert "1 vectors, 0 thumbnails; redacted in no snapshot" in out
    assert "add --source" in out
    assert rows(database_url, "SELECT reason FROM tombstone") == [("ticket 7",)]
    assert "its data was deleted" in run("explain", "s3://raw/a.jpg")[1]
    assert "promoted" in run("explain", "s3://raw/b.jpg")[1]


def test_erase__asks_first_and_knows_its_objects(run: Run, database_url: str) -> None:
    assert run("erase", "s3://raw/nothing.jpg", "--yes")[0] == 2
    status, _, err = run("erase", "s3://raw/a.jpg", answer="n\n")
    assert status == 2
    assert "s3://raw/a.jpg?versionId=v1" in err and "nothing was erased" in err
    assert rows(database_url, "SELECT count(*) FROM tombstone") == [(0,)]


def test_undo__one_object_goes_through_the_queue(run: Run) -> None:
    assert "sent to the queue again: s3://raw/r.jpg" in run("undo", "c", "s3://raw/r.jpg")[1]
    assert waiting("pixsift-ingest") == 1
    assert "same outcome" in run("undo", "c", "s3://raw/b.jpg")[1]
    assert run("undo", "c", "s3://raw/nothing.jpg")[0] == 2


def test_undo__a_generation(run: Run) -> None:
    assert run("undo", "c")[0] == 2
    assert "2 kept, 0 duplicates" in run("redecide", "c", "--epsilon", "0.001")[1]
    status, out, _ = run("undo", "c")
    assert (status, "generation 3 (epsilon 0.05)" in out) == (0, True)


def test_audit__status_and_words(run: Run, database_url: str) -> None:
    status, out, _ = run("audit")
    assert status == 0
    assert "1 kept and 1 duplicates" in out and "all invariants hold" in out
    rows(database_url, "UPDATE decision SET distance = 0.001 WHERE distance > 0 RETURNING 1")
    status, out, _ = run("audit", "c", "--sample", "5")
    assert (status, "INV3" in out) == (1, True)
    status, out, _ = run("audit", "c", "--repair", "--snapshots")
    assert (status, "repaired: s3://" in out) == (0, True)
    assert "2: duplicate -> duplicate" not in out


@pytest.mark.parametrize(
    "command", [
        ("redecide", "c", "--epsilon", "0.001"), ("undo", "c", "s3://raw/b.jpg"),
        ("undo", "c"), ("audit", "--repair"),
    ], ids=["redecide", "undo-image", "undo", "repair"],
)  # fmt: skip
def test_command__that_decides_in_a_restored_ledger_meets_the_journal_first(
    run: Run, database_url: str, command: tuple[str, ...]
) -> None:
    """What people said after the backup holds, also where the ledger knows nothing of it."""
    if command == ("undo", "c"):
        assert run("redecide", "c", "--epsilon", "0.06")[0] == 0
    with backup(database_url) as copy:
        assert run("rule", "useless", "s3://raw/a.jpg", "--why", "dark")[0] == 0
        restore(database_url, copy)
    assert run("rule", "list", "--collection", "c")[1].strip() == "no rulings"
    status, _, err = run(*command)
    assert status == 0, err
    assert "useless" in run("rule", "list", "--collection", "c")[1]
    assert outcomes(database_url)["a.jpg@v1"][:2] == ("rejected", "ruled")


def test_reindex__builds(run: Run) -> None:
    assert "built up to seq 1" in run("reindex", "c")[1]


def test_reconcile_and_backfill__dry_and_sent(run: Run) -> None:
    boto3.client("s3").put_object(Bucket="raw", Key="new.jpg", Body=b"x")
    status, out, _ = run("reconcile", "--older-than", "0", "--dry-run")
    assert status == 1
    assert "1 never arrived, 4 gone at S3" in out and "5 would be sent" in out
    assert waiting("pixsift-ingest") == 0
    status, out, _ = run("backfill", "s3://raw/n")
    assert (status, "1 sent in 1 messages" in out) == (0, True)
    assert waiting("pixsift-ingest") == 1
    assert run("backfill", "s3://elsewhere/")[0] == 2


def test_dlq__list_and_redrive(run: Run) -> None:
    client = boto3.client("sqs")
    url = client.get_queue_url(QueueName="pixsift-ingest-dlq")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="rubbish")
    for _ in range(3):
        status, out, _ = run("dlq", "list")
        assert status == 0
        assert "DLQ: 1 waiting" in out and "not_json" not in out
    assert "timeout  s3://raw/f.jpg" in out
    out = run("dlq", "list", "--messages")[1]
    # A list without it spends no receive.
    assert "received 1 times  not an S3 event (not_json)" in out
    out = run("dlq", "redrive", "--failed")[1]
    assert (
        "1 messages sent back to the ingest queue; 1 failed objects sent to the queue again" in out
    )
    assert (waiting("pixsift-ingest-dlq"), waiting("pixsift-ingest")) == (0, 2)
