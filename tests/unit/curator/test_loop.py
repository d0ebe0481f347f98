"""The curator's loop: what becomes of a message, by how serving it ended."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pixsift.adapters.sqs import Message, SqsQueue
from pixsift.errors import DependencyDownError, TransientError
from pixsift.telemetry import make_logger
from pixsift.worker import VisibilityHeartbeat
from pixsift_curator import loop
from pixsift_curator.curator import Curator, Reaction, RequestMessage

LOGGER = make_logger("test", "CRITICAL")


@dataclass
class Queue:
    """A queue of a few lines: what is in it, and what was done with it."""

    waiting: list[Message]
    stop: threading.Event
    acked: list[str] = field(default_factory=list)
    released: list[tuple[str, int]] = field(default_factory=list)
    name: str = "requests"
    empty_polls: int = 0

    def receive(self, count: int, **_: Any) -> list[Message]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        if not taken:
            self.empty_polls += 1
            if self.empty_polls == 2:
                self.stop.set()
        return taken

    def ack(self, messages: list[Message]) -> None:
        self.acked += [message.message_id for message in messages]

    def release(self, messages: list[Message], *, delay_seconds: int = 0) -> None:
        self.released += [(message.message_id, delay_seconds) for message in messages]

    def extend(self, messages: list[Message], seconds: int) -> None: ...


@dataclass
class Served:
    """A curator that ends as told."""

    end: Callable[[], Reaction]
    resumed: int = 0

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction:
        return self.end()

    def resume(self, stop: threading.Event) -> bool:
        self.resumed += 1
        return False


def run(end: Callable[[], Reaction]) -> tuple[Queue, Served]:
    stop = threading.Event()
    queue = Queue([Message("m1", "h1", "{}", receive_count=3)], stop)
    served = Served(end)
    with VisibilityHeartbeat(
        cast(SqsQueue, queue), visibility_timeout_seconds=60, deadline_seconds=60, logger=LOGGER
    ) as heartbeat:
        loop.run(
            cast(SqsQueue, queue), cast(Curator, served), heartbeat, stop=stop, poll_seconds=0,
            visibility_timeout_seconds=60, logger=LOGGER, pause_seconds=0.01,
        )  # fmt: skip
    return queue, served


def raising(error: Exception) -> Callable[[], Reaction]:
    def end() -> Reaction:
        raise error

    return end


def test_run__acknowledges_what_has_its_end_and_looks_for_leftovers_when_idle() -> None:
    queue, served = run(lambda: "done")
    assert (queue.acked, queue.released) == (["m1"], [])
    assert served.resumed == 1  # the second empty poll came with the stop


def test_run__a_stop_hands_the_message_back_at_once() -> None:
    queue, _ = run(lambda: "stopped")
    assert (queue.acked, queue.released) == ([], [("m1", 0)])


@pytest.mark.parametrize("error", [TransientError("cut off"), DependencyDownError("S3 is away")])
def test_run__what_may_succeed_later_comes_back_after_a_while(error: Exception) -> None:
    queue, _ = run(raising(error))
    assert queue.acked == []
    ((message_id, delay),) = queue.released
    assert message_id == "m1"
    assert 4 <= delay <= 8  # the third receive: 8 s, less up to half


def test_run__a_bug_ends_the_process_and_the_message_comes_back_by_itself() -> None:
    with pytest.raises(KeyError):
        run(raising(KeyError("bug")))
