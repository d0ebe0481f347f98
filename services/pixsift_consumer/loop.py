"""The consumer's main loop: receive, read, process; slow lane; stop."""

import random
import threading
import time
from collections.abc import Callable, Sequence

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import MAX_BATCH, Message
from pixsift.core.events import notification_of
from pixsift.errors import (
    BucketDownError,
    DependencyDownError,
    DeviceLostError,
    LoginRefusedError,
    PixsiftError,
)
from pixsift.judging.arrivals import Arrival
from pixsift.judging.pipeline import Pipeline
from pixsift.telemetry import Telemetry
from pixsift_consumer.deliveries import MessageDelivery, QueueSettler
from pixsift_consumer.dependencies import Dependencies, SourceAccess
from pixsift_consumer.faults import FaultPoints
from pixsift_consumer.inbox import Inbox
from pixsift_consumer.intake import Collections, Intake

_Deliveries = list[tuple[MessageDelivery, list[Arrival]]]


class Loop:
    """Runs until it is asked to stop.

    A message received more than twice is processed alone, with nothing else in the pipeline,
    because it may have ended a process; so is a message that the slow lane has tried before. A
    message of many objects that comes again is split into one message per object.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        slow_lane: Inbox,
        intake: Intake,
        collections: Collections,
        pipeline: Pipeline,
        settler: QueueSettler,
        dependencies: Dependencies,
        access: SourceAccess,
        faults: FaultPoints,
        logger: Logger,
        telemetry: Telemetry,
        poll_seconds: int = 8,
        slow_lane_every_seconds: float = 10.0,
        max_receive_count: int = 10,
        give_up_after: int = 20,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """max_receive_count: receives after which the queue moves a message to its DLQ.
        give_up_after: a message of the slow lane received more often than this is taken to have
        ended the process every time, and is not tried again. turned: called once per turn, for the
        health check.
        """
        self._inbox = inbox
        self._slow_lane = slow_lane
        self._intake = intake
        self._collections = collections
        self._pipeline = pipeline
        self._settler = settler
        self._dependencies = dependencies
        self._access = access
        self._faults = faults
        self._logger = logger
        self._telemetry = telemetry
        self._poll_seconds = poll_seconds
        self._slow_lane_every = slow_lane_every_seconds
        self._slow_lane_at = 0.0
        self._max_receives = max_receive_count
        self._give_up_after = give_up_after
        self._turned = turned

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``, or until ``lost`` is set; the caller then finishes the pipeline."""
        while not stop.is_set() and self.lost is None:
            self._turned()
            try:
                if self._dependencies.are_up(stop) and self._has_work(stop):
                    self._turn(stop)
            except PixsiftError as error:
                self._report(error)
                if not self._dependencies.are_down:
                    stop.wait(1.0)

    @property
    def lost(self) -> DeviceLostError | LoginRefusedError | None:
        """The error that only a new process can fix: of the device, or of a login given at the
        start."""
        return self._pipeline.lost or self._dependencies.lost

    def _turn(self, stop: threading.Event) -> None:
        self._process(self._inbox, self._inbox.receive(MAX_BATCH, wait_seconds=self._poll()), stop)
        if time.monotonic() >= self._slow_lane_at and not stop.is_set():
            messages = self._slow_lane.receive(MAX_BATCH, wait_seconds=0)
            self._process(self._slow_lane, messages, stop)
            if not messages:
                self._slow_lane_at = time.monotonic() + self._slow_lane_every

    def _process(self, inbox: Inbox, messages: Sequence[Message], stop: threading.Event) -> None:
        if not messages:
            return
        self._faults.passed("received")
        self._telemetry.count("received", len(messages))
        try:
            deliveries = self._intake.read(inbox, messages)
        except Exception as error:
            self._settler.return_messages(messages, inbox, error)
            raise
        deliveries = self._without_waiting(self._without_others(deliveries))
        again = [d for d, _ in deliveries if inbox.last_chance or d.message.receive_count > 1]
        self._telemetry.count("received_again", len(again))
        alone = []
        for delivery, arrivals in deliveries:
            if delivery in again and len(arrivals) > 1:
                self._try(delivery, lambda d=delivery, a=arrivals: self._split(d, a))  # type: ignore[misc]
            elif self._is_suspect(delivery):
                alone.append((delivery, arrivals))
            else:
                self._pipeline.submit(delivery, arrivals, stop)
        # The least received first, ties at random: one of them may end this process, and should not
        # use up the receives of the same neighbors every time.
        for delivery, arrivals in sorted(alone, key=_suspicion):
            self._process_alone(delivery, arrivals, stop)

    def _without_others(self, deliveries: _Deliveries) -> _Deliveries:
        """Return the messages that only consumers of another embedding space want; the rest."""
        for delivery, arrivals in deliveries:
            if not arrivals:
                self._settler.return_to_others(delivery)
        return [item for item in deliveries if item[1]]

    def _without_waiting(self, deliveries: _Deliveries) -> _Deliveries:
        """Send away the messages of a bucket that is down, without trying them; the rest."""
        waiting: dict[str, list[MessageDelivery]] = {}
        for delivery, arrivals in deliveries:
            buckets = {arrival.event.bucket for arrival in arrivals}
            if down := next((b for b in buckets if self._access.is_down(b)), None):
                waiting.setdefault(down, []).append(delivery)
        for bucket, some in waiting.items():
            error = BucketDownError(bucket)
            self._settler.return_messages([d.message for d in some], some[0].inbox, error)
        gone = {id(delivery) for some in waiting.values() for delivery in some}
        return [item for item in deliveries if id(item[0]) not in gone]

    def _is_suspect(self, delivery: MessageDelivery) -> bool:
        """Whether the message may have ended a process: it was tried before without a result."""
        tried = self._max_receives + 1 if delivery.last_chance else 2
        return delivery.message.receive_count > tried or delivery.message.is_suspect

    def _process_alone(
        self, delivery: MessageDelivery, arrivals: Sequence[Arrival], stop: threading.Event
    ) -> None:
        """A message that ended an earlier attempt may end this one too, so it is tried alone."""
        if not stop.is_set() and self._has_worn_out(delivery):
            todo = self._try(delivery, lambda: self._intake.give_up(delivery, arrivals))
        else:
            todo = arrivals
        if todo:
            self._pipeline.drain(stop)
            self._pipeline.submit(delivery, todo, stop)
            self._pipeline.drain(stop)

    def _has_worn_out(self, delivery: MessageDelivery) -> bool:
        return delivery.last_chance and delivery.message.receive_count > self._give_up_after

    def _try(
        self, delivery: MessageDelivery, action: Callable[[], Sequence[Arrival] | None]
    ) -> Sequence[Arrival] | None:
        """The action's result; on an error the message goes back, and None."""
        try:
            return action()
        except PixsiftError as error:
            self._settler.return_messages([delivery.message], delivery.inbox, error)
            self._report(error)
            return None

    def _split(self, delivery: MessageDelivery, arrivals: Sequence[Arrival]) -> None:
        """Send one message per undecided object, so that receives are counted per object.

        Sent before the old one is acknowledged; interrupted in between, both are delivered, and
        the later delivery finds its outcome.
        """
        self._telemetry.count("messages_split")
        events = [arrival.event for arrival in arrivals]
        events += [event for event in delivery.elsewhere if event not in events]
        self._inbox.queue.send(notification_of(event) for event in events)
        delivery.inbox.ack([delivery.message])

    def _report(self, error: PixsiftError) -> None:
        if isinstance(error, DependencyDownError):
            self._dependencies.report(error)
        else:
            self._logger.warning("a turn failed", extra={"error": str(error)})

    def _poll(self) -> int:
        """A long poll, but shorter while the slow lane is due soon."""
        left = self._slow_lane_at - time.monotonic()
        return min(self._poll_seconds, max(1, round(left)))

    def _has_work(self, stop: threading.Event) -> bool:
        """Without a collection every message would look foreign: wait for the first one."""
        if self._collections.current():
            return True
        self._logger.info(
            "there is no collection of this embedding space yet: waiting for one, or for reembed"
        )
        stop.wait(2.0)
        return False


def _suspicion(item: tuple[MessageDelivery, list[Arrival]]) -> tuple[int, float]:
    return item[0].message.receive_count, random.random()
