"""Changes: rulings, taking back, other rules, redrive, snapshot requests; long ones as jobs.

Every change is recorded with its caller before it is carried out, so a failed one is recorded too.
The turns of its decisions have the same name.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from pixsift.answers.checks import AuditReport
from pixsift.answers.choosing import SelectionPreview
from pixsift.answers.decisions import (
    RuleComparison,
    RulingDone,
    RulingList,
    SwitchedGeneration,
    TakenBack,
)
from pixsift.answers.queues import Redriven
from pixsift.answers.snapshots import SentRequest
from pixsift.api import Me
from pixsift.api_changes import (
    AuditAsk,
    BestAsk,
    Job,
    JobList,
    RedriveAsk,
    RuleAsk,
    RulingAsk,
    TakeBackAsk,
    TakeOverAsk,
    UndoRulingsAsk,
)
from pixsift.errors import RequestError
from pixsift.messages import SnapshotRequest2, why_not_storable
from pixsift.operations import access, audit, choose, redecide, redrive, rule, snapshots, take_back
from pixsift.operations.examples import parsed
from pixsift_server.access import Caller
from pixsift_server.jobs import ReportProgress
from pixsift_server.parts import Of, Parts
from pixsift_server.problems import ProblemError
from pixsift_server.routes.parameters import Collection, Limit

router = APIRouter(prefix="/v1", tags=["changes"])
jobs_router = APIRouter(prefix="/v1", tags=["jobs"])
JobId = Annotated[str, Path(max_length=32)]
_SELECTION = {
    "schema": "pixsift.snapshot-request/2", "request_id": "try-1", "collection": "default",
    "name": "try", "select": {"strategy": "k_center", "k": 100},
}  # fmt: skip


@router.get("/collections/{collection}/rulings", summary="What people said of images")
def list_rulings(
    parts: Of, collection: Collection, *, uri: Annotated[str | None, Query(max_length=2048)] = None,
    in_force: bool = True, limit: Limit = 100,
) -> RulingList:  # fmt: skip
    """The oldest first: all, or those about one image."""
    about = None if uri is None else parsed(uri)
    return rule.list_rulings(parts.database, collection, uri=about, in_force=in_force, limit=limit)


@router.post("/collections/{collection}/rulings", summary="Say what an image is")
def say(
    parts: Of, caller: Caller, collection: Collection,
    ask: Annotated[RulingAsk, Body(examples=[
        {"kind": "also_keep", "images": ["s3://raw/robot-1/cam/0001.jpg"], "why": "rare"},
    ])],
) -> RulingDone:  # fmt: skip
    """Rulings override rules in every later decision. `dry_run` shows what would change."""
    _note(parts, caller, "ruling", collection, ask)
    return rule.rule(
        parts.database, collection, ask.kind, [parsed(uri) for uri in ask.images], why=ask.why,
        who=caller.actor, other=None if ask.other is None else parsed(ask.other),
        dry_run=ask.dry_run, actor=caller.actor, search=parts.rejudging,
        obligations=parts.obligations,
    )  # fmt: skip


@router.post("/collections/{collection}/rulings/best", summary="Choose the best of every group")
def say_best(
    parts: Of, caller: Caller, collection: Collection,
    ask: Annotated[BestAsk, Body(examples=[{"best": "most sharpness", "why": "sharper"}])],
) -> RulingDone:  # fmt: skip
    """One batch, all or nothing, undone as one. Without `"dry_run": false` nothing changes."""
    _note(parts, caller, "ruling_best", collection, ask)
    return rule.rule_best(
        parts.database, collection, ask.best, why=ask.why, who=caller.actor, prefix=ask.prefix,
        dry_run=ask.dry_run, actor=caller.actor, search=parts.rejudging,
        obligations=parts.obligations,
    )  # fmt: skip


@router.post("/collections/{collection}/rulings/undo", summary="Take rulings back")
def undo_rulings(
    parts: Of, caller: Caller, collection: Collection, ask: UndoRulingsAsk
) -> RulingDone:
    """The images that they concern are decided again. 404 `unknown_ruling`: none of them is in
    force."""
    _note(parts, caller, "ruling_undo", collection, ask)
    return rule.undo_rulings(
        parts.database, collection, ruling_ids=ask.ruling_ids, batch=ask.batch,
        dry_run=ask.dry_run, actor=caller.actor, search=parts.rejudging,
        obligations=parts.obligations,
    )  # fmt: skip


@router.post("/collections/{collection}/take-back", summary="Take back a decision")
def take_decision_back(
    parts: Of, caller: Caller, collection: Collection, ask: TakeBackAsk
) -> TakenBack:
    """Kept and duplicate are decided again; others are sent through the queue once more."""
    _note(parts, caller, "take_back", collection, ask)
    return take_back.take_back(
        parts.database, parts.queue("ingest"), collection, parsed(ask.image), actor=caller.actor
    )


@router.post("/collections/{collection}/what-if", status_code=202, summary="Try another rule")
def what_if(
    parts: Of, caller: Caller, collection: Collection,
    ask: Annotated[RuleAsk, Body(examples=[{"epsilon": 0.05, "examples": 50}])],
) -> Job:  # fmt: skip
    """A job; nothing is changed, nothing is embedded."""
    wanted = _wanted(ask)

    def work(report: ReportProgress) -> RuleComparison:
        return redecide.what_if(parts.database, collection, wanted, examples=ask.examples)

    return parts.jobs.start("what_if", work, asked_by=caller.actor, collection=collection)


@router.post("/collections/{collection}/generations", status_code=202, summary="Another rule")
def new_generation(parts: Of, caller: Caller, collection: Collection, ask: RuleAsk) -> Job:
    """A job: decides everything again under another rule, and switches to the result at its end."""
    _note(parts, caller, "redecide", collection, ask)
    wanted = _wanted(ask)

    def work(report: ReportProgress) -> SwitchedGeneration:
        return redecide.redecide(
            parts.database, collection, wanted, take_over=ask.take_over, progress=report,
            actor=caller.actor,
        )  # fmt: skip

    return parts.jobs.start("redecide", work, asked_by=caller.actor, collection=collection)


@router.post("/collections/{collection}/generations/undo", status_code=202, summary="Go back")
def undo_generation(parts: Of, caller: Caller, collection: Collection, ask: TakeOverAsk) -> Job:
    """A job: returns to the previous generation; itself undone in the same way."""
    _note(parts, caller, "undo_generation", collection, ask)

    def work(report: ReportProgress) -> SwitchedGeneration:
        return redecide.undo(
            parts.database, collection, take_over=ask.take_over, progress=report,
            actor=caller.actor,
        )  # fmt: skip

    return parts.jobs.start("undo_generation", work, asked_by=caller.actor, collection=collection)


@router.post("/collections/{collection}/audits", status_code=202, summary="Check every invariant")
def start_audit(parts: Of, caller: Caller, collection: Collection, ask: AuditAsk) -> Job:
    """A job; repairs nothing."""

    def work(report: ReportProgress) -> list[AuditReport]:
        return audit.audit(
            parts.database, collection=collection, sample=ask.sample,
            progress=lambda what: report(what, 0, None),
        )  # fmt: skip

    return parts.jobs.start("audit", work, asked_by=caller.actor, collection=collection)


@router.post("/selections", status_code=202, summary="Show what a request would choose")
def try_selection(
    parts: Of, caller: Caller, request: Annotated[SnapshotRequest2, Body(examples=[_SELECTION])]
) -> Job:
    """A job (a dry run); copies nothing. Picks in rank order, with coverage against random."""
    _check_storable(request)

    def work(report: ReportProgress) -> SelectionPreview:
        report("choosing", 0, None)
        with choose.choose(parts.database, request) as choice:
            report("describing", 0, None)
            return choose.preview(parts.database, request, choice)

    return parts.jobs.start("selection", work, asked_by=caller.actor, collection=request.collection)


@router.post("/snapshots", status_code=202, tags=["snapshots"], summary="Ask for a snapshot")
def request_snapshot(
    parts: Of, caller: Caller, request: Annotated[SnapshotRequest2, Body(examples=[_SELECTION])]
) -> SentRequest:
    """Puts the request on the curator's queue; `GET /v1/snapshots/{request_id}` shows the
    result."""
    _check_storable(request)
    _note(parts, caller, "snapshot_request", request.collection, request)
    return snapshots.send_request(parts.queue("snapshot_requests"), request)


@router.post("/redrive", summary="Send the dead-letter queue's messages back")
def redrive_messages(parts: Of, caller: Caller, ask: RedriveAsk) -> Redriven:
    """And, with `failed`, the objects that failed."""
    _note(parts, caller, "redrive", None, ask)
    return redrive.redrive(
        parts.database if ask.failed else None, parts.queue("ingest_dlq"), parts.queue("ingest"),
        limit=ask.limit,
    )  # fmt: skip


@jobs_router.get("/jobs", summary="Jobs of this process")
def list_jobs(parts: Of) -> JobList:
    """Newest first."""
    return JobList(jobs=parts.jobs.all())


@jobs_router.get("/jobs/{job_id}", summary="One job")
def show_job(parts: Of, job_id: JobId) -> Job:
    """With its result, once it is done."""
    return parts.jobs.get(job_id)


@jobs_router.delete("/jobs/{job_id}", summary="Cancel a job")
def cancel_job(parts: Of, caller: Caller, job_id: JobId) -> Job:
    """The job ends at its next report of progress and changes nothing. The person who started a job
    may cancel it, and every operator."""
    job = parts.jobs.get(job_id)
    if caller.role != "operator" and caller.actor != job.asked_by:
        raise ProblemError(
            403,
            "forbidden",
            f"{job.asked_by} started this job: only they, or an operator, may cancel it",
        )
    access.record(parts.database, caller.actor, "job_cancel", detail={"job_id": job_id})
    return parts.jobs.cancel(job_id)


def _note(parts: Parts, caller: Me, action: str, collection: str | None, ask: object) -> None:
    detail = ask.model_dump(mode="json", by_alias=True)  # type: ignore[attr-defined]
    access.record(parts.database, caller.actor, action, collection=collection, detail=detail)


def _wanted(ask: RuleAsk) -> redecide.Wanted:
    return redecide.Wanted(
        epsilon=ask.epsilon, preset=ask.preset, change_limit=ask.change_limit,
        second_look=ask.second_look,
    )  # fmt: skip


def _check_storable(request: SnapshotRequest2) -> None:
    obstacle = why_not_storable(request.model_dump(mode="json", by_alias=True))
    if obstacle is not None:
        raise RequestError(f"the request {obstacle}", code="not_storable")
