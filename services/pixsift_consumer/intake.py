"""Turns received messages into deliveries: parsed, checked, and without what is decided already."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import Message
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.core.collection import Collection
from pixsift.core.events import ObjectCreated, ObjectEvent, parse_notification
from pixsift.core.identity import ObjectVersion, version_id_of
from pixsift.core.quality import unknown_in
from pixsift.judging import findings
from pixsift.judging.arrivals import Arrival
from pixsift.telemetry import Telemetry
from pixsift_consumer.deliveries import MessageDelivery, delivery_of
from pixsift_consumer.inbox import Inbox


@dataclass(frozen=True, slots=True)
class Takers:
    """The collections that want an object."""

    mine: list[Collection]
    """They judge it now."""
    shadows: list[Collection]
    """They are being built in this space: embed the object, decide nothing."""
    elsewhere: list[Collection]
    """Consumers of another space judge for them, and may get the same message."""


class Collections:
    """The collections of one embedding space, and of others that need it; read again every few
    seconds."""

    def __init__(
        self,
        ledger: Ledger,
        space_id: str,
        *,
        logger: Logger,
        own_queue: bool = False,
        max_age_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """own_queue: other spaces have their own queues, with the same messages."""
        self._ledger = ledger
        self._space_id = space_id
        self._own_queue = own_queue
        self._logger = logger
        self._reported: set[tuple[str, str]] = set()
        self._served: dict[str, Any] = {}
        self._max_age = max_age_seconds
        self._clock = clock
        self._read_at = float("-inf")
        self._known: list[Collection] = []
        self._moving: dict[int, bool] = {}

    def current(self, *, max_age_seconds: float | None = None) -> list[Collection]:
        """Those that this consumer judges or embeds for, as of at most ``max_age_seconds`` ago."""
        limit = self._max_age if max_age_seconds is None else max_age_seconds
        if self._clock() - self._read_at > limit:
            self._known = self._ledger.collections()
            self._moving = self._ledger.spaces.moving(self._space_id)
            self._read_at = self._clock()
            self._tell_served()
            self._tell_unknown()
        return [c for c in self._known if self._is_mine(c) or self._is_shadow(c)]

    def takers(self, event: ObjectEvent) -> Takers | None:
        """The collections that want the object; none: ignored; None: foreign, not to be touched. A
        removal needs no vector, so this consumer also decides it in collections of other spaces. An
        unknown bucket may belong to a new collection: the collections are read again before the
        message is called foreign.
        """
        for max_age in (self._max_age, 1.0):
            self.current(max_age_seconds=max_age)
            if any(rule.bucket == event.bucket for c in self._known for rule in c.sources):
                accepting = [c for c in self._known
                             if c.reach(event.bucket, event.key) == "accepted"]  # fmt: skip
                if not isinstance(event, ObjectCreated):
                    return Takers([c for c in accepting if self._hears_of_removals(c)], [], [])
                return Takers(
                    [c for c in accepting if self._is_mine(c)],
                    [c for c in accepting if self._is_shadow(c)],
                    [c for c in accepting if self._is_elsewhere(c)],
                )
        return None

    def _is_mine(self, collection: Collection) -> bool:
        return collection.space_id == self._space_id

    def _is_shadow(self, collection: Collection) -> bool:
        """With a shared queue the other consumers get the message after this one has returned it,
        or this one gets it after the switch: nothing must be embedded in advance."""
        return self._own_queue and self._moving.get(collection.collection_id, False)

    def _is_elsewhere(self, collection: Collection) -> bool:
        """With separate queues the other space has its own copy of the message. An exception is a
        collection that has left this space: its message may have arrived before the other space
        needed it."""
        if self._is_mine(collection):
            return False
        has_left = self._moving.get(collection.collection_id) is False
        return has_left or not self._own_queue

    def _hears_of_removals(self, collection: Collection) -> bool:
        concerned = self._is_mine(collection) or collection.collection_id in self._moving
        return concerned or not self._own_queue

    def _tell_served(self) -> None:
        """Log at the start, and whenever it changes, what is served and what is not."""
        served = {
            "space_id": self._space_id,
            "own_queue": self._own_queue,
            "judges": [c.name for c in self._known if self._is_mine(c)],
            "embeds_for": [c.name for c in self._known if self._is_shadow(c)],
            "not_served": {
                c.name: c.space_id
                for c in self._known
                if not self._is_mine(c) and not self._is_shadow(c)
            },
        }
        if served != self._served:
            self._served = served
            self._logger.info("serves these collections", extra=served)

    def _tell_unknown(self) -> None:
        """A policy may come from a newer release: log unknown checks once, and continue without
        them."""
        for collection in self._known:
            for check in unknown_in(collection.quality_policy):
                if (collection.name, check) not in self._reported:
                    self._reported.add((collection.name, check))
                    self._logger.error(
                        "a quality check that this release does not know is not applied: "
                        "upgrade the consumer",
                        extra={"collection": collection.name, "check": check},
                    )


class Intake:
    """Reads messages; a message that is not an object event becomes an anomaly, stored before the
    ack."""

    def __init__(
        self, ledger: Ledger, collections: Collections, *, logger: Logger, telemetry: Telemetry
    ) -> None:
        self._ledger = ledger
        self._collections = collections
        self._logger = logger
        self._telemetry = telemetry

    def read(
        self, inbox: Inbox, messages: Sequence[Message]
    ) -> list[tuple[MessageDelivery, list[Arrival]]]:
        """One delivery per message with the arrivals that remain; messages without any are acked. A
        message that only consumers of another space want is returned without arrivals. Raises what
        the ledger raises; then nothing was acked.
        """
        deliveries = [(delivery := delivery_of(message, inbox), self._arrivals(delivery))
                      for message in messages]  # fmt: skip
        self._leave_out_decided([arrival for _, arrivals in deliveries for arrival in arrivals])
        todo = [(d, [a for a in arrivals if a.collections or a.shadows])
                for d, arrivals in deliveries]  # fmt: skip
        inbox.ack([d.message for d, arrivals in todo if not arrivals and not d.elsewhere])
        return [(d, arrivals) for d, arrivals in todo if arrivals or d.elsewhere]

    def give_up(self, delivery: MessageDelivery, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Settle a message that never finished: as ``failed``, or, without a version, as an
        anomaly.

        Returns the arrivals that still need their outcome written.
        """
        for arrival in arrivals:
            arrival.verdict = findings.given_up(arrival)
        if any(arrival.verdict is None for arrival in arrivals):
            self._anomaly(delivery, "gave_up")
        left = [arrival for arrival in arrivals if arrival.verdict is not None]
        if not left and not delivery.elsewhere:
            delivery.inbox.ack([delivery.message])
        return left

    def _arrivals(self, delivery: MessageDelivery) -> list[Arrival]:
        message = delivery.message
        parsed = parse_notification(message.body)
        if parsed.anomaly is not None:
            self._anomaly(delivery, parsed.anomaly)
        arrivals = []
        for event in parsed.records:
            takers = self._collections.takers(event)
            if takers is None:
                self._anomaly(delivery, "foreign_bucket")
                continue
            if not takers.mine and not takers.shadows and not takers.elsewhere:
                self._telemetry.count("ignored")
            if takers.mine or takers.shadows:
                arrivals.append(
                    Arrival(delivery, event, takers.mine, _version(event), shadows=takers.shadows)
                )
            if self._lacks_decision(event, takers.elsewhere):
                delivery.elsewhere.append(event)
        return arrivals

    def _lacks_decision(self, event: ObjectEvent, collections: Sequence[Collection]) -> bool:
        """Whether consumers of another space have not decided the object yet."""
        version = _version(event)
        return any(
            version is None or not self._ledger.decided(c.collection_id, [version])
            for c in collections
        )

    def _anomaly(self, delivery: MessageDelivery, reason: str) -> None:
        self._telemetry.count("anomalies")
        message = delivery.message
        self._logger.warning(
            "no object event", extra={"reason": reason, "message_id": message.message_id}
        )
        body = message.body.encode("utf-8", errors="surrogatepass")
        self._ledger.record_anomaly(delivery.inbox.queue.name, message.message_id, body, reason)

    def _leave_out_decided(self, arrivals: Sequence[Arrival]) -> None:
        """A second delivery finds its outcome here, before anything is fetched."""
        for identity in {c.collection_id for a in arrivals for c in a.collections}:
            concerned = [
                (arrival, arrival.version)
                for arrival in arrivals
                if arrival.version and any(c.collection_id == identity for c in arrival.collections)
            ]
            decided = self._ledger.decided(identity, [version for _, version in concerned])
            for arrival, version in concerned:
                if version in decided:
                    self._telemetry.count("redelivered")
                    arrival.collections = [
                        c for c in arrival.collections if c.collection_id != identity
                    ]


def _version(event: ObjectEvent) -> ObjectVersion | None:
    """The version of a creation event; that of a removal is confirmed at S3 first."""
    if not isinstance(event, ObjectCreated):
        return None
    identity = version_id_of(event.version_id, event.etag)
    return ObjectVersion(event.bucket, event.key, identity) if identity else None
