"""Coverage by a reference set, and novelty by robot, site or day."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query

from pixsift.api_changes import Job
from pixsift.api_coverage import CoverageAsk, CoverageReport, NoveltyAsk, NoveltyBy, NoveltyReport
from pixsift.operations import coverage
from pixsift_server.access import Caller
from pixsift_server.jobs import ReportProgress
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import AttributeConditions, Collection, Limit, conditions

router = APIRouter(prefix="/v1/collections", tags=["coverage"])
_EXAMPLE = {"folder": "s3://raw/validation/", "radius": 0.3}


@router.post(
    "/{collection}/coverage", status_code=202, summary="A collection and a reference set compared"
)
def compare(
    parts: Of, caller: Caller, collection: Collection,
    ask: Annotated[CoverageAsk, Body(examples=[_EXAMPLE])],
) -> Job:  # fmt: skip
    """A job: references without a near image, and images without a near reference, in regions."""

    def work(report: ReportProgress) -> CoverageReport:
        return coverage.compare(parts.database, collection, ask, report=report)

    return parts.jobs.start("coverage", work, asked_by=caller.actor, collection=collection)


@router.get("/{collection}/novelty", summary="How much of what came was new")
def novelty(
    parts: Of,
    collection: Collection,
    *,
    by: Annotated[NoveltyBy, Query(examples=["robot"])] = "day",
    last: Annotated[int | None, Query(ge=1, le=10_000_000)] = None,
    attribute: AttributeConditions = None,
    captured_after: datetime | None = None,
    captured_before: datetime | None = None,
    order: Literal["group", "novelty", "frames"] = "group",
    limit: Limit = 100,
) -> NoveltyReport:
    """The share of the frames that was kept, by an attribute, by day or by hour.

    `last`: of the newest so many frames of each group.
    """
    ask = NoveltyAsk(
        by=by, last=last, where=conditions(attribute), captured_after=captured_after,
        captured_before=captured_before, order=order, limit=limit,
    )  # fmt: skip
    return coverage.novelty(parts.database, collection, ask)
