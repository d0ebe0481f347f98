"""Serves the messages of a queue one at a time; each is acknowledged when its work is finished.

An outage costs no attempt: a delayed copy replaces the message. A bug, or the end of the process,
costs one, and after the last the queue moves the message to its dead-letter queue. Those messages
are tried again when the queue is empty, and end: served, or as an announced failure.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import Message, SqsQueue
from pixsift.errors import DependencyDownError, LoginRefusedError, PixsiftError, TransientError
from pixsift.health import Heartbeat
from pixsift.operations.serve_request import RequestMessage
from pixsift.worker import VisibilityHeartbeat, backoff_seconds

_DOWN_PAUSE_SECONDS = 5.0
_MOST_RECEIVES = 10
"""Of a dead letter, those before its move included: the ends of so many processes are enough."""
_GIVE_UP_SECONDS = 86_400.0
Reaction = Literal["done", "stopped"]
"""``done``: acknowledge; ``stopped``: hand the message back at once."""


class Handler(Protocol):
    """What is done with a message, and while there are none."""

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction: ...

    def resume(self, stop: threading.Event) -> bool: ...

    def give_up(self, message: RequestMessage, reason: str) -> None:
        """End a message as a failure that is recorded and announced."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue, and what keeps its messages hidden while they are worked on."""

    queue: SqsQueue
    heartbeat: VisibilityHeartbeat
    is_last: bool = False
    """Whether it holds dead letters: no queue takes them after it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of the loop, in seconds."""

    poll: int
    visibility_timeout: int
    pause: float = _DOWN_PAUSE_SECONDS
    """After a dependency turned out to be down."""
    give_up: float = _GIVE_UP_SECONDS
    """Age of a message after which an outage ends it as a failure."""
    longest: float = 43_200.0
    """Until when the health check takes one request to be work."""


def run(
    lane: Lane,
    handler: Handler,
    pace: Pace,
    *,
    stop: threading.Event,
    logger: Logger,
    dead_letters: Lane | None = None,
    before_each: Callable[[], None] = lambda: None,
    after_each: Callable[[], None] = lambda: None,
    health: Heartbeat | None = None,
) -> None:
    """Serve until ``stop`` is set. A dependency that is down stops receiving, not the process. A
    bug does not stop it either: one request must not block those behind it. before_each: called
    before a request is served or resumed; what it raises sends the message back. Raises
    LoginRefusedError, where only a new process can continue.
    """
    health = health or Heartbeat("")

    def serve_next(lane: Lane, poll_seconds: int) -> bool:
        """Serve the next message; False when none waits."""
        messages = lane.queue.receive(
            1, wait_seconds=poll_seconds, visibility_timeout_seconds=pace.visibility_timeout
        )
        with health.busy(pace.longest):
            for message in messages:
                _Served(lane, handler, pace, message, logger).run(stop, before_each)
        return bool(messages)

    while not stop.is_set():
        health.touch()
        try:
            is_idle = not serve_next(lane, pace.poll)
            if is_idle and not stop.is_set():
                with health.busy(pace.longest):
                    before_each()
                    is_idle = not handler.resume(stop)
            if is_idle and not stop.is_set() and dead_letters is not None:
                serve_next(dead_letters, 0)
        except LoginRefusedError as error:
            health.refuse(str(error))
            raise
        except DependencyDownError as error:
            logger.error("waiting for a dependency", reason=str(error))
            stop.wait(pace.pause)
        except TransientError as error:
            logger.warning("will try again", reason=str(error))
        except Exception:
            logger.exception("unexpected error outside a request: pausing")
            stop.wait(pace.pause)
        after_each()


@dataclass(frozen=True, slots=True)
class _Served:
    """One message: kept hidden while it is worked on, then acknowledged, or to come back."""

    lane: Lane
    handler: Handler
    pace: Pace
    message: Message
    logger: Logger

    def run(self, stop: threading.Event, before: Callable[[], None]) -> None:
        """Raises TransientError or DependencyDownError after the message was sent back."""
        self.lane.heartbeat.watch([self.message])
        try:
            before()
            reaction = self._react(stop)
        except (TransientError, DependencyDownError) as error:
            self._outlast(error)
            raise
        except Exception as error:
            self._survive(error)
            return
        self._end(reaction)

    def _react(self, stop: threading.Event) -> Reaction:
        if self.lane.is_last and self.message.receive_count > _MOST_RECEIVES:
            ends = self.message.receive_count - 1
            self.handler.give_up(
                self._request(),
                f"ended_the_process: {ends} tries ended without a result; see the curator's log",
            )
            return "done"
        return self.handler.serve(self._request(), stop)

    def _outlast(self, error: PixsiftError) -> None:
        """An outage: it comes back later, and ends as a failure once it has waited for too long."""
        age = 0.0 if self.message.sent_at is None else time.time() - self.message.sent_at
        if age > self.pace.give_up:
            self._give_up(f"gave_up: {error}")
        else:
            self._postpone()

    def _survive(self, error: Exception) -> None:
        """A bug: its message comes back, and after its last receive ends among the dead letters;
        a dead letter ends as a failure."""
        self.logger.exception(
            "unexpected error while serving a request", message_id=self.message.message_id,
            receive_count=self.message.receive_count,
        )  # fmt: skip
        if self.lane.is_last:
            self._give_up(f"internal_error: {type(error).__name__}: {error}; see the curator's log")
            return
        self.lane.heartbeat.forget([self.message])
        self.lane.queue.release([self.message], delay_seconds=self._delay())

    def _give_up(self, reason: str) -> None:
        try:
            self.handler.give_up(self._request(), reason)
        except (TransientError, DependencyDownError):
            self._postpone()  # where it would be recorded is what is down
        else:
            self._end("done")

    def _postpone(self) -> None:
        """A delayed copy takes its place; where the queue refuses that, the attempt counts."""
        self.lane.heartbeat.forget([self.message])
        try:
            replaced = self.lane.queue.postpone(
                [self.message], delay_seconds=self._delay(), everything=True
            )
        except PixsiftError as error:
            self.logger.warning("cannot send a delayed copy of a request", reason=str(error))
            replaced = []
        if not replaced:
            self.lane.queue.release([self.message], delay_seconds=self._delay())

    def _end(self, reaction: Reaction) -> None:
        self.lane.heartbeat.forget([self.message])
        if reaction == "done":
            self.lane.queue.ack([self.message])
        else:
            self.lane.queue.release([self.message])
            self.logger.info("request returned to the queue", message_id=self.message.message_id)

    def _delay(self) -> int:
        tries = self.message.receive_count + self.message.postponed
        return backoff_seconds(tries, random.random())

    def _request(self) -> RequestMessage:
        return RequestMessage(self.lane.queue.name, self.message.message_id, self.message.body)
