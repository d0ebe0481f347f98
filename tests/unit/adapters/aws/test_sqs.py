"""The queue adapter on moto; visibility, receive counts and the DLQ belong to tests/faults."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.errors import DependencyDownError


@pytest.fixture
def queue(aws: None) -> SqsQueue:
    client = boto3.client("sqs")
    client.create_queue(QueueName="ingest", Attributes={"VisibilityTimeout": "30"})
    return SqsQueue("ingest", client=client)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def test_receive__says_how_often_and_since_when(queue: SqsQueue) -> None:
    assert queue.send(["a"]) == 1
    [message] = queue.receive(wait_seconds=0, visibility_timeout_seconds=0)
    assert (message.body, message.receive_count) == ("a", 1)
    assert message.sent_at is not None and message.received_at > 0
    [again] = queue.receive(wait_seconds=0)
    assert again.receive_count == 2


def test_ack__twenty_five_messages_take_three_calls(queue: SqsQueue) -> None:
    queue.send(str(n) for n in range(25))
    messages = [m for _ in range(3) for m in queue.receive(wait_seconds=0)]
    before = queue.calls
    queue.ack(messages)
    assert queue.calls - before == 3
    assert queue.depth() == (0, 0)


def test_release__the_message_is_there_again(queue: SqsQueue) -> None:
    queue.send(["a"])
    messages = queue.receive(wait_seconds=0)
    assert queue.receive(wait_seconds=0) == []
    queue.release(messages)
    assert len(queue.receive(wait_seconds=0)) == 1


def test_send__splits_by_count_and_by_bytes(queue: SqsQueue) -> None:
    bodies = ["x" * 100_000] * 15
    before = queue.calls
    assert queue.send(bodies) == 15
    assert queue.calls - before == 2  # ten of 100 kB fit into 1 MiB


def test_url__an_absent_queue_is_a_dependency_down(aws: None) -> None:
    with pytest.raises(DependencyDownError, match="nowhere"):
        SqsQueue("nowhere", client=boto3.client("sqs")).receive(wait_seconds=0)


def test_max_receive_count__from_the_redrive_policy(queue: SqsQueue) -> None:
    assert queue.max_receive_count() is None
    client = boto3.client("sqs")
    dlq = client.create_queue(QueueName="dlq")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dlq, AttributeNames=["QueueArn"])["Attributes"]
    policy = f'{{"deadLetterTargetArn": "{arn["QueueArn"]}", "maxReceiveCount": "8"}}'
    client.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": policy})
    assert queue.max_receive_count() == 8
