"""One snapshot request from its message to the event that tells its end.

Take (pinned to one point of its collection), resolve (the list is stored), export (copied and
published), announce. Each step finds what an earlier try has done, so a message may come as often
as it likes.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aws_lambda_powertools import Logger

from pixsift.adapters.ledger.snapshots import Snapshots, TakenRequest
from pixsift.errors import PermanentError, PixsiftError, UserError
from pixsift.messages import SnapshotRequest
from pixsift.telemetry import Telemetry
from pixsift_curator.export import Exporter
from pixsift_curator.requests import InvalidRequest, parse_request


class Announcer(Protocol):
    """Where news goes (``EventBus``)."""

    def announce(self, detail_type: str, detail: dict[str, Any]) -> None: ...


Resolve = Callable[[TakenRequest, SnapshotRequest], str]
"""Stores the list that a request asks for; the id of its snapshot."""

Reaction = Literal["done", "stopped"]
"""``done``: acknowledge; ``stopped``: hand the message back at once."""


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """What came: the queue's name, the message's id and its body."""

    queue: str
    message_id: str
    body: str


class Curator:
    """Serves snapshot requests, one at a time."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        resolve: Resolve,
        exporter: Exporter,
        events: Announcer,
        logger: Logger,
        telemetry: Telemetry,
    ) -> None:
        self._snapshots = snapshots
        self._resolve = resolve
        self._exporter = exporter
        self._events = events
        self._logger = logger
        self._telemetry = telemetry

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction:
        """Carry one request as far as it goes.

        Raises TransientError or DependencyDownError when the message should come back.
        """
        request = parse_request(message.body)
        if isinstance(request, InvalidRequest):
            self._record_invalid(message, request)
            return "done"
        body = request.model_dump(mode="json", by_alias=True)
        taken = self._snapshots.take(
            request_id=request.request_id,
            collection=request.collection,
            at_seq=request.at_seq,
            body=body,
        )
        if taken is None:
            self._refuse(request, f"unknown_collection: there is no {request.collection!r}")
            return "done"
        if taken.body != body:
            self._logger.warning("another request had this id before; its answer stands",
                                 request_id=request.request_id)  # fmt: skip
        snapshot_id = self._resolved(taken, request)
        return "done" if snapshot_id is None else self._finish(snapshot_id, stop)

    def resume(self, stop: threading.Event) -> bool:
        """Take up what a vanished curator left behind; False when there is nothing."""
        unannounced = self._snapshots.unannounced()
        if unannounced is not None:
            self._announce(unannounced)
            return True
        unfinished = self._snapshots.unfinished()
        if unfinished is None:
            return False
        self._logger.info("resuming a snapshot", snapshot_id=unfinished)
        self._finish(unfinished, stop)
        return True

    def _resolved(self, taken: TakenRequest, request: SnapshotRequest) -> str | None:
        if taken.snapshot_id is not None:
            return taken.snapshot_id
        if taken.error is not None:
            self._announce_refusal(request.request_id, request.name, taken.error)
            return None
        try:
            with self._telemetry.timed("resolve_seconds"):
                return self._resolve(taken, request)
        except (UserError, PermanentError) as error:
            self._refuse(request, str(error))
            return None

    def _finish(self, snapshot_id: str, stop: threading.Event) -> Reaction:
        with self._telemetry.timed("export_seconds"):
            state = self._exporter.run(snapshot_id, stop)
        if state == "stopped":
            return "stopped"
        if state == "busy":
            # The list is stored and somebody is at it; if they die, ``resume`` takes it up.
            self._logger.info("another curator exports this one", snapshot_id=snapshot_id)
            return "done"
        self._announce(snapshot_id)
        return "done"

    def _record_invalid(self, message: RequestMessage, invalid: InvalidRequest) -> None:
        self._logger.error("invalid snapshot request", message_id=message.message_id,
                           reason=invalid.reason)  # fmt: skip
        self._snapshots.record_anomaly(
            queue=message.queue, message_id=message.message_id,
            body=message.body.encode("utf-8", "surrogatepass"),
            reason=f"invalid_request: {invalid.reason}",
        )  # fmt: skip
        request_id = invalid.request_id or f"message:{message.message_id}"
        self._snapshots.refuse(
            request_id=request_id, body=invalid.body, error=f"invalid_request: {invalid.reason}"
        )
        name = invalid.body.get("name")
        self._announce_refusal(
            request_id,
            name if isinstance(name, str) else None,
            f"invalid_request: {invalid.reason}",
        )

    def _refuse(self, request: SnapshotRequest, reason: str) -> None:
        self._logger.error("snapshot request refused", request_id=request.request_id,
                           reason=reason)  # fmt: skip
        self._snapshots.refuse(
            request_id=request.request_id,
            body=request.model_dump(mode="json", by_alias=True),
            error=reason,
        )
        self._announce_refusal(request.request_id, request.name, reason)

    def _announce_refusal(self, request_id: str, name: str | None, reason: str) -> None:
        self._telemetry.count("requests_refused")
        self._tell(
            "SnapshotFailed",
            {"snapshot_id": None, "name": name, "request_ids": [request_id], "reason": reason},
        )

    def _announce(self, snapshot_id: str) -> None:
        """Tell how it ended, at least once; a bus that refuses is logged and changes nothing."""
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot.announced_at is not None:
            return
        detail: dict[str, Any] = {
            "snapshot_id": snapshot_id,
            "name": snapshot.name,
            "collection": snapshot.collection,
            "at_seq": snapshot.at_seq,
            "images": snapshot.images,
            "request_ids": self._snapshots.request_ids(snapshot_id),
        }
        if snapshot.state == "published":
            self._telemetry.count("snapshots_published")
            self._tell("SnapshotPublished", {**detail, "location": snapshot.location})
        else:
            self._telemetry.count("snapshots_failed")
            self._tell("SnapshotFailed", {**detail, "reason": snapshot.error})
        self._snapshots.announced(snapshot_id)
        self._logger.info("snapshot finished", snapshot_id=snapshot_id, state=snapshot.state,
                          location=snapshot.location)  # fmt: skip

    def _tell(self, detail_type: str, detail: dict[str, Any]) -> None:
        try:
            self._events.announce(detail_type, detail)
        except PixsiftError as error:
            self._telemetry.count("events_not_sent")
            self._logger.warning("event not sent", detail_type=detail_type, reason=str(error),
                                 detail=json.dumps(detail, default=str))  # fmt: skip
