"""Compares snapshots with each other, and with their files in S3."""

from typing import Annotated

from fastapi import APIRouter, Path

from pixsift.api_changes import Job, SnapshotDiff, SnapshotVerified
from pixsift.api_redactions import Redactions
from pixsift.operations import snapshot_checks
from pixsift_server.access import Caller
from pixsift_server.jobs import ReportProgress
from pixsift_server.parts import Of

router = APIRouter(prefix="/v1/snapshots", tags=["snapshots"])
Snapshot = Annotated[str, Path(max_length=200, description="Its id, request id or name.")]


@router.get("/{snapshot}/diff/{other}", summary="Two snapshots compared")
def diff(parts: Of, snapshot: Snapshot, other: Snapshot) -> SnapshotDiff:
    """Added, removed (with the image that still represents it), moved to another split."""
    return snapshot_checks.diff(parts.database, snapshot, other)


@router.get("/{snapshot}/redactions", summary="Images that erasures took out of a snapshot")
def redactions(parts: Of, snapshot: Snapshot) -> Redactions:
    """By rank; none for most snapshots."""
    return snapshot_checks.redactions(parts.database, snapshot)


@router.post("/{snapshot}/verify", status_code=202, summary="Compare a snapshot with S3")
def verify(parts: Of, caller: Caller, snapshot: Snapshot) -> Job:
    """A job: every listed file is asked for once."""

    def work(report: ReportProgress) -> SnapshotVerified:
        return snapshot_checks.verify(
            parts.database, parts.objects, parts.curated_bucket, snapshot, progress=report
        )

    return parts.jobs.start("verify", work, asked_by=caller.actor, collection=None)
