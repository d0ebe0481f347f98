"""A queue of the consumer: receive, keep hidden, ack in full batches, give back."""

import random
from collections.abc import Sequence

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import Message, SqsQueue
from pixsift.errors import PixsiftError
from pixsift.worker import AckBuffer, VisibilityHeartbeat, backoff_seconds


class Inbox:
    """One queue and the messages in hand. ``last_chance``: the DLQ, where failing is final."""

    def __init__(
        self,
        queue: SqsQueue,
        *,
        visibility_timeout_seconds: int,
        deadline_seconds: float,
        logger: Logger,
        last_chance: bool = False,
    ) -> None:
        self.queue = queue
        self.last_chance = last_chance
        self._visibility = visibility_timeout_seconds
        self._logger = logger
        self._acks = AckBuffer(queue)
        self._heartbeat = VisibilityHeartbeat(
            queue,
            visibility_timeout_seconds=visibility_timeout_seconds,
            deadline_seconds=deadline_seconds,
            logger=logger,
        )

    def __enter__(self) -> "Inbox":
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heartbeat.__exit__(*raised)

    def receive(self, max_messages: int, *, wait_seconds: int) -> list[Message]:
        """Receive by a long poll; the messages stay hidden until they are settled."""
        messages = self.queue.receive(
            max_messages,
            wait_seconds=wait_seconds,
            visibility_timeout_seconds=self._visibility,
        )
        self._heartbeat.watch(messages)
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledge soon (``flush_acks``): the outcomes of these messages are committed."""
        self._acks.add(messages)

    @property
    def stuck_seconds(self) -> float:
        """For how long decided messages have waited while no acknowledgement came through."""
        return self._acks.stuck_seconds

    def flush_acks(self, *, everything: bool = False) -> int:
        """Send the acknowledgements that are due; the number sent."""
        try:
            sent = self._acks.flush(everything=everything)
        except PixsiftError as error:
            # They come back and find their outcomes.
            self._logger.warning("acknowledging failed", extra={"error": str(error)})
            return 0
        self._heartbeat.forget(sent)
        return len(sent)

    def postpone(
        self, messages: Sequence[Message], *, delay_seconds: int, everything: bool
    ) -> None:
        """Send messages again that an outage interrupted, so that it does not count as an
        attempt."""
        self._heartbeat.forget(messages)
        try:
            done = self.queue.postpone(messages, delay_seconds=delay_seconds, everything=everything)
        except PixsiftError as error:
            # Their visibility runs out by itself; this attempt counts.
            self._logger.warning("postponing failed", extra={"error": str(error)})
            return
        if left := [message for message in messages if message not in done]:
            self.release(left)

    def release(self, messages: Sequence[Message], *, at_once: bool = False) -> None:
        """Give messages back: visible at once, or hidden for longer each time."""
        self._heartbeat.forget(messages)
        try:
            if at_once:
                self.queue.release(messages)
                return
            for message in messages:
                delay = backoff_seconds(message.receive_count, random.random())
                self.queue.release([message], delay_seconds=delay)
        except PixsiftError as error:
            # Their visibility runs out by itself.
            self._logger.warning("releasing failed", extra={"error": str(error)})
