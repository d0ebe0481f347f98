"""The dead-letter queue from an operator's side: look at it, and send its messages back."""

from typing import Any

from pixsift.adapters.aws.sqs import MAX_BATCH, Message, SqsQueue
from pixsift.core.events import parse_notification

_PEEK_SECONDS = 5
"""How long a message that is looked at stays hidden from the drainer."""


class DeadLetters:
    """A DLQ and the queue its messages came from."""

    def __init__(self, dlq: SqsQueue, source: SqsQueue) -> None:
        self._dlq = dlq
        self._source = source

    def depth(self) -> tuple[int, int]:
        """About how many messages wait, and how many are in flight."""
        return self._dlq.depth()

    def peek(self, limit: int) -> list[dict[str, Any]]:
        """What up to ``limit`` messages speak of; they are given back at once.

        Spends a receive of each, of the few the slow lane has before it gives up.
        """
        seen: dict[str, Message] = {}
        while len(seen) < limit:
            batch = self._receive(min(MAX_BATCH, limit - len(seen)), _PEEK_SECONDS)
            fresh = [message for message in batch if message.message_id not in seen]
            if not fresh:
                break
            seen |= {message.message_id: message for message in fresh}
        self._dlq.release(list(seen.values()))
        return [_told(message) for message in seen.values()]

    def redrive(self, limit: int | None = None) -> int:
        """Send messages back to the source queue; returns how many.

        A message is deleted here only after it was sent there: interrupted in between, it is in
        both, and the second delivery finds its outcome.
        """
        moved = 0
        while limit is None or moved < limit:
            room = MAX_BATCH if limit is None else min(MAX_BATCH, limit - moved)
            batch = self._receive(room, 60)
            if not batch:
                break
            self._source.send(message.body for message in batch)
            self._dlq.ack(batch)
            moved += len(batch)
        return moved

    def _receive(self, room: int, seconds: int) -> list[Message]:
        return self._dlq.receive(room, wait_seconds=1, visibility_timeout_seconds=seconds)


def _told(message: Message) -> dict[str, Any]:
    parsed = parse_notification(message.body)
    return {
        "message_id": message.message_id,
        "receive_count": message.receive_count,
        "sent_at": message.sent_at,
        "objects": [f"s3://{r.bucket}/{r.key}" for r in parsed.records],
        "anomaly": parsed.anomaly,
    }
