"""SQS as far as pixsift uses it: visibility, receive counts, DLQ, old receipt handles."""

import asyncio
import hashlib
import heapq
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_numbers = itertools.count(1)


@dataclass(slots=True)
class StubMessage:
    message_id: str
    body: str
    sent_at: float
    receive_count: int = 0
    visible_at: float = 0.0
    """A heap entry with another time is stale."""
    handle: int = 0
    """Number of the latest receipt."""
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StubQueue:
    """One queue; messages come out in no promised order, like SQS, here by visibility time."""

    name: str
    visibility_seconds: float = 30.0
    max_receive_count: int | None = None
    dlq: "StubQueue | None" = None
    messages: dict[str, StubMessage] = field(default_factory=dict)
    _order: list[tuple[float, int, str]] = field(default_factory=list)
    most_received: int = 0

    def send(self, body: str, *, delay: float = 0.0) -> StubMessage:
        number = next(_numbers)
        message = StubMessage(f"m-{number:08d}", body, time.time())
        self.add(message, time.monotonic() + delay)
        return message

    def add(self, message: StubMessage, visible_at: float) -> None:
        self.messages[message.message_id] = message
        self._show(message, visible_at)

    def receive(self, limit: int, visibility: float | None) -> list[dict[str, Any]]:
        now = time.monotonic()
        found: list[dict[str, Any]] = []
        while self._order and len(found) < limit and self._order[0][0] <= now:
            at, _, name = heapq.heappop(self._order)
            message = self.messages.get(name)
            if message is None or message.visible_at != at:
                continue
            if self._moved_away(message):
                continue
            message.receive_count += 1
            message.handle += 1
            self.most_received = max(self.most_received, message.receive_count)
            hidden = self.visibility_seconds if visibility is None else visibility
            self._show(message, now + hidden)
            found.append(_as_received(message))
        return found

    def delete(self, receipt: str) -> bool:
        """Any receipt of the message will do, also an old one."""
        return self.messages.pop(receipt.split("#", maxsplit=1)[0], None) is not None

    def change_visibility(self, receipt: str, seconds: float) -> bool:
        name, _, handle = receipt.partition("#")
        message = self.messages.get(name)
        if message is None or message.handle != int(handle):
            return False
        self._show(message, time.monotonic() + seconds)
        return True

    def depth(self) -> tuple[int, int]:
        now = time.monotonic()
        waiting = sum(message.visible_at <= now for message in list(self.messages.values()))
        return waiting, len(self.messages) - waiting

    def _moved_away(self, message: StubMessage) -> bool:
        if self.dlq is None or self.max_receive_count is None:
            return False
        if message.receive_count < self.max_receive_count:
            return False
        del self.messages[message.message_id]
        self.dlq.add(message, time.monotonic())
        return True

    def _show(self, message: StubMessage, at: float) -> None:
        message.visible_at = at
        heapq.heappush(self._order, (at, next(_numbers), message.message_id))


class StubSqs:
    """The JSON protocol of SQS over ``StubQueue``s."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self.queues: dict[str, StubQueue] = {}

    def create(self, name: str, **options: Any) -> StubQueue:
        self.queues[name] = StubQueue(name, **options)
        return self.queues[name]

    async def call(self, action: str, raw: bytes) -> tuple[int, bytes]:
        asked = json.loads(raw or b"{}")
        if action == "GetQueueUrl":
            if asked["QueueName"] not in self.queues:
                return 400, _error("QueueDoesNotExist")
            return _answer({"QueueUrl": f"{self._url()}/000000000000/{asked['QueueName']}"})
        queue = self.queues[asked["QueueUrl"].rsplit("/", 1)[-1]]
        if action == "ReceiveMessage":
            return _answer({"Messages": await self._receive(queue, asked)})
        return _answer(_ACTIONS[action](queue, asked))

    async def _receive(self, queue: StubQueue, asked: dict[str, Any]) -> list[dict[str, Any]]:
        until = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        while True:
            found = queue.receive(
                asked.get("MaxNumberOfMessages", 1), asked.get("VisibilityTimeout")
            )
            if found or time.monotonic() >= until:
                return found
            await asyncio.sleep(0.02)


def _delete_batch(queue: StubQueue, asked: dict[str, Any]) -> dict[str, Any]:
    for entry in asked["Entries"]:
        queue.delete(entry["ReceiptHandle"])
    return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}


def _change_batch(queue: StubQueue, asked: dict[str, Any]) -> dict[str, Any]:
    done: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for entry in asked["Entries"]:
        good = queue.change_visibility(entry["ReceiptHandle"], entry["VisibilityTimeout"])
        done[good].append({"Id": entry["Id"], "SenderFault": True, "Code": "MessageNotInflight"})
    return {"Successful": [{"Id": e["Id"]} for e in done[True]], "Failed": done[False]}


def _send_batch(queue: StubQueue, asked: dict[str, Any]) -> dict[str, Any]:
    return {"Successful": [_sent(queue, e) | {"Id": e["Id"]} for e in asked["Entries"]],
            "Failed": []}  # fmt: skip


def _sent(queue: StubQueue, entry: dict[str, Any]) -> dict[str, Any]:
    message = queue.send(entry["MessageBody"], delay=entry.get("DelaySeconds", 0))
    message.attributes = entry.get("MessageAttributes", {})
    return {"MessageId": message.message_id, "MD5OfMessageBody": _md5(message.body)}


def _attributes(queue: StubQueue, asked: dict[str, Any]) -> dict[str, Any]:
    waiting, hidden = queue.depth()
    attributes = {
        "ApproximateNumberOfMessages": str(waiting),
        "ApproximateNumberOfMessagesNotVisible": str(hidden),
    }
    if queue.dlq is not None:
        attributes["RedrivePolicy"] = json.dumps({"maxReceiveCount": queue.max_receive_count})
    return {"Attributes": {name: attributes[name] for name in asked["AttributeNames"]
                           if name in attributes}}  # fmt: skip


def _delete(queue: StubQueue, asked: dict[str, Any]) -> dict[str, Any]:
    queue.delete(asked["ReceiptHandle"])
    return {}


_ACTIONS: dict[str, Callable[[StubQueue, dict[str, Any]], dict[str, Any]]] = {
    "DeleteMessage": _delete,
    "DeleteMessageBatch": _delete_batch,
    "ChangeMessageVisibilityBatch": _change_batch,
    "SendMessageBatch": _send_batch,
    "SendMessage": _sent,
    "GetQueueAttributes": _attributes,
}


def _as_received(message: StubMessage) -> dict[str, Any]:
    return {
        "MessageId": message.message_id,
        "ReceiptHandle": f"{message.message_id}#{message.handle}",
        "Body": message.body,
        "MD5OfBody": _md5(message.body),
        "MessageAttributes": message.attributes,
        "Attributes": {
            "ApproximateReceiveCount": str(message.receive_count),
            "SentTimestamp": str(int(message.sent_at * 1000)),
        },
    }


def _answer(document: dict[str, Any]) -> tuple[int, bytes]:
    return 200, json.dumps(document).encode()


def _error(code: str) -> bytes:
    return json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": code}).encode()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
