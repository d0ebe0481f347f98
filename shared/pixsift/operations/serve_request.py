"""Steps of the curator for a snapshot request: accept or refuse it, and announce its end. Each step
sees what an earlier try has done; the announcement is a value that the caller sends.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pixsift.adapters.ledger.snapshots import LeaseLostError, Snapshots, TakenRequest
from pixsift.messages import SnapshotRequest
from pixsift.operations.requests import InvalidRequest


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """A received message: the queue's name, the message's id and its body."""

    queue: str
    message_id: str
    body: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """News for the event bus."""

    kind: Literal["SnapshotPublished", "SnapshotFailed"]
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A snapshot that was left by its curator."""

    snapshot_id: str
    what: Literal["unannounced", "unfinished"]


def body_of(request: SnapshotRequest) -> dict[str, Any]:
    """As the ledger stores it."""
    return request.model_dump(mode="json", by_alias=True)


def take(snapshots: Snapshots, request: SnapshotRequest) -> TakenRequest | None:
    """Pin a request to a point of its collection, or find it as it was pinned before.

    None when there is no such collection.
    """
    return snapshots.take(
        request_id=request.request_id,
        collection=request.collection,
        at_seq=request.at_seq,
        body=body_of(request),
    )


def refuse(snapshots: Snapshots, request: SnapshotRequest, reason: str) -> Announcement:
    """Record that a request leads to no snapshot, and why."""
    snapshots.refuse(request_id=request.request_id, body=body_of(request), error=reason)
    return refusal(request.request_id, request.name, reason)


def refuse_invalid(
    snapshots: Snapshots, message: RequestMessage, invalid: InvalidRequest
) -> Announcement:
    """Keep a message that is not a request as an anomaly, and refuse it."""
    reason = f"invalid_request: {invalid.reason}"
    snapshots.record_anomaly(
        queue=message.queue, message_id=message.message_id,
        body=message.body.encode("utf-8", "surrogatepass"), reason=reason,
    )  # fmt: skip
    request_id = invalid.request_id or f"message:{message.message_id}"
    snapshots.refuse(request_id=request_id, body=invalid.body, error=reason)
    name = invalid.body.get("name")
    return refusal(request_id, name if isinstance(name, str) else None, reason)


def refusal(request_id: str, name: str | None, reason: str) -> Announcement:
    """The event of a refused request."""
    detail = {"snapshot_id": None, "name": name, "request_ids": [request_id], "reason": reason}
    return Announcement("SnapshotFailed", detail)


def announcement(snapshots: Snapshots, snapshot_id: str) -> Announcement | None:
    """The event of a snapshot's end; None when it was sent before.

    Record that they were sent with ``mark_announced``, after sending: at least once.
    """
    snapshot = snapshots.get(snapshot_id)
    if snapshot.announced_at is not None:
        return None
    detail: dict[str, Any] = {
        "snapshot_id": snapshot_id,
        "name": snapshot.name,
        "collection": snapshot.collection,
        "at_seq": snapshot.at_seq,
        "images": snapshot.images,
        "request_ids": snapshots.request_ids(snapshot_id),
    }
    if snapshot.state == "published":
        return Announcement("SnapshotPublished", {**detail, "location": snapshot.location})
    return Announcement("SnapshotFailed", {**detail, "reason": snapshot.error})


def mark_announced(snapshots: Snapshots, snapshot_id: str) -> None:
    """Record that the event of a snapshot's end was sent."""
    snapshots.announced(snapshot_id)


def left_behind(snapshots: Snapshots) -> LeftBehind | None:
    """The work that a vanished curator left: unsent events come before unfinished copies."""
    unannounced = snapshots.unannounced()
    if unannounced is not None:
        return LeftBehind(unannounced, "unannounced")
    unfinished = snapshots.unfinished()
    return None if unfinished is None else LeftBehind(unfinished, "unfinished")


def is_listed(snapshots: Snapshots, request_id: str) -> bool:
    """Whether the request's list of images is stored, so that its export continues by itself."""
    known = snapshots.request(request_id)
    return known is not None and known.snapshot_id is not None


def renew_lease(snapshots: Snapshots, snapshot_id: str, fence: int, *, seconds: float) -> bool:
    """Stay a snapshot's exporter; False when another one has taken it over."""
    try:
        snapshots.renew(snapshot_id, fence, lease_seconds=seconds)
    except LeaseLostError:
        return False
    return True
