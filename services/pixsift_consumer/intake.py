"""From received messages to deliveries: parsed, allowed, and without what is decided already."""

import time
from collections.abc import Callable, Sequence

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


class Collections:
    """The collections of one embedding space, read again every few seconds."""

    def __init__(
        self,
        ledger: Ledger,
        space_id: str,
        *,
        logger: Logger,
        max_age_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._space_id = space_id
        self._logger = logger
        self._told: set[tuple[str, str]] = set()
        self._max_age = max_age_seconds
        self._clock = clock
        self._read_at = float("-inf")
        self._known: list[Collection] = []

    def current(self, *, max_age_seconds: float | None = None) -> list[Collection]:
        """As of at most ``max_age_seconds`` ago."""
        limit = self._max_age if max_age_seconds is None else max_age_seconds
        if self._clock() - self._read_at > limit:
            self._known = self._ledger.collections(self._space_id)
            self._read_at = self._clock()
            self._tell_unknown()
        return self._known

    def _tell_unknown(self) -> None:
        """A policy may have been written by a newer release: say so once, and go on without."""
        for collection in self._known:
            for check in unknown_in(collection.quality_policy):
                if (collection.name, check) not in self._told:
                    self._told.add((collection.name, check))
                    self._logger.error(
                        "a quality check that this release does not know is not applied: "
                        "upgrade the consumer",
                        extra={"collection": collection.name, "check": check},
                    )

    def takers(self, event: ObjectEvent) -> list[Collection] | None:
        """The collections that judge the object; empty: ignored; None: not ours to touch.

        A bucket nobody knows may belong to a collection made a moment ago: it is asked for once
        more before the message is called foreign.
        """
        for max_age in (self._max_age, 1.0):
            known = self.current(max_age_seconds=max_age)
            if any(rule.bucket == event.bucket for c in known for rule in c.sources):
                return [c for c in known if c.reach(event.bucket, event.key) == "accepted"]
        return None


class Intake:
    """Reads messages; what is not an object event becomes an anomaly, stored before it is acked."""

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
        """One delivery per message with what is left to do; messages with nothing left are acked.

        Raises what the ledger raises; then nothing was acked.
        """
        deliveries = [(delivery := delivery_of(message, inbox), self._arrivals(delivery))
                      for message in messages]  # fmt: skip
        self._leave_out_decided([arrival for _, arrivals in deliveries for arrival in arrivals])
        todo = [(d, [a for a in arrivals if a.collections]) for d, arrivals in deliveries]
        inbox.ack([delivery.message for delivery, arrivals in todo if not arrivals])
        return [(delivery, arrivals) for delivery, arrivals in todo if arrivals]

    def give_up(self, delivery: MessageDelivery, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Settle what never came to an end: as ``failed``, or, without a version, as an anomaly.

        Returns the arrivals that still need their outcome written.
        """
        for arrival in arrivals:
            arrival.verdict = findings.given_up(arrival)
        if any(arrival.verdict is None for arrival in arrivals):
            self._anomaly(delivery, "gave_up")
        left = [arrival for arrival in arrivals if arrival.verdict is not None]
        if not left:
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
            elif not takers:
                self._telemetry.count("ignored")
            else:
                arrivals.append(Arrival(delivery, event, takers, _version(event)))
        return arrivals

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
    """The version a creation speaks of; a removal's is confirmed at S3 first."""
    if not isinstance(event, ObjectCreated):
        return None
    identity = version_id_of(event.version_id, event.etag)
    return ObjectVersion(event.bucket, event.key, identity) if identity else None
