"""The consumer: connects its parts, and does the work outside of its loop."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.config import ConsumerSettings
from pixsift.errors import PixsiftError
from pixsift.health import Heartbeat
from pixsift.judging.pipeline import Limits, Pipeline
from pixsift.judging.stages import Commit, Decode, Decoder, Embed, Fetch, Thumbnails
from pixsift.operations.obligations import Obligations
from pixsift.ports import Embedder
from pixsift.telemetry import Telemetry
from pixsift.threads import start_guarded
from pixsift.worker import CLOSING_SECONDS
from pixsift_consumer.deliveries import QueueSettler
from pixsift_consumer.dependencies import (
    LONGEST_PAUSE_SECONDS,
    Dependencies,
    Probe,
    SourceAccess,
)
from pixsift_consumer.faults import FaultPoints
from pixsift_consumer.inbox import Inbox
from pixsift_consumer.intake import Collections, Intake
from pixsift_consumer.loop import Loop

_HOUSEKEEPING_SECONDS = 0.2
_STUCK_SECONDS = 90.0
"""If acknowledgements wait this long without success, the process counts as unhealthy."""
SLOW_LANE_RECEIVES = 10
"""A message keeps its receive count in the DLQ (SQS API reference, ApproximateReceiveCount), and
each look at it there counts as a receive: so more than a few are allowed."""
_ANNOUNCE_SECONDS = 1.0
_METRICS_EVERY = 50
"""Rounds of the housekeeping between two EMF documents: ten seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapters:
    """The external systems of the consumer; ``main`` makes the real ones."""

    ledger: Ledger
    objects: S3Objects
    queue: SqsQueue
    dlq: SqsQueue
    decoder: Decoder
    embedder: Embedder
    obligations: Obligations | None = None
    """The obligations of a restored ledger; None: tests without a journal."""
    announce: Callable[[], int] | None = None
    """Sends the hits of watches that are due, and returns how many; None: no bus is there."""


class Consumer:
    """Wires loop, intake and pipeline. ``run`` returns when it is asked to stop."""

    def __init__(
        self,
        adapters: Adapters,
        settings: ConsumerSettings,
        *,
        faults: FaultPoints,
        logger: Logger,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._logger = logger
        self._telemetry = telemetry
        self._space = adapters.embedder.space
        self._obligations = adapters.obligations
        self._announce = adapters.announce
        self._heartbeat = Heartbeat(settings.health_file)
        self._access = access = SourceAccess(adapters.objects, logger=logger, telemetry=telemetry)
        probes: dict[str, Probe] = {
            "PostgreSQL": adapters.ledger.ping,
            "SQS": adapters.queue.depth,
            "decoder": adapters.decoder.ping,
        }
        if adapters.obligations is not None:
            # Without its journal nothing can be decided in a restored ledger.
            probes["journal"] = adapters.obligations.ensure
        self._dependencies = dependencies = Dependencies(
            probes,
            access,
            logger=logger,
            telemetry=telemetry,
        )
        self._settler = QueueSettler(logger=logger, telemetry=telemetry)
        self.pipeline = self._make_pipeline(adapters, access, dependencies)
        self._inbox = self._make_inbox(adapters.queue, last_chance=False)
        self._slow_lane = self._make_inbox(adapters.dlq, last_chance=True)
        collections = Collections(
            adapters.ledger, self._space.space_id, logger=logger, own_queue=settings.own_queue
        )
        max_receives = adapters.queue.max_receive_count() or 10
        self._loop = Loop(
            inbox=self._inbox,
            slow_lane=self._slow_lane,
            intake=Intake(adapters.ledger, collections, logger=logger, telemetry=telemetry),
            collections=collections,
            pipeline=self.pipeline,
            settler=self._settler,
            dependencies=dependencies,
            access=access,
            faults=faults,
            logger=logger,
            telemetry=telemetry,
            poll_seconds=settings.poll_seconds,
            slow_lane_every_seconds=settings.slow_lane_every_seconds,
            max_receive_count=max_receives,
            give_up_after=max_receives + SLOW_LANE_RECEIVES,
            turned=self._alive,
        )

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop``; then finish or give back the work in progress.

        Raises DeviceLostError or LoginRefusedError, once all is given back, when the accelerator
        failed on the way or PostgreSQL went on refusing the login.
        """
        facts = {"model": self._space.model, "space_id": self._space.space_id}
        self._logger.info("started", extra=facts)
        with ExitStack() as stack:
            stack.enter_context(self._inbox)
            stack.enter_context(self._slow_lane)
            stack.enter_context(self._housekeeping())
            self._loop.run(stop)
            self._logger.info("stopping", extra={"in_flight": self.pipeline.in_flight})
            self.pipeline.finish(self._settings.stop_seconds)
        self._logger.info("stopped")
        if self._loop.lost is not None:
            self._heartbeat.refuse(str(self._loop.lost))
            raise self._loop.lost

    def _make_pipeline(
        self, adapters: Adapters, access: SourceAccess, dependencies: Dependencies
    ) -> Pipeline:
        settings, telemetry = self._settings, self._telemetry
        ledger, objects, embedder = adapters.ledger, adapters.objects, adapters.embedder
        thumbnails = Thumbnails(objects, settings.derived_bucket, telemetry=telemetry)
        return Pipeline(
            fetch=Fetch(
                objects,
                ledger,
                access,
                max_object_bytes=settings.max_object_bytes,
                telemetry=telemetry,
            ),
            decode=Decode(
                adapters.decoder, ledger, space_id=self._space.space_id, telemetry=telemetry
            ),
            thumbnails=thumbnails,
            embed=Embed(embedder, ledger, telemetry=telemetry),
            commit=Commit(ledger, thumbnails, telemetry=telemetry, space_id=self._space.space_id),
            settler=self._settler,
            report=dependencies.report,
            limits=Limits(
                max_in_flight=settings.max_in_flight,
                max_bytes=settings.max_pipeline_bytes,
                fetch_threads=settings.fetch_threads,
                embed_batch=embedder.batch_size,
            ),
            at_point=self._faults.passed,
            logger=self._logger,
            telemetry=telemetry,
            progressed=self._alive,
        )

    def _make_inbox(self, queue: SqsQueue, *, last_chance: bool) -> Inbox:
        return Inbox(
            queue,
            visibility_timeout_seconds=self._settings.visibility_timeout_seconds,
            deadline_seconds=self._settings.message_deadline_seconds,
            logger=self._logger,
            last_chance=last_chance,
        )

    @contextmanager
    def _housekeeping(self) -> Iterator[None]:
        """Acknowledgements, metrics and probes outside the loop; the rest is sent at the end."""
        done = threading.Event()

        def keep_house() -> None:
            turn = 0
            while not done.wait(_HOUSEKEEPING_SECONDS):
                turn += 1
                self._flush_acks(everything=self.pipeline.in_flight == 0)
                if turn % _METRICS_EVERY == 0:
                    self._observe()
                    self._meet_obligations()
            self._flush_acks(everything=True)

        def probe() -> None:  # a bucket that hangs blocks only this thread
            while not done.wait(_HOUSEKEEPING_SECONDS):
                self._access.probe_due()

        def announce() -> None:  # a bus that hangs holds this thread, and no other
            pause = _ANNOUNCE_SECONDS
            while not done.wait(pause):
                went_well = self._announce_hits()
                pause = _ANNOUNCE_SECONDS if went_well else min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._announce_hits()

        thread = start_guarded(keep_house, name="housekeeping", logger=self._logger)
        start_guarded(probe, name="probes", logger=self._logger)
        teller = start_guarded(announce, name="announcements", logger=self._logger)
        try:
            yield
        finally:
            done.set()
            thread.join(
                CLOSING_SECONDS
            )  # messages that are not acknowledged come back and find their outcomes
            teller.join(CLOSING_SECONDS)  # what is still due is announced by the next process
            self._telemetry.flush()

    def _alive(self) -> None:
        """Touch the heartbeat file, unless work is done and nothing of it is acknowledged.

        A consumer that waits for a dependency is alive: killing it would not help.
        """
        stuck = max(self._inbox.stuck_seconds, self._slow_lane.stuck_seconds)
        if stuck < _STUCK_SECONDS or self._dependencies.are_down:
            self._heartbeat.touch()

    def _flush_acks(self, *, everything: bool) -> None:
        """Full batches while there is work, the rest as soon as there is none."""
        sent = sum(inbox.flush_acks(everything=everything)
                   for inbox in (self._inbox, self._slow_lane))  # fmt: skip
        if sent:
            self._faults.passed("acked")

    def _meet_obligations(self) -> None:
        """An idle consumer also notices a restored ledger: other processes may serve from it."""
        try:
            if self._obligations is not None:
                self._obligations.ensure()
        except PixsiftError as error:
            # It is tried again before the next decision, and an outage is handled there.
            self._logger.warning("the journal is not met", extra={"error": str(error)})

    def _announce_hits(self) -> bool:
        """Whether that went well; what did not go out stays due."""
        try:
            sent = 0 if self._announce is None else self._announce()
            self._telemetry.count("watch_hits_announced", sent)
        except PixsiftError as error:
            self._telemetry.count("events_not_sent")
            self._logger.warning("hits of watches are not announced yet",
                                 extra={"error": str(error)})  # fmt: skip
            return False
        return True

    def _observe(self) -> None:
        self._telemetry.observe("in_flight", self.pipeline.in_flight)
        try:
            waiting, _ = self._inbox.queue.depth()
            self._telemetry.observe("backlog", waiting)
        except PixsiftError as error:
            # Only a metric is missing; the loop notices an outage itself.
            self._logger.debug("cannot read the backlog", extra={"error": str(error)})
        self._telemetry.flush()
