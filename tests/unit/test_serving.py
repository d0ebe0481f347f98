"""The curator's loop: what becomes of a message, by how serving it ended."""

import json
import threading
from collections.abc import Callable, Sequence
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
from pixsift_curator.curator import Curator

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
    """A curator whose results are given: of the first message, and of its looks for leftovers."""

    end: Callable[[], Reaction]
    resume_end: Callable[[], Reaction] = lambda: "done"
    served: int = 0
    resumed: int = 0

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction:
        self.served += 1
        return self.end() if self.served == 1 else "done"

    def resume(self, stop: threading.Event) -> bool:
        self.resumed += 1
        self.resume_end()
        return False


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
) -> tuple[Queue, Served]:
    stop = stop or threading.Event()
    queue = Queue([Message("m1", "h1", "{}", receive_count=3), *behind], stop)
    served = Served(end, resume_end)
    with VisibilityHeartbeat(
        cast(SqsQueue, queue), visibility_timeout_seconds=60, deadline_seconds=60, logger=LOGGER
    ) as heartbeat:
        loop.run(
            cast(SqsQueue, queue), cast(Curator, served), heartbeat, stop=stop, poll_seconds=0,
            visibility_timeout_seconds=60, logger=logger, pause_seconds=0.01,
        )  # fmt: skip
    return queue, served


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
def test_run__what_may_succeed_later_comes_back_after_a_while(error: Exception) -> None:
    queue, _ = run(raising(error))
    assert queue.acked == []
    ((message_id, delay),) = queue.released
    assert message_id == "m1"
    assert 4 <= delay <= 8  # the third receive: 8 s, less up to half


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
