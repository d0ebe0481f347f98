"""The parts that both queue services share, on a hand-written queue and clock."""

import os
import signal
from collections.abc import Sequence
from typing import Any, cast

import pytest

from pixsift.adapters.aws.sqs import Message, SqsQueue
from pixsift.errors import TransientError
from pixsift.telemetry import make_logger
from pixsift.worker import AckBuffer, StopSignal, VisibilityHeartbeat, backoff_seconds


class RecordingQueue:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.extended: list[tuple[list[str], int]] = []
        self.acked: list[list[str]] = []
        self.fails = False

    def extend(self, messages: Sequence[Message], seconds: int) -> None:
        self.extended.append(([m.message_id for m in messages], seconds))

    def ack(self, messages: Sequence[Message]) -> None:
        if self.fails:
            raise TransientError("500")
        self.acked.append([m.message_id for m in messages])


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def message(name: str, *, received_at: float = 100.0) -> Message:
    return Message(name, f"handle-{name}", "", received_at=received_at)


def heartbeat(queue: RecordingQueue, clock: Clock) -> VisibilityHeartbeat:
    return VisibilityHeartbeat(
        cast(SqsQueue, queue), visibility_timeout_seconds=30, deadline_seconds=100,
        logger=make_logger("test", "CRITICAL"), clock=clock,
    )  # fmt: skip


def test_heartbeat__extends_only_what_is_due() -> None:
    queue, clock = RecordingQueue(), Clock()
    beats = heartbeat(queue, clock)
    beats.watch([message("old", received_at=88.0), message("new")])
    assert beats.beat() == 1  # two thirds of 30 s are not yet left
    assert queue.extended == [(["old"], 30)]
    assert beats.beat() == 0


def test_heartbeat__leaves_a_message_past_its_deadline() -> None:
    queue, clock = RecordingQueue(), Clock()
    beats = heartbeat(queue, clock)
    beats.watch([message("stuck")])
    clock.now += 101
    assert beats.beat() == 0
    clock.now += 30
    assert beats.beat() == 0
    assert queue.extended == []


def test_heartbeat__forgets_what_is_settled() -> None:
    queue, clock = RecordingQueue(), Clock()
    beats = heartbeat(queue, clock)
    beats.watch([message("done")])
    beats.forget([message("done")])
    clock.now += 20
    assert beats.beat() == 0


def test_ack_buffer__full_batches_at_once_the_rest_after_a_while() -> None:
    queue, clock = RecordingQueue(), Clock()
    buffer = AckBuffer(cast(SqsQueue, queue), max_wait_seconds=1, clock=clock)
    buffer.add([message(str(n)) for n in range(13)])
    assert len(buffer.flush()) == 10
    for _ in range(4):  # asking does not restart the wait
        clock.now += 0.2
        assert buffer.flush() == []
    clock.now += 0.2
    assert [m.message_id for m in buffer.flush()] == ["10", "11", "12"]


def test_ack_buffer__what_could_not_be_sent_is_sent_later() -> None:
    """Otherwise the heartbeat would keep a finished message hidden until its deadline."""
    queue = RecordingQueue()
    buffer = AckBuffer(cast(SqsQueue, queue))
    buffer.add([message("a")])
    queue.fails = True
    with pytest.raises(TransientError):
        buffer.flush(everything=True)
    queue.fails = False
    assert len(buffer.flush(everything=True)) == 1


def test_ack_buffer__everything_at_the_end() -> None:
    queue = RecordingQueue()
    buffer = AckBuffer(cast(SqsQueue, queue))
    buffer.add([message("a")])
    assert len(buffer.flush(everything=True)) == 1


@pytest.mark.parametrize(
    ("count", "jitter", "seconds"),
    [(1, 0.0, 2), (2, 0.0, 4), (3, 0.99, 4), (9, 0.0, 300), (10_000, 0.0, 300), (0, 0.0, 2)],
)
def test_backoff_seconds(count: int, jitter: float, seconds: int) -> None:
    assert backoff_seconds(count, jitter) == seconds


def test_stop_signal__sets_the_event_and_puts_the_handler_back() -> None:
    before: Any = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before
