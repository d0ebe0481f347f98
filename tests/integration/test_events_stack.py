"""The events stack on LocalStack: notifications reach the queue, the schedule fires."""

import fcntl
import json
import socket
import struct
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from localstack_client.session import Session

from pixsift.adapters.local.cloudformation import deploy
from pixsift.adapters.local.events_stack import EventsStack, deploy_events_stack
from pixsift.adapters.local.localstack import LocalStackPlace
from pixsift.errors import UserError
from pixsift.messages import SnapshotRequest

pytestmark = pytest.mark.localstack

TICK_SECONDS = 75.0
"""rate(1 minute), and room for a slow machine."""

_SIOCGIFADDR = 0x8915
"""Ask an interface for its address (man 7 netdevice)."""


def test_localstack__binds_to_loopback_only(localstack: LocalStackPlace) -> None:
    with socket.create_connection(("127.0.0.1", localstack.port), timeout=2):
        pass
    others = _other_addresses()
    if not others:
        pytest.skip("this machine has no address but loopback")
    for address in others:
        with pytest.raises(OSError):
            socket.create_connection((address, localstack.port), timeout=2).close()


def test_raw_bucket__tells_the_ingest_queue_of_creations_and_removals(
    events_stack: EventsStack, localstack_session: Session
) -> None:
    s3 = localstack_session.client("s3")
    written = s3.put_object(Bucket=events_stack.raw_bucket, Key="a b+ü.jpg", Body=b"x")
    s3.delete_object(Bucket=events_stack.raw_bucket, Key="a b+ü.jpg")

    records = [
        record
        for body in _receive(localstack_session, events_stack.ingest_queue, until=5)
        for record in body.get("Records", [])
    ]

    told = {record["eventName"].split(":")[0]: record for record in records}  # in any order
    assert len(records) == 2 and set(told) == {"ObjectCreated", "ObjectRemoved"}
    assert told["ObjectCreated"]["s3"]["object"]["versionId"] == written["VersionId"]


def test_raw_bucket__of_two_spaces_tells_both_queues_through_the_topic(
    localstack: LocalStackPlace, localstack_session: Session
) -> None:
    """As ``pixsift up --shadow`` deploys it; the bodies are those that S3 would send to a queue."""
    stack = deploy_events_stack(
        "fan", shadow=True, client=localstack_session.client("cloudformation")
    )
    written = localstack_session.client("s3").put_object(
        Bucket=stack.raw_bucket, Key="a b+ü.jpg", Body=b"x"
    )
    for queue in (stack.ingest_queue, stack.shadow_queue):
        record = _first_record(localstack_session, queue)
        assert record["s3"]["object"]["versionId"] == written["VersionId"], queue


def test_ingest_queue__dead_letters_after_five_receives(
    events_stack: EventsStack, localstack_session: Session
) -> None:
    sqs = localstack_session.client("sqs")
    url = sqs.get_queue_url(QueueName=events_stack.ingest_queue)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    policy = json.loads(attributes["Attributes"]["RedrivePolicy"])
    assert policy["maxReceiveCount"] == 5
    assert policy["deadLetterTargetArn"].endswith(f":{events_stack.ingest_dlq}")


@pytest.mark.looked_at_last
def test_schedule__sends_a_valid_request_with_an_id_of_its_own(
    ticking_stack: EventsStack, localstack_session: Session
) -> None:
    bodies = _receive(
        localstack_session, ticking_stack.snapshot_queue, until=1, seconds=TICK_SECONDS
    )

    assert bodies, "the schedule did not fire"
    requests = [SnapshotRequest.model_validate(body) for body in bodies]
    assert {request.collection for request in requests} == {"default"}
    ids = {request.request_id for request in requests}
    assert len(ids) == len(requests)
    assert all(UUID(request_id) for request_id in ids)  # the events' own


def test_deploy__refuses_types_that_localstack_skips_silently(localstack_session: Session) -> None:
    template = {"Resources": {"Cluster": {"Type": "AWS::ECS::CapacityProvider", "Properties": {}}}}
    with pytest.raises(UserError, match="AWS::ECS::CapacityProvider"):
        deploy(
            json.dumps(template), stack="skipped",
            client=localstack_session.client("cloudformation"),
        )  # fmt: skip


def test_deploy__a_second_time_changes_nothing(
    events_stack: EventsStack, localstack_session: Session
) -> None:
    again = deploy_events_stack(
        events_stack.prefix, client=localstack_session.client("cloudformation")
    )
    assert again == events_stack


def _receive(
    session: Session, queue: str, *, until: int, seconds: float = 20.0
) -> list[dict[str, Any]]:
    """The first ``until`` bodies of ``queue``, or what came within ``seconds``."""
    sqs = session.client("sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    bodies: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while len(bodies) < until and time.monotonic() < deadline:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        bodies += [json.loads(message["Body"]) for message in answer.get("Messages", [])]
    return bodies


def _first_record(session: Session, queue: str) -> Any:
    """Of what S3 says, without its own test message."""
    for _ in range(10):
        for body in _receive(session, queue, until=1, seconds=3.0):
            if records := body.get("Records"):
                return records[0]
    raise AssertionError(f"nothing came to {queue}")


def _other_addresses() -> list[str]:
    """IPv4 addresses of this machine's interfaces that are not loopback; Linux only."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode())
            with suppress(OSError):  # an interface without an address
                found.append(socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, asked)[20:24]))
    return [address for address in found if not address.startswith("127.")]
