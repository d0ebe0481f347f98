"""Messages as deliveries, and how a delivery ends at its queue: acked, given back, postponed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import Message
from pixsift.core.events import ObjectEvent
from pixsift.errors import (
    BucketDownError,
    DependencyDownError,
    DeviceLostError,
    OtherSpaceError,
)
from pixsift.judging.arrivals import Delivery
from pixsift.telemetry import Telemetry
from pixsift_consumer.inbox import Inbox
from pixsift_consumer.waiting import WaitingRoom


@dataclass(slots=True, eq=False)
class MessageDelivery(Delivery):
    """One receipt of one message."""

    message: Message
    inbox: Inbox
    elsewhere: list[ObjectEvent] = field(default_factory=list)
    """Events of the message that consumers of another embedding space want: the message is then not
    acknowledged."""


def delivery_of(message: Message, inbox: Inbox) -> MessageDelivery:
    """In the dead-letter queue, failing is final."""
    return MessageDelivery(message=message, inbox=inbox, last_chance=inbox.last_chance)


class QueueSettler:
    """See ``pixsift.judging.arrivals.Settler``."""

    def __init__(self, *, logger: Logger, telemetry: Telemetry) -> None:
        self._logger = logger
        self._telemetry = telemetry
        self._waiting = WaitingRoom()

    def done(self, delivery: Delivery) -> None:
        """Acknowledge the message."""
        ours = _ours(delivery)
        if ours.elsewhere:
            self.return_to_others(ours)
            return
        if ours.message.sent_at is not None:
            age = max(0.0, time.time() - ours.message.sent_at)
            self._telemetry.observe("queue_age_seconds", age)
        ours.inbox.ack([ours.message])

    def give_back(self, delivery: Delivery, error: Exception) -> None:
        """Give the message back for another try."""
        ours = _ours(delivery)
        self._telemetry.count("released")
        self.return_messages([ours.message], ours.inbox, error)

    def return_to_others(self, delivery: MessageDelivery) -> None:
        """Give a message back without counting an attempt: consumers of another embedding space
        want it."""
        self._telemetry.count("wanted_elsewhere")
        self.return_messages([delivery.message], delivery.inbox, OtherSpaceError())

    def unfinished(self, deliveries: Sequence[Delivery]) -> None:
        """Give the messages back, visible at once."""
        left = [_ours(delivery) for delivery in deliveries]
        if left:
            ids = [delivery.message.message_id for delivery in left]
            self._logger.warning("returned to the queue unfinished", extra={"messages": ids})
        for inbox in {delivery.inbox for delivery in left}:
            inbox.release([d.message for d in left if d.inbox is inbox], at_once=True)
        self._telemetry.count("released", len(left))

    def return_messages(self, messages: Sequence[Message], inbox: Inbox, error: Exception) -> None:
        """Give the message back for another try. An outage does not count as an attempt; other
        errors and a lost device do. An outage of all work also counts if the message was there in
        several of them: it may be the cause.
        """
        if not isinstance(error, DependencyDownError) or isinstance(error, DeviceLostError):
            inbox.release(messages)
            return
        name = "everything"
        if isinstance(error, BucketDownError):
            name = error.bucket
        elif isinstance(error, OtherSpaceError):
            name = "another space"
        of_all = name == "everything"
        suspects = [m for m in messages if of_all and m.is_suspect]
        if suspects:
            inbox.release(suspects)
        if others := [message for message in messages if message not in suspects]:
            delay = self._waiting.delay_seconds(name, len(others))
            inbox.postpone(others, delay_seconds=delay, everything=of_all)


def _ours(delivery: Delivery) -> MessageDelivery:
    assert isinstance(delivery, MessageDelivery)  # noqa: S101 - the consumer submits no others
    return delivery
