"""One SQS queue: receive, ack, release, extend, send. Every call that can be batched is.

Batch calls answer per entry; an entry that failed is tried once more and then left. Each of these
calls may be lost: a message that was not deleted is received again and finds its outcome.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pixsift.adapters.aws.client import aws_errors, sqs_client

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")

MAX_BATCH = 10
"""Entries per call: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""
MAX_BATCH_BYTES = 1_048_576
"""Sum of the bodies of one SendMessageBatch (1 MiB since 2025; same page)."""
_ATTRIBUTE_BYTES = 100
"""Bytes that the attributes of a copy add to its size."""
MAX_VISIBILITY_SECONDS = 43_200
MAX_DELAY_SECONDS = 900
_RECEIVES_BEFORE = "pixsift.receives"
_FIRST_SENT = "pixsift.first_sent"
_POSTPONED = "pixsift.postponed"
"""Message attributes of a copy: receives of the messages before it, when the first was sent
(milliseconds since the epoch), and how many outages of everything it has met."""
_SUSPECT_AFTER = 20
LONGEST_POLL_SECONDS = 20
_POLL_GRACE_SECONDS = 3.0
"""How many seconds after its long poll an answer may come."""


@dataclass(frozen=True, slots=True)
class Message:
    """One received message. Two receipts of the same message are two of these."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int = 1
    """Receives so far, those of earlier copies included (``postpone``)."""
    sent_at: float | None = None
    """When it, or the first of its copies, was sent: seconds since the epoch, the queue's clock."""
    received_at: float = field(default=0.0, compare=False)
    """``time.monotonic()`` just before the call that received it."""
    postponed: int = 0
    """How often an outage of all work has interrupted its attempts."""

    @property
    def is_suspect(self) -> bool:
        """Whether it was there in so many outages that it may be their cause."""
        return self.postponed >= _SUSPECT_AFTER


class SqsQueue:
    """A queue by name or URL."""

    def __init__(
        self,
        name_or_url: str,
        *,
        client: "SQSClient | None" = None,
        longest_poll_seconds: int = LONGEST_POLL_SECONDS,
    ) -> None:
        """longest_poll_seconds: a receive that takes noticeably longer has failed."""
        self._name = name_or_url
        self._client = client or sqs_client()
        self._given = client
        self._longest_poll = longest_poll_seconds
        self.calls = 0
        """Requests made so far, for the cost per image."""

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._name.rsplit("/", 1)[-1]

    @cached_property
    def _receiver(self) -> "SQSClient":
        # The SDK does not retry: the messages of a lost answer stay hidden, and a stop would wait.
        return self._given or sqs_client(
            read_timeout_seconds=self._longest_poll + _POLL_GRACE_SECONDS, attempts=1
        )

    @cached_property
    def url(self) -> str:
        """Looked up at first use. Raises DependencyDownError when the queue does not exist."""
        if self._name.startswith(("http://", "https://")):
            return self._name
        with aws_errors(f"queue {self._name}"):
            return self._client.get_queue_url(QueueName=self._name)["QueueUrl"]

    def receive(
        self,
        max_messages: int = MAX_BATCH,
        *,
        wait_seconds: int = 20,
        visibility_timeout_seconds: int | None = None,
    ) -> list[Message]:
        """Up to ten messages, after a long poll of at most ``wait_seconds``."""
        started = time.monotonic()
        more: dict[str, Any] = {}
        if visibility_timeout_seconds is not None:
            more["VisibilityTimeout"] = visibility_timeout_seconds
        with aws_errors(f"receive from {self.name}"):
            self.calls += 1
            answer = self._receiver.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=max(1, min(max_messages, MAX_BATCH)),
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=[_RECEIVES_BEFORE, _FIRST_SENT, _POSTPONED],
                **more,
            )
        return [_message(raw, started) for raw in answer.get("Messages", [])]

    def ack(self, messages: Sequence[Message]) -> None:
        """Delete messages whose outcome is committed."""

        def delete(part: Sequence[Message]) -> list[Message]:
            answer = self._client.delete_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message.receipt_handle}
                    for index, message in enumerate(part)
                ],
            )
            return [part[int(failed["Id"])] for failed in answer.get("Failed", [])]

        self._in_batches("ack on", messages, delete)

    def release(self, messages: Sequence[Message], *, delay_seconds: int = 0) -> None:
        """Give messages back; they are received again after ``delay_seconds``."""
        self.extend(messages, delay_seconds)

    def extend(self, messages: Sequence[Message], seconds: int) -> None:
        """Hide messages for ``seconds`` from now."""
        seconds = max(0, min(seconds, MAX_VISIBILITY_SECONDS))

        def change(part: Sequence[Message]) -> list[Message]:
            answer = self._client.change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message.receipt_handle,
                     "VisibilityTimeout": seconds}
                    for index, message in enumerate(part)
                ],
            )  # fmt: skip
            return [
                part[int(failed["Id"])]
                for failed in answer.get("Failed", [])
                if not failed.get("SenderFault")  # an expired receipt handle stays expired
            ]

        self._in_batches("change visibility on", messages, change)

    def postpone(
        self, messages: Sequence[Message], *, delay_seconds: int, everything: bool = False
    ) -> list[Message]:
        """Replace each message by a delayed copy; returns those that were replaced. For attempts
        that an outage interrupted: the copy carries the number of earlier receives and the time
        when the first message was sent, so that the outage costs no attempt and the age stays
        visible. A message is deleted only after the queue has accepted its copy; interrupted in
        between, both are delivered, and the later one finds the outcome.

        everything: the outage was of all work, not of one bucket.
        """
        delay = max(0, min(delay_seconds, MAX_DELAY_SECONDS))
        replaced: list[Message] = []
        for part in _in_send_batches(messages, lambda message: message.body):
            with aws_errors(f"send to {self.name}"):
                self.calls += 1
                answer = self._client.send_message_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(index), "MessageBody": message.body, "DelaySeconds": delay,
                         "MessageAttributes": _carried(message, everything)}
                        for index, message in enumerate(part)
                    ],
                )  # fmt: skip
            refused = {int(failed["Id"]) for failed in answer.get("Failed", [])}
            accepted = [message for index, message in enumerate(part) if index not in refused]
            replaced.extend(accepted)
            self.ack(accepted)
        return replaced

    def send(self, bodies: Iterable[str]) -> int:
        """Send ``bodies``; the count sent. Raises TransientError if the queue refuses any."""
        sent = 0
        for part in _in_send_batches(bodies, lambda body: body):
            with aws_errors(f"send to {self.name}"):
                self.calls += 1
                answer = self._client.send_message_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(index), "MessageBody": body} for index, body in enumerate(part)
                    ],
                )
                for failed in answer.get("Failed", []):
                    self._client.send_message(
                        QueueUrl=self.url, MessageBody=part[int(failed["Id"])]
                    )
            sent += len(part)
        return sent

    def depth(self) -> tuple[int, int]:
        """About how many messages wait, and how many are in flight. Also serves as a probe."""
        attributes = self._attributes(
            "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        )
        return (
            int(attributes.get("ApproximateNumberOfMessages", 0)),
            int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        )

    def max_receive_count(self) -> int | None:
        """After how many receives the queue moves a message to its DLQ; None without one."""
        policy = self._attributes("RedrivePolicy").get("RedrivePolicy")
        return int(json.loads(policy)["maxReceiveCount"]) if policy else None

    def _attributes(self, *names: Any) -> dict[Any, str]:
        with aws_errors(f"attributes of {self.name}"):
            self.calls += 1
            answer = self._client.get_queue_attributes(
                QueueUrl=self.url, AttributeNames=list(names)
            )
        return dict(answer.get("Attributes", {}))

    def _in_batches(
        self,
        what: str,
        messages: Sequence[Message],
        call: Callable[[Sequence[Message]], list[Message]],
    ) -> None:
        for start in range(0, len(messages), MAX_BATCH):
            part: Sequence[Message] = messages[start : start + MAX_BATCH]
            for _ in range(2):
                with aws_errors(f"{what} {self.name}"):
                    self.calls += 1
                    part = call(part)
                if not part:
                    break


def _message(raw: Any, received_at: float) -> Message:
    attributes = raw.get("Attributes", {})
    carried = raw.get("MessageAttributes", {})
    sent = _number(carried.get(_FIRST_SENT)) or int(attributes.get("SentTimestamp", 0))
    before = _number(carried.get(_RECEIVES_BEFORE))
    return Message(
        message_id=raw["MessageId"],
        receipt_handle=raw["ReceiptHandle"],
        body=raw.get("Body", ""),
        receive_count=before + int(attributes.get("ApproximateReceiveCount", 1)),
        sent_at=sent / 1000 if sent else None,
        received_at=received_at,
        postponed=_number(carried.get(_POSTPONED)),
    )


def _carried(message: Message, everything: bool) -> Any:
    """The attributes of a copy about the messages before it, without the present receive."""
    attributes = {
        _RECEIVES_BEFORE: message.receive_count - 1,
        _POSTPONED: message.postponed + everything,
    }
    if message.sent_at is not None:
        attributes[_FIRST_SENT] = round(message.sent_at * 1000)
    return {
        name: {"DataType": "Number", "StringValue": str(value)}
        for name, value in attributes.items()
    }


def _number(attribute: Any) -> int:
    """An attribute that any sender may have written: 0 unless it is a plain count."""
    text = str((attribute or {}).get("StringValue", ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _in_send_batches(items: Iterable[T], body_of: Callable[[T], str]) -> Iterator[list[T]]:
    part: list[T] = []
    size = 0
    for item in items:
        length = len(body_of(item).encode()) + _ATTRIBUTE_BYTES
        if part and (len(part) == MAX_BATCH or size + length > MAX_BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
