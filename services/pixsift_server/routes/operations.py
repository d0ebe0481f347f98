"""For operators: queues, undecided messages, the record of changes, tokens; snapshots."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from pixsift.answers.collections import StatusReport
from pixsift.answers.queues import DeadLetterQueue, Undecided
from pixsift.answers.snapshots import SnapshotDetails, SnapshotList
from pixsift.api import ActionPage, NewToken, QueueDepths, Token, TokenAsk, TokenList
from pixsift.operations import access, redrive, snapshots, status
from pixsift_server.access import Caller
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import Before, Limit

router = APIRouter(prefix="/v1", tags=["operations"])
CollectionFilter = Annotated[str | None, Query(max_length=63, description="Only this collection.")]


@router.get("/status", summary="What is in the ledger and what is on its way")
def show_status(parts: Of) -> StatusReport:
    """Outcomes per collection, depths of queues, anomalies."""
    return status.status(parts.database, parts.queues)


@router.get("/queues", summary="About how many messages each queue holds")
def queues(parts: Of) -> QueueDepths:
    """A queue that does not answer says why."""
    return QueueDepths(queues=status.depths(parts.queues))


@router.get("/undecided", summary="Failed objects, anomalies, and the depth of the DLQ")
def undecided(parts: Of, limit: Limit = 100) -> Undecided:
    """Looks into no message."""
    return redrive.undecided(parts.database, parts.queue("ingest_dlq"), limit=limit, messages=False)


@router.get("/dead-letters", summary="Messages of the dead-letter queue")
def dead_letters(parts: Of, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> DeadLetterQueue:
    """SQS counts each look as a receive, and the slow lane allows only a few of them."""
    return redrive.undecided(
        parts.database, parts.queue("ingest_dlq"), limit=limit, messages=True
    ).dlq


@router.get("/actions", summary="Who changed what through the server")
def actions(
    parts: Of, collection: CollectionFilter = None, before: Before = None, limit: Limit = 100
) -> ActionPage:
    """Newest first."""
    return access.actions(parts.database, collection=collection, before=before, limit=limit)


@router.get("/tokens", summary="Every token")
def tokens(parts: Of) -> TokenList:
    """Without their secrets."""
    return access.list_tokens(parts.database)


@router.post("/tokens", status_code=201, summary="Make a token")
def create_token(
    parts: Of, caller: Caller,
    ask: Annotated[TokenAsk, Body(examples=[{"name": "notebook", "role": "viewer"}])],
) -> NewToken:  # fmt: skip
    """Its secret is in this answer and nowhere else."""
    return access.create_token(parts.database, ask, actor=caller.actor)


@router.delete("/tokens/{token_id}", summary="End a token")
def revoke_token(parts: Of, caller: Caller, token_id: Annotated[str, Path(max_length=64)]) -> Token:
    """From the next request on."""
    return access.revoke_token(
        parts.database, token_id, actor=caller.actor, journal=parts.obligations
    )


@router.get("/snapshots", tags=["snapshots"], summary="Snapshots, newest first")
def list_snapshots(
    parts: Of, collection: CollectionFilter = None, limit: Limit = 100
) -> SnapshotList:
    """With the requests that led to no snapshot."""
    return snapshots.list_snapshots(parts.database, collection=collection, limit=limit)


@router.get("/snapshots/{snapshot}", tags=["snapshots"], summary="One snapshot")
def show_snapshot(
    parts: Of,
    snapshot: Annotated[str, Path(max_length=200, description="Its id, request id or name.")],
) -> SnapshotDetails:
    """Request, report and list."""
    return snapshots.show(parts.database, snapshot)
