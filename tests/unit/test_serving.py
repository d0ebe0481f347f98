"""The curator's loop: what becomes of a message, by how serving it ended."""

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aws_lambda_powertools import Logger

from pixsift import serving as loop
from pixsift.adapters.aws.sqs import Message, SqsQueue
from pixsift.errors import DependencyDownError, PermanentError, TransientError
from pixsift.operations.serve_request import RequestMessage
from pixsift.serving import Reaction
from pixsift.telemetry import make_logger
from pixsift.worker import VisibilityHeartbeat

LOGGER = make_logger("test", "CRITICAL")
PACE = loop.Pace(poll=0, visibility_timeout=60, pause=0.01)
MESSAGE = Message("m1", "h1", "{}", receive_count=3)


@dataclass
class Queue:
    """A queue of a few lines: what is in it, and what was done with it."""

    waiting: list[Message]
    stop: threading.Event
    acked: list[str] = field(default_factory=list)
    released: list[tuple[str, int]] = field(default_factory=list)
    postponed: list[tuple[str, int]] = field(default_factory=list)
    takes_copies: bool = True
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

    def postpone(
        self, messages: list[Message], *, delay_seconds: int, everything: bool
    ) -> list[Message]:
        if not self.takes_copies:
            raise DependencyDownError("the queue takes no copies")
        self.postponed += [(message.message_id, delay_seconds) for message in messages]
        return messages

    def extend(self, messages: list[Message], seconds: int) -> None: ...


@dataclass
class Served:
    """A curator whose results are given: of the first message, and of its looks for leftovers."""

    end: Callable[[], Reaction]
    resume_end: Callable[[], Reaction] = lambda: "done"
    served: int = 0
    resumed: int = 0
    gave_up: list[str] = field(default_factory=list)

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction:
        self.served += 1
        return self.end() if self.served == 1 else "done"

    def resume(self, stop: threading.Event) -> bool:
        self.resumed += 1
        self.resume_end()
        return False

    def give_up(self, message: RequestMessage, reason: str) -> None:
        self.gave_up.append(reason)


class Stop(threading.Event):
    """Notes for how long the loop paused."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return super().wait(timeout)


def run(
    end: Callable[[], Reaction],
    *,
    resume_end: Callable[[], Reaction] = lambda: "done",
    behind: Sequence[Message] = (),
    stop: threading.Event | None = None,
    logger: Logger = LOGGER,
    message: Message = MESSAGE,
    takes_copies: bool = True,
) -> tuple[Queue, Served]:
    stop = stop or threading.Event()
    queue = Queue([message, *behind], stop, takes_copies=takes_copies)
    served = Served(end, resume_end)
    with kept_hidden(queue) as lane:
        loop.run(lane, served, PACE, stop=stop, logger=logger)
    return queue, served


def run_dead_letter(end: Callable[[], Reaction], message: Message) -> tuple[Queue, Served]:
    """The loop with nothing to do but one dead letter."""
    stop = threading.Event()
    queue, dead = Queue([], stop), Queue([message], threading.Event(), name="requests-dlq")
    served = Served(end)
    with kept_hidden(queue) as lane, kept_hidden(dead) as last:
        loop.run(
            lane, served, PACE, stop=stop, logger=LOGGER,
            dead_letters=dataclasses.replace(last, is_last=True),
        )  # fmt: skip
    return dead, served


@contextmanager
def kept_hidden(queue: Queue) -> Iterator[loop.Lane]:
    with VisibilityHeartbeat(
        cast(SqsQueue, queue), visibility_timeout_seconds=60, deadline_seconds=60, logger=LOGGER
    ) as heartbeat:
        yield loop.Lane(cast(SqsQueue, queue), heartbeat)


def raising(error: BaseException) -> Callable[[], Reaction]:
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
def test_run__an_outage_sends_a_delayed_copy_and_costs_no_attempt(error: Exception) -> None:
    queue, served = run(raising(error))
    assert (queue.acked, queue.released, served.gave_up) == ([], [], [])
    ((message_id, delay),) = queue.postponed
    assert message_id == "m1"
    assert 4 <= delay <= 8  # the third receive: 8 s, less up to half


def test_run__where_the_queue_takes_no_copy_the_message_comes_back() -> None:
    queue, _ = run(raising(DependencyDownError("all is away")), takes_copies=False)
    assert [message_id for message_id, _ in queue.released] == ["m1"]


def test_run__an_outage_of_a_day_ends_as_an_announced_failure() -> None:
    old = dataclasses.replace(MESSAGE, sent_at=time.time() - 90_000)
    queue, served = run(raising(DependencyDownError("the disk is full")), message=old)
    assert served.gave_up == ["gave_up: the disk is full"]
    assert (queue.acked, queue.postponed) == (["m1"], [])


def test_run__a_dead_letter_is_served_when_nothing_else_waits() -> None:
    dead, served = run_dead_letter(lambda: "done", MESSAGE)
    assert (dead.acked, served.gave_up, served.resumed) == (["m1"], [], 1)


def test_run__a_dead_letter_with_a_bug_ends_as_an_announced_failure() -> None:
    dead, served = run_dead_letter(raising(KeyError("bug")), MESSAGE)
    assert served.gave_up == ["internal_error: KeyError: 'bug'; see the curator's log"]
    assert (dead.acked, dead.released) == (["m1"], [])


def test_run__a_dead_letter_waits_through_an_outage() -> None:
    dead, served = run_dead_letter(raising(DependencyDownError("S3 is away")), MESSAGE)
    assert [message_id for message_id, _ in dead.postponed] == ["m1"]
    assert served.gave_up == []


def test_run__a_dead_letter_that_ended_process_after_process_is_not_tried() -> None:
    letter = dataclasses.replace(MESSAGE, receive_count=11)
    dead, served = run_dead_letter(lambda: "done", letter)
    assert (served.served, dead.acked) == (0, ["m1"])
    assert served.gave_up[0].startswith("ended_the_process: 10 tries")


@pytest.mark.parametrize("error", [KeyError("bug"), PermanentError("not", "foreseen here")])
def test_run__a_bug_delays_its_message_and_stops_none_behind_it(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = make_logger(f"test-serve-{type(error).__name__}", "ERROR")
    queue, served = run(raising(error), behind=[Message("m2", "h2", "{}")], logger=logger)
    ((message_id, delay),) = queue.released
    assert message_id == "m1"
    assert 4 <= delay <= 8
    assert queue.acked == ["m2"]
    assert served.resumed == 1
    [line] = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["message_id"] == "m1"
    assert document["exception_name"] == type(error).__name__
    assert "Traceback" in document["exception"]


def test_run__a_bug_in_resuming_pauses_the_loop_and_does_not_end_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = Stop()
    logger = make_logger("test-resume", "ERROR")
    queue, served = run(
        lambda: "done", resume_end=raising(KeyError("bug")), stop=stop, logger=logger
    )
    assert (queue.acked, queue.empty_polls, served.resumed) == (["m1"], 2, 1)
    assert stop.pauses == [0.01]
    assert "Traceback" in json.loads(capsys.readouterr().out)["exception"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_run__what_is_meant_to_end_the_process_ends_it(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(raising(error))
    with pytest.raises(type(error)):
        run(lambda: "done", resume_end=raising(error))
