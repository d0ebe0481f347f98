"""Runs the stages in parallel: fetch | decode | thumbnail | embed | commit, with bounded queues.

    submit(arrival) -> fetch -> decode -> thumbnail -> embed -> commit -> settle
                          \\________\\___________\\________\\___^   findings take the short way

Each stage has threads of its own, so the GPU, the decoder's processes, S3 and PostgreSQL work at
the same time. Memory is bounded by bytes: an arrival reserves the size of its object before its
body is read, and keeps a fixed remainder from decoding to commit.

An error in a stage concerns its batch only, and is sorted by the reaction it asks for: permanent
ones are findings already, transient ones send the message back, an outage closes the gate in
front of receiving as well (``report``), and a lost device (``lost``) ends the process, since
waiting does not repair it. Anything else is a bug: logged with its traceback, tried once more
without its batch, and the message goes back until the slow lane records ``failed``. An exception
that escapes a stage ends the process, like ``kill -9``.

Arrivals reach the commit as they get ready, or, ``in_order``, as they were submitted: then the
order of submission alone decides which of two near-duplicates is kept.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aws_lambda_powertools import Logger

from pixsift.core.events import ObjectCreated
from pixsift.core.identity import ObjectVersion, version_id_of
from pixsift.errors import DependencyDownError, DeviceLostError, PixsiftError
from pixsift.judging import findings
from pixsift.judging.arrivals import Arrival, Delivery, Settler
from pixsift.judging.batching import BatchQueue, ByteBudget, InOrder
from pixsift.judging.stages import Commit, Decode, Embed, Fetch, Thumbnails
from pixsift.telemetry import Telemetry
from pixsift.threads import start_guarded

HELD_AFTER_DECODING = 256 * 1024
"""Bytes an arrival is counted with once its file is decoded: a 224 x 224 x 3 model input, the
thumbnail, and what Python adds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the pipeline."""

    max_in_flight: int = 256
    """Arrivals inside at any time."""
    max_bytes: int = 256 * 1024 * 1024
    fetch_threads: int = 8
    decode_batch: int = 8
    decode_threads: int = 2
    embed_batch: int = 16
    commit_batch: int = 64
    batch_wait_seconds: float = 0.02
    """How long a batch that is not full waits for more, from its first arrival on."""
    commit_wait_seconds: float = 0.1
    """The same for the commit: a transaction costs little more for ten images than for one."""
    in_order: bool = False
    """Commit in the order of submission."""


@dataclass(slots=True, eq=False)
class _Stage:
    name: str
    run: Callable[[Sequence[Arrival]], object]
    threads: int
    batch: int
    wait_seconds: float
    queue: BatchQueue[Arrival] = field(init=False)
    capacity: int = 64

    def __post_init__(self) -> None:
        self.queue = BatchQueue(max(self.capacity, 2 * self.batch))


class Pipeline:
    """Takes arrivals, settles their deliveries. ``finish`` ends it."""

    def __init__(
        self,
        *,
        fetch: Fetch,
        decode: Decode,
        thumbnails: Thumbnails,
        embed: Embed,
        commit: Commit,
        settler: Settler,
        report: Callable[[DependencyDownError], None],
        limits: Limits,
        at_point: Callable[[str], None] = lambda point: None,
        logger: Logger,
        telemetry: Telemetry,
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        """report: called with every outage. at_point: called at named points; tests kill there.
        progressed: called whenever an arrival has come to its end, for the health check.
        """
        self._fetch_one = fetch
        self._thumbnails = thumbnails
        self._commit_batch = commit
        self._settler = settler
        self._report = report
        self._limits = limits
        self._at_point = at_point
        self._logger = logger
        self._telemetry = telemetry
        self._progressed = progressed
        self.budget = ByteBudget(limits.max_bytes)
        wait = limits.batch_wait_seconds
        self._fetch = _Stage("fetch", self._run_fetch, limits.fetch_threads, 1, 0)
        self._decode = _Stage(
            "decode", decode.run, limits.decode_threads, limits.decode_batch, wait
        )
        self._thumbnail = _Stage("thumbnail", self._run_thumbnail, 4, 1, 0)
        self._embed = _Stage("embed", embed.run, 1, limits.embed_batch, wait)
        self._commit = _Stage(
            "commit", self._run_commit, 1, limits.commit_batch, limits.commit_wait_seconds,
            capacity=limits.max_in_flight,  # as many as may be inside: handing over never waits
        )  # fmt: skip
        self._ordered = InOrder(self._commit.queue.put) if limits.in_order else None
        self._stages = (self._fetch, self._decode, self._thumbnail, self._embed, self._commit)
        self._changed = threading.Condition()
        self._in_flight = 0
        self._submitted = 0
        self._deliveries: set[Delivery] = set()
        self._lost: DeviceLostError | None = None
        self._start()

    @property
    def in_flight(self) -> int:
        """Arrivals inside."""
        return self._in_flight

    @property
    def lost(self) -> DeviceLostError | None:
        """The error that ended the accelerator; from then on everything is given back."""
        return self._lost

    def submit(
        self, delivery: Delivery, arrivals: Sequence[Arrival], stop: threading.Event
    ) -> None:
        """Send the arrivals of one delivery through; blocks while the pipeline is full. One thread
        submits.

        After ``stop`` nothing more goes in; ``finish`` gives the delivery back.
        """
        delivery.open = len(arrivals)
        with self._changed:
            self._deliveries.add(delivery)
        for arrival in arrivals:
            with self._changed:
                while self._in_flight >= self._limits.max_in_flight and not stop.is_set():
                    self._changed.wait(0.1)
                if stop.is_set():
                    return
                self._in_flight += 1
            arrival.number = self._submitted
            self._submitted += 1
            self._fetch.queue.put(arrival)

    def drain(self, stop: threading.Event | None = None, *, seconds: float | None = None) -> bool:
        """Wait until nothing is inside; False if ``stop`` or the time came first."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while self._in_flight:
                if stop is not None and stop.is_set():
                    return False
                if until is not None and time.monotonic() >= until:
                    return False
                self._changed.wait(0.1)
        return True

    def finish(self, seconds: float) -> None:
        """Finish what is inside within ``seconds``; the rest is unfinished."""
        self.drain(seconds=seconds)
        with self._changed:
            left = list(self._deliveries)
            self._deliveries.clear()
        self._settler.unfinished(left)
        for stage in self._stages:
            stage.queue.close()

    def _start(self) -> None:
        for stage in self._stages:
            for number in range(stage.threads):
                start_guarded(
                    lambda stage=stage: self._serve(stage),  # type: ignore[misc]
                    name=f"{stage.name}-{number}",
                    logger=self._logger,
                )

    def _serve(self, stage: _Stage) -> None:
        # An arrival that is alone in the pipeline does not wait.
        def patience() -> float:
            return stage.wait_seconds if self._in_flight > 1 else 0.0

        while batch := stage.queue.take(stage.batch, patience):
            for group in self._run(stage, batch):
                for arrival in group:
                    self._pass_on(stage, arrival)

    def _run(self, stage: _Stage, batch: Sequence[Arrival]) -> Iterator[Sequence[Arrival]]:
        """The arrivals that the stage has done. A bug costs its own arrival only: the others of
        its batch are tried alone at once."""
        try:
            stage.run(batch)
        except PixsiftError as error:
            self._stage_failed(stage, batch, error)
        except Exception as error:
            if len(batch) == 1:
                self._stage_failed(stage, batch, error)
                return
            self._logger.exception("unexpected error in a batch: trying each image alone",
                                   extra={"stage": stage.name})  # fmt: skip
            for arrival in batch:
                yield from self._run(stage, [arrival])
        else:
            yield batch

    def _pass_on(self, stage: _Stage, arrival: Arrival) -> None:
        try:
            following = self._next(stage, arrival)
        except Exception as error:
            self._stage_failed(stage, [arrival], error)
            return
        if following is None:
            self._settle(arrival, None)
        elif following is self._commit:
            self._hand_to_commit(arrival)
        else:
            following.queue.put(arrival)

    def _hand_to_commit(self, arrival: Arrival) -> None:
        if self._ordered is not None:
            self._ordered.put(arrival.number, arrival)
        else:
            self._commit.queue.put(arrival)

    def _next(self, stage: _Stage, arrival: Arrival) -> _Stage | None:
        """Where an arrival goes from here; findings and known images take the short way."""
        if stage is self._commit:
            return None
        if stage is self._fetch:
            return self._decode if arrival.body and not arrival.verdict else self._commit
        if arrival.decoded is None:
            return self._commit
        if stage is self._decode:
            return self._thumbnail
        if stage is self._thumbnail and not findings.rejected_everywhere(arrival):
            return self._embed
        return self._commit

    # What runs in the stages.

    def _run_fetch(self, batch: Sequence[Arrival]) -> None:
        for arrival in batch:
            if arrival.verdict is not None:
                continue
            self._fetch_one.run(arrival, lambda size, a=arrival: self._reserve(a, size))  # type: ignore[misc]
            self._at_point("fetched")

    def _reserve(self, arrival: Arrival, size: int) -> None:
        arrival.reserved = self.budget.resize(arrival.reserved, size + HELD_AFTER_DECODING)

    def _run_thumbnail(self, batch: Sequence[Arrival]) -> None:
        self._at_point("decoded")
        for arrival in batch:
            arrival.reserved = self.budget.resize(
                arrival.reserved, min(arrival.reserved, HELD_AFTER_DECODING)
            )
            self._thumbnails.run(arrival)

    def _run_commit(self, batch: Sequence[Arrival]) -> None:
        self._at_point("embedded")
        self._commit_batch.run(batch)

    # How an arrival ends.

    def _stage_failed(self, stage: _Stage, batch: Sequence[Arrival], error: Exception) -> None:
        if isinstance(error, DeviceLostError):
            self._lost = self._lost or error  # reported once, by the arrival that ends it
        elif isinstance(error, DependencyDownError):
            self._report(error)
        elif isinstance(error, PixsiftError):
            self._logger.warning("will be retried",
                                 extra={"stage": stage.name, "error": str(error)})  # fmt: skip
        else:
            self._logger.error("unexpected error in an attempt", exc_info=error,
                               extra={"stage": stage.name})  # fmt: skip
        for arrival in batch:
            if self._is_final(stage, arrival, error):
                self._hand_to_commit(arrival)
            else:
                self._settle(arrival, error)

    def _is_final(self, stage: _Stage, arrival: Arrival, error: Exception) -> bool:
        """In the slow lane an error is an outcome, unless it says nothing about the object."""
        version = arrival.version or _version_of(arrival)
        if (
            not arrival.delivery.last_chance
            or isinstance(error, DependencyDownError)
            or stage is self._commit
            or version is None
        ):
            return False
        arrival.verdict = findings.from_last_try(arrival, version, error)
        return True

    def _settle(self, arrival: Arrival, error: Exception | None) -> None:
        arrival.reserved = self.budget.resize(arrival.reserved, 0)
        if self._ordered is not None:
            self._ordered.skip(arrival.number)  # it never got to the commit: do not wait for it
        delivery = arrival.delivery
        with delivery.lock:
            delivery.open -= 1
            delivery.error = delivery.error or error
            finished = delivery.open == 0
        with self._changed:
            ours = delivery in self._deliveries  # otherwise ``finish`` has given it back already
        if finished and ours:
            self._settle_delivery(delivery)
        with self._changed:
            self._in_flight -= 1
            if finished:
                self._deliveries.discard(delivery)
            self._changed.notify_all()
        self._progressed()

    def _settle_delivery(self, delivery: Delivery) -> None:
        if delivery.error is not None:
            self._settler.give_back(delivery, delivery.error)
        else:
            self._settler.done(delivery)


def _version_of(arrival: Arrival) -> ObjectVersion | None:
    event = arrival.event
    identity = version_id_of(event.version_id, event.etag)
    if identity is None or not isinstance(event, ObjectCreated):
        return None
    return ObjectVersion(event.bucket, event.key, identity)
