"""Long work in threads of this process: its progress, cancellation and result. A job is cancelled
where its operation reports progress; work between two such points is finished. Jobs are forgotten
with the process, and what they changed is in the ledger: a change is one transaction at its end, so
a killed server leaves all of it or nothing.
"""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    """Raised inside the work, where it reports progress."""


@dataclass(slots=True)
class _Entry:
    job: Job
    """As it is now."""
    is_cancelled: bool = False

    def change(self, **changes: object) -> None:
        self.job = self.job.model_copy(update=changes)


class Jobs:
    """The jobs of one process. Thread-safe."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pixsift-job")
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()
        self.version = 0
        """Grows with every change, for watchers."""

    def start(self, kind: JobKind, work: Work, *, asked_by: str, collection: str | None) -> Job:
        """Begin ``work`` in a thread. Raises ConflictError while too many wait."""
        job = Job(
            job_id=secrets.token_hex(6), kind=kind, collection=collection, state="running",
            progress=Progress(step="waiting", done=0, of=None), asked_by=asked_by,
            asked_at=datetime.now(UTC), ended_at=None, result=None, problem=None,
        )  # fmt: skip
        entry = _Entry(job)
        with self._lock:
            open_ = sum(other.job.state == "running" for other in self._entries.values())
            if open_ >= _WAITING:
                raise ConflictError(
                    f"{open_} jobs are at work: wait for some", code="too_many_jobs"
                )
            while len(self._entries) >= _REMEMBERED:
                self._entries.pop(next(iter(self._entries)))
            self._entries[job.job_id] = entry
            self.version += 1
        self._threads.submit(self._run, entry, work)
        return job

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError for an id that this process does not know."""
        return self._entry(job_id).job

    def all(self) -> list[Job]:
        """The newest first."""
        with self._lock:
            return [entry.job for entry in reversed(self._entries.values())]

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; one that has ended stays as it is."""
        entry = self._entry(job_id)
        entry.is_cancelled = True
        return entry.job

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
            entry.change(progress=Progress(step=step, done=done, of=of))
            self.version += 1

        state: JobState = "done"
        result: object = None
        failure: Problem | None = None
        try:
            report("started", 0, None)
            answer = work(report)
            result = (
                answer.model_dump(mode="json")
                if isinstance(answer, BaseModel)
                else [each.model_dump(mode="json") for each in answer]
            )
        except _CancelledError:
            state = "cancelled"
        except PixsiftError as error:
            state = "failed"
            failure = problem(status_of(error), error.code, str(error))
        except Exception as error:
            state = "failed"
            job_id = entry.job.job_id
            self._logger.error("bug", job=job_id, exc_info=error)
            failure = problem(500, "internal_error", f"the log has job {job_id}")
        entry.change(state=state, result=result, problem=failure, ended_at=datetime.now(UTC))
        self.version += 1
