"""Serves a snapshot request, from its message to the event that announces its end. The steps: take
(pin it to one point of its collection), resolve (store the list), export (copy and publish),
announce. Each step sees what an earlier try has done, so a message may come several times.
"""

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from aws_lambda_powertools import Logger

from pixsift.errors import PermanentError, PixsiftError, UserError
from pixsift.messages import SnapshotRequest
from pixsift.operations.export import Exporter
from pixsift.operations.requests import InvalidRequest, parse_request
from pixsift.operations.serve_request import (
    Announcement,
    RequestMessage,
    announcement,
    body_of,
    is_listed,
    left_behind,
    mark_announced,
    refusal,
    refuse,
    refuse_invalid,
    take,
)
from pixsift.serving import Reaction
from pixsift.telemetry import Telemetry

if TYPE_CHECKING:
    from pixsift.adapters.ledger.snapshots import Snapshots, TakenRequest


class Announcer(Protocol):
    """Where events are sent (``EventBus``)."""

    def announce(self, detail_type: str, detail: dict[str, Any]) -> None: ...


Resolve = Callable[["TakenRequest", SnapshotRequest], str]
"""Stores the list that a request asks for; the id of its snapshot."""


class Curator:
    """Serves snapshot requests, one at a time."""

    def __init__(
        self,
        *,
        snapshots: "Snapshots",
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
        """Carry out one request as far as possible.

        Raises TransientError or DependencyDownError when the message should come back.
        """
        request = parse_request(message.body)
        if isinstance(request, InvalidRequest):
            self._record_invalid(message, request)
            return "done"
        taken = take(self._snapshots, request)
        if taken is None:
            self._refuse(request, f"unknown_collection: {request.collection!r} does not exist")
            return "done"
        if taken.body != body_of(request):
            self._logger.warning("another request had this id before; its answer stands",
                                 request_id=request.request_id)  # fmt: skip
        snapshot_id = self._resolved(taken, request)
        return "done" if snapshot_id is None else self._finish(snapshot_id, stop)

    def resume(self, stop: threading.Event) -> bool:
        """Continue the work that a vanished curator left; False when there is nothing."""
        left = left_behind(self._snapshots)
        if left is None:
            return False
        if left.what == "unannounced":
            self._announce(left.snapshot_id)
            return True
        self._logger.info("resuming a snapshot", snapshot_id=left.snapshot_id)
        self._finish(left.snapshot_id, stop)
        return True

    def give_up(self, message: RequestMessage, reason: str) -> None:
        """End a request that can never be served: recorded, and announced as a failure.

        One whose list is stored already goes on by itself (``resume``).
        """
        request = parse_request(message.body)
        if isinstance(request, InvalidRequest):
            self._record_invalid(message, request)
            return
        if not is_listed(self._snapshots, request.request_id):
            self._refuse(request, reason)

    def _resolved(self, taken: "TakenRequest", request: SnapshotRequest) -> str | None:
        if taken.snapshot_id is not None:
            return taken.snapshot_id
        if taken.error is not None:
            self._tell_refusal(refusal(request.request_id, request.name, taken.error))
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
            # The list is stored and another curator exports it; if it dies, ``resume`` continues.
            self._logger.info("another curator is exporting this snapshot", snapshot_id=snapshot_id)
            return "done"
        self._announce(snapshot_id)
        return "done"

    def _record_invalid(self, message: RequestMessage, invalid: InvalidRequest) -> None:
        self._logger.error("invalid snapshot request", message_id=message.message_id,
                           reason=invalid.reason)  # fmt: skip
        self._tell_refusal(refuse_invalid(self._snapshots, message, invalid))

    def _refuse(self, request: SnapshotRequest, reason: str) -> None:
        self._logger.error("snapshot request refused", request_id=request.request_id,
                           reason=reason)  # fmt: skip
        self._tell_refusal(refuse(self._snapshots, request, reason))

    def _tell_refusal(self, news: Announcement) -> None:
        self._telemetry.count("requests_refused")
        self._tell(news)

    def _announce(self, snapshot_id: str) -> None:
        """Announce the end, at least once; an event that cannot be sent is logged and changes
        nothing."""
        news = announcement(self._snapshots, snapshot_id)
        if news is None:
            return
        is_published = news.kind == "SnapshotPublished"
        self._telemetry.count("snapshots_published", is_published)
        self._telemetry.count("snapshots_failed", not is_published)
        self._tell(news)
        mark_announced(self._snapshots, snapshot_id)
        self._logger.info("snapshot finished", snapshot_id=snapshot_id,
                          state="published" if is_published else "failed",
                          location=news.detail.get("location"))  # fmt: skip

    def _tell(self, news: Announcement) -> None:
        try:
            self._events.announce(news.kind, news.detail)
        except PixsiftError as error:
            self._telemetry.count("events_not_sent")
            self._logger.warning("event not sent", detail_type=news.kind, reason=str(error),
                                 detail=json.dumps(news.detail, default=str))  # fmt: skip
