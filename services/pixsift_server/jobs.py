"""Long work, in threads of this process: progress, cancel, and what came of it.

A job is cancelled where its operation tells of progress; work between two such points is finished.
Jobs are forgotten with the process, and what they changed is in the ledger: a change is one
transaction at its end, so a killed server leaves all of it or nothing.
"""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

from aws_lambda_powertools import Logger
from pydantic import BaseModel

from pixsift.api import Problem
from pixsift.api_changes import Job, JobKind, JobState, Progress
from pixsift.errors import ConflictError, NotFoundError, PixsiftError
from pixsift_server.problems import problem, status_of

_AT_ONCE = 2
_WAITING = 20
_REMEMBERED = 200

ReportProgress = Callable[[str, int, int | None], None]
Work = Callable[[ReportProgress], BaseModel | Sequence[BaseModel]]


class _CancelledError(Exception):
    """Raised inside of the work, where it tells of progress."""


@dataclass(slots=True)
class _Entry:
    job_id: str
    kind: JobKind
    collection: str | None
    asked_by: str
    asked_at: datetime
    state: JobState = "running"
    progress: Progress = field(default_factory=lambda: Progress(step="waiting", done=0, of=None))
    ended_at: datetime | None = None
    result: object = None
    problem: Problem | None = None
    is_cancelled: bool = False


class Jobs:
    """The jobs of one process. Thread-safe."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pixsift-job")
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()
        self.version = 0
        """Grows with every change, for who watches."""

    def start(self, kind: JobKind, work: Work, *, asked_by: str, collection: str | None) -> Job:
        """Begin ``work`` in a thread. Raises ConflictError while too many wait."""
        entry = _Entry(secrets.token_hex(6), kind, collection, asked_by, datetime.now(UTC))
        with self._lock:
            open_ = sum(other.state == "running" for other in self._entries.values())
            if open_ >= _WAITING:
                raise ConflictError(
                    f"{open_} jobs are at work: wait for some", code="too_many_jobs"
                )
            while len(self._entries) >= _REMEMBERED:
                self._entries.pop(next(iter(self._entries)))
            self._entries[entry.job_id] = entry
            self.version += 1
        self._threads.submit(self._run, entry, work)
        return _told(entry)

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError for an id that this process does not know."""
        return _told(self._entry(job_id))

    def all(self) -> list[Job]:
        """The newest first."""
        with self._lock:
            return [_told(entry) for entry in reversed(self._entries.values())]

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; one that has ended stays as it is."""
        entry = self._entry(job_id)
        entry.is_cancelled = True
        return _told(entry)

    def close(self) -> None:
        """Ask all to end, and wait for them."""
        with self._lock:
            for entry in self._entries.values():
                entry.is_cancelled = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _entry(self, job_id: str) -> _Entry:
        with self._lock:
            found = self._entries.get(job_id)
        if found is None:
            raise NotFoundError(f"no job {job_id!r} in this process", code="unknown_job")
        return found

    def _run(self, entry: _Entry, work: Work) -> None:
        def report(step: str, done: int, of: int | None) -> None:
            if entry.is_cancelled:
                raise _CancelledError
            entry.progress = Progress(step=step, done=done, of=of)
            self.version += 1

        state: JobState = "done"
        try:
            report("started", 0, None)
            answer = work(report)
            entry.result = (
                answer.model_dump(mode="json")
                if isinstance(answer, BaseModel)
                else [each.model_dump(mode="json") for each in answer]
            )
        except _CancelledError:
            state = "cancelled"
        except PixsiftError as error:
            state = "failed"
            entry.problem = problem(status_of(error), error.code, str(error))
        except Exception as error:
            state = "failed"
            self._logger.error("bug", job=entry.job_id, exc_info=error)
            entry.problem = problem(500, "internal_error", f"the log has job {entry.job_id}")
        entry.ended_at = datetime.now(UTC)
        entry.state = state
        self.version += 1


def _told(entry: _Entry) -> Job:
    return Job(
        job_id=entry.job_id, kind=entry.kind, collection=entry.collection, state=entry.state,
        progress=entry.progress, asked_by=entry.asked_by, asked_at=entry.asked_at,
        ended_at=entry.ended_at, result=entry.result, problem=entry.problem,
    )  # fmt: skip
