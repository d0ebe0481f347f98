"""Taking back the decision about one object."""

import boto3
import pytest

from ledger_world import finding, image, outcomes, rows, turned
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.errors import NotFoundError, PixsiftError
from pixsift.operations.take_back import take_back


def test_take_back__a_rejected_one_goes_through_the_queue_again(
    database: Database, database_url: str, ledger: Ledger, queue: SqsQueue
) -> None:
    ledger.commit(ledger.collection("c"), [finding("a.jpg", "rejected", "blurred")])
    answer = take_back(database, queue, "c", S3Uri.parse("s3://raw/a.jpg"), actor="someone")
    assert answer.sent_again == ["s3://raw/a.jpg?versionId=v1"]
    assert (answer.decided_again, answer.unchanged) == ([], 0)
    assert "a.jpg@v1" not in outcomes(database_url)  # undecided until the message comes
    assert queue.depth()[0] == 1
    turns = rows(database_url, "SELECT actor, reason FROM turn ORDER BY seq DESC LIMIT 1")
    assert turns == [("someone", "undo")]


def test_take_back__a_kept_one_is_decided_again_from_its_vector(
    database: Database, database_url: str, ledger: Ledger, queue: SqsQueue
) -> None:
    ledger.commit(ledger.collection("c"), [image("a.jpg", turned(0)), image("b.jpg", turned(1))])
    before = outcomes(database_url)
    answer = take_back(database, queue, "c", S3Uri.parse("s3://raw/a.jpg"))
    assert (answer.sent_again, answer.decided_again, answer.unchanged) == ([], [], 1)
    assert outcomes(database_url) == before
    assert queue.depth()[0] == 0


def test_take_back__an_unknown_object_or_collection_is_not_found(
    database: Database, ledger: Ledger, queue: SqsQueue
) -> None:
    with pytest.raises(NotFoundError) as object_error:
        take_back(database, queue, "c", S3Uri.parse("s3://raw/absent.jpg"))
    assert object_error.value.code == "unknown_object"
    with pytest.raises(NotFoundError) as collection_error:
        take_back(database, queue, "absent", S3Uri.parse("s3://raw/a.jpg"))
    assert collection_error.value.code == "unknown_collection"


def test_take_back__without_its_queue_nothing_is_taken_back(
    database: Database, database_url: str, ledger: Ledger, queue: SqsQueue
) -> None:
    ledger.commit(ledger.collection("c"), [finding("a.jpg", "rejected", "blurred")])
    client = boto3.client("sqs")
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName="ingest")["QueueUrl"])
    with pytest.raises(PixsiftError):
        take_back(database, queue, "c", S3Uri.parse("s3://raw/a.jpg"))
    assert outcomes(database_url)["a.jpg@v1"][0] == "rejected"
