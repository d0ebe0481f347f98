"""What the HTTP API takes and answers of changes, jobs and events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from pixsift.api import Ask, ImageRow, Problem, Text
from pixsift.api import _Answer as Answer

Why = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
JobKind = Literal[
    "what_if",
    "redecide",
    "undo_generation",
    "selection",
    "audit",
    "verify",
    "watch_past",
    "coverage",
]
JobState = Literal["running", "done", "failed", "cancelled"]


class RuleAsk(Ask):
    """Another rule for a collection; fields that are not given stay as they are."""

    epsilon: Annotated[float, Field(ge=0, le=2)] | None = None
    preset: Annotated[str, StringConstraints(max_length=63)] | None = None
    change_limit: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on what counts as a change: below 1 keeps more, above 1 less."""
    second_look: bool = True
    """False: the embedding alone decides."""
    examples: Annotated[int, Field(ge=0, le=1000)] = 10
    """Of a what-if: how many images that would change are shown."""
    take_over: bool = False
    """Of a change: discard a generation that another process has left unfinished."""


class TakeOverAsk(Ask):
    """Go back to the previous generation."""

    take_over: bool = False


class AuditAsk(Ask):
    """Check every invariant of a collection."""

    sample: Annotated[int, Field(ge=1)] | None = None
    """Compare only this many kept images with all others; None: all."""


class RulingAsk(Ask):
    """A ruling of a person about images."""

    kind: Annotated[str, StringConstraints(max_length=30)]
    images: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    """``s3://`` URIs; without a version id, every version is meant."""
    other: Text | None = None
    """Of ``same`` and ``not_same``: what they are compared with."""
    why: Why
    dry_run: bool = False


class BestAsk(Ask):
    """In every duplicate group, choose the image that is best by a stated rule."""

    best: Annotated[str, StringConstraints(max_length=100)]
    """``largest``, ``newest``, ``oldest``, or ``most`` or ``least`` and a quality metric."""
    why: Why
    prefix: Text = ""
    dry_run: bool = True
    """By default only what would change is shown."""


class UndoRulingsAsk(Ask):
    """Take rulings back: some by their ids, or a whole batch."""

    ruling_ids: Annotated[list[UUID], Field(max_length=1000)] = Field(default_factory=list)
    batch: UUID | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _names_some(self) -> "UndoRulingsAsk":
        if bool(self.ruling_ids) == (self.batch is not None):
            raise ValueError("name ruling_ids or a batch")
        return self


class TakeBackAsk(Ask):
    """Take back the decision about one object."""

    image: Text
    """Its ``s3://`` URI; without a version id, every version is meant."""


class RedriveAsk(Ask):
    """Send the dead-letter queue's messages back."""

    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    failed: bool = False
    """Also send the objects whose outcome is ``failed`` once more."""


class Progress(Answer):
    """The progress of a job."""

    step: str
    done: int
    of: int | None


class Job(Answer):
    """Long work that was asked for. Jobs live as long as the server's process."""

    job_id: str
    kind: JobKind
    collection: str | None
    state: JobState
    progress: Progress
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    result: Any | None
    """Of a job that is done: what its operation answers."""
    problem: Problem | None
    """Of a job that failed."""


class JobList(Answer):
    """Jobs of this process, the newest first."""

    jobs: list[Job]


class Decisions(Answer):
    """Of an event ``decisions``: what was decided since the event before."""

    collection: str
    from_seq: int
    """Excluded."""
    to_seq: int
    """Included."""
    counts: dict[str, int]
    """Outcome -> decisions."""
    images: list[ImageRow]
    """The newest of them, 50 at most."""


class HistoryLost(Answer):
    """Of an event ``history_lost``: the ledger was restored; earlier events may no longer hold."""

    collection: str
    seq: int
    """Where the collection is now."""


class DiffImage(Answer):
    """One image of a snapshot."""

    object_id: int
    uri: str
    split: str


class RemovedImage(DiffImage):
    """An image that the second snapshot lacks."""

    represented_by: str | None
    """An image of the second snapshot in the same duplicate group, now; None: there is none."""
    represented_by_object_id: int | None


class MovedImage(DiffImage):
    """An image that is in another split of the second snapshot."""

    was: str


class SnapshotDiff(Answer):
    """Two snapshots compared."""

    before: str
    after: str
    kept: int
    """Images in both."""
    added: list[DiffImage]
    removed: list[RemovedImage]
    moved: list[MovedImage]


class SnapshotProblem(Answer):
    """One file of a snapshot that is missing or differs."""

    path: str
    what: Literal["missing", "wrong_size", "redacted_but_there"]


class SnapshotVerified(Answer):
    """A snapshot compared with what lies in S3."""

    snapshot_id: str
    checked: int
    is_whole: bool
    problems: list[SnapshotProblem]
