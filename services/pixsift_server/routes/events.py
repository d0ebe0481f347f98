"""One stream of events (server-sent events): decisions, queues, jobs, changes. Every event's id is
a cursor. A client that reconnects sends it as ``Last-Event-ID`` and gets what it missed; if the
ledger was restored in the meantime, it gets ``history_lost`` and continues from now. At most two
messages a second and collection: above that, decisions come as counts with the newest images.
"""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from pixsift.api import ActionPage, QueueDepths
from pixsift.api_changes import HistoryLost, JobList
from pixsift.errors import PixsiftError
from pixsift.operations import access
from pixsift.operations.events import Cursor, Head
from pixsift_server.parts import Of, Parts

router = APIRouter(prefix="/v1", tags=["events"])
_TICK_SECONDS = 0.5
_HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = "event: heartbeat\ndata: {}\n\n"
"""An event, not a comment: a page must be able to notice that it stopped. It has no id."""
_RETRY_MILLISECONDS = 2000
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Id of the last event that was seen.")
]


@router.get(
    "/events",
    summary="What happens, as it happens",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
)
async def events(
    parts: Of,
    last_event_id: LastEventId = None,
    since: Annotated[
        str | None, Query(max_length=8192, description="As Last-Event-ID, for a first request.")
    ] = None,
) -> StreamingResponse:
    """Events `hello`, `decisions`, `watch_hits`, `queues`, `jobs`, `actions`, `history_lost`.

    Their data are the schemas Decisions, WatchHits, QueueDepths, JobList, ActionPage, HistoryLost.
    After 15 seconds without another event comes a `heartbeat`: a stream that is silent for longer
    is dead.
    """
    given = last_event_id or since
    start = None if not given else Cursor.decoded(given)
    return StreamingResponse(
        stream(parts, start), media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
    )  # fmt: skip


async def stream(parts: Parts, start: Cursor | None) -> AsyncIterator[str]:
    """Messages until the client goes away."""
    if start is None:
        start = await anyio.to_thread.run_sync(partial(_now, parts))
    cursor = start
    yield f"retry: {_RETRY_MILLISECONDS}\nid: {cursor.encoded()}\nevent: hello\ndata: {{}}\n\n"
    seen_jobs, seen_queues, said_at = -1, "", time.monotonic()
    while True:
        messages: list[str] = []
        known = cursor
        try:
            cursor, found = await anyio.to_thread.run_sync(partial(_news, parts, known))
            messages += found
            held = QueueDepths(queues=dict(await anyio.to_thread.run_sync(parts.watcher.depths)))
            if held.model_dump_json() != seen_queues:
                seen_queues = held.model_dump_json()
                messages.append(_message("queues", held, cursor))
        except PixsiftError:
            pass  # the ledger does not answer now: nothing is skipped, the cursor stays
        if parts.jobs.version != seen_jobs:
            seen_jobs = parts.jobs.version
            messages.append(_message("jobs", JobList(jobs=parts.jobs.all()[:20]), cursor))
        if not messages and time.monotonic() - said_at > _HEARTBEAT_SECONDS:
            messages.append(_HEARTBEAT)
        for message in messages:
            said_at = time.monotonic()
            yield message
        await anyio.sleep(_TICK_SECONDS)


def _now(parts: Parts) -> Cursor:
    """A cursor at the present point."""
    newest = access.actions(parts.database, collection=None, before=None, limit=1).actions
    cursor = Cursor(action=newest[0].action_id if newest else 0)
    for name, head in parts.watcher.heads().items():
        cursor = cursor.at(name, head)
    return cursor


def _news(parts: Parts, cursor: Cursor) -> tuple[Cursor, list[str]]:
    """The events after the cursor, as messages, and the new cursor."""
    messages: list[str] = []
    for name, head in parts.watcher.heads().items():
        known_cursor = cursor
        seq, token = cursor.collections.get(name, (0, ""))
        known = Head(seq, token)
        if name in cursor.collections and known == head:
            continue
        if name in cursor.collections:
            if parts.watcher.is_lost(name, known):
                cursor = cursor.at(name, head)
                lost = HistoryLost(collection=name, seq=head.seq)
                messages.append(_message("history_lost", lost, cursor))
                continue
            if head.seq <= seq:  # our copy of the collection is a moment old
                continue
        found = parts.watcher.decisions(name, seq, head.seq)
        matched = parts.watcher.watch_hits(name, seq, head.seq)
        cursor = cursor.at(name, head)
        if matched.counts:
            # With an id that knows neither: after a break between the two, both come again.
            messages.append(_message("watch_hits", matched, known_cursor))
        messages.append(_message("decisions", found, cursor))
    fresh = [
        each for each in access.actions(
            parts.database, collection=None, before=None, limit=50
        ).actions if each.action_id > cursor.action
    ]  # fmt: skip
    if fresh:
        cursor = cursor.model_copy(update={"action": fresh[0].action_id})
        messages.append(_message("actions", ActionPage(actions=fresh), cursor))
    return cursor, messages


def _message(event: str, data: BaseModel, cursor: Cursor) -> str:
    return f"id: {cursor.encoded()}\nevent: {event}\ndata: {data.model_dump_json()}\n\n"
