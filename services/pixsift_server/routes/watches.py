"""Watches: standing queries, what they matched, and runs over the past."""

from typing import Annotated

from fastapi import APIRouter, Body, File, Form, Path, Query, UploadFile

from pixsift.api_changes import Job
from pixsift.api_watches import (
    Watch,
    WatchAsk,
    WatchHitPage,
    WatchList,
    WatchPast,
    WatchTrial,
)
from pixsift.operations import access, watch
from pixsift.operations.examples import Uploads
from pixsift_server.access import Caller
from pixsift_server.jobs import ReportProgress
from pixsift_server.parts import Of, Parts
from pixsift_server.routes.parameters import Before, Limit
from pixsift_server.routes.uploads import asked, blobs_of, uploads_of

router = APIRouter(prefix="/v1/watches", tags=["watches"])
WatchId = Annotated[int, Path(ge=0, lt=1 << 63, description="Id of a watch.", examples=[7])]
_EXAMPLE = {
    "name": "forklifts", "examples": [{"uri": "s3://raw/robot-1/cam/0001.jpg"}],
    "where": {"attributes": {"robot": ["r2"]}}, "max_distance": 0.3, "destination": "events",
}  # fmt: skip


@router.get("", summary="Watches, the newest first")
def list_watches(
    parts: Of,
    collection: Annotated[str | None, Query(max_length=63)] = None,
    *,
    ended: Annotated[bool, Query(description="Those that have ended as well.")] = False,
    limit: Limit = 1000,
) -> WatchList:
    """With how many images each has matched."""
    return watch.list_watches(parts.database, collection=collection, ended=ended, limit=limit)


@router.post("", status_code=201, summary="Watch for images like some examples")
def begin(parts: Of, caller: Caller, ask: Annotated[WatchAsk, Body(examples=[_EXAMPLE])]) -> Watch:
    """From now on; `POST /v1/watches/{watch_id}/past` matches what is there already."""
    return _begin(parts, caller.actor, ask, Uploads())


@router.post("/upload", status_code=201, summary="Watch for images like files that come with it")
def begin_with_files(
    parts: Of,
    caller: Caller,
    files: Annotated[list[UploadFile], File(description="Images, 64 at most.")],
    ask: Annotated[
        str, Form(description="As JSON, as `POST /v1/watches` takes it.", max_length=1_000_000),
    ],
) -> Watch:  # fmt: skip
    """Each file is an example, unless `counterexamples` names it."""
    blobs = blobs_of(files)
    whole, uploads = uploads_of(parts, asked(WatchAsk, ask), blobs)
    return _begin(parts, caller.actor, whole, uploads)


@router.post("/try", summary="What a watch would match among the images kept now")
def attempt(parts: Of, ask: Annotated[WatchAsk, Body(examples=[_EXAMPLE])]) -> WatchTrial:
    """Stores nothing; the nearest images help to find `max_distance`."""
    return watch.attempt(parts.database, ask)


@router.get("/{watch_id}", summary="One watch")
def show(parts: Of, watch_id: WatchId) -> Watch:
    """Open or ended."""
    return watch.show(parts.database, watch_id)


@router.delete("/{watch_id}", summary="End a watch")
def end(parts: Of, caller: Caller, watch_id: WatchId) -> Watch:
    """Its hits stay."""
    found = watch.show(parts.database, watch_id)
    access.record(parts.database, caller.actor, "watch_end", collection=found.collection,
                  detail={"watch_id": watch_id})  # fmt: skip
    return watch.end(parts.database, watch_id)


@router.get("/{watch_id}/hits", summary="What a watch matched")
def hits(parts: Of, watch_id: WatchId, before: Before = None, limit: Limit = 100) -> WatchHitPage:
    """The newest first."""
    return watch.hits(parts.database, watch_id, before=before, limit=limit)


@router.post("/{watch_id}/past", status_code=202, summary="Run a watch over the past")
def run_past(parts: Of, caller: Caller, watch_id: WatchId) -> Job:
    """A job: matches what is in the collection now; hits that are there stay as they are."""
    found = watch.show(parts.database, watch_id)

    def work(report: ReportProgress) -> WatchPast:
        return watch.run_past(parts.database, watch_id, report=report)

    return parts.jobs.start("watch_past", work, asked_by=caller.actor, collection=found.collection)


def _begin(parts: Parts, actor: str, ask: WatchAsk, uploads: Uploads) -> Watch:
    detail = ask.model_dump(mode="json", exclude_defaults=True)
    access.record(parts.database, actor, "watch_begin", collection=ask.collection, detail=detail)
    return watch.begin(parts.database, ask, actor=actor, uploads=uploads)
