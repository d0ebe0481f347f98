"""Calls of the HTTP API, typed by the models that the server answers with."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx
from pydantic import BaseModel

from pixsift.answers.choosing import SelectionPreview
from pixsift.answers.collections import CollectionDetails, StatusReport
from pixsift.answers.decisions import RulingDone
from pixsift.answers.snapshots import SentRequest, SnapshotDetails
from pixsift.api import (
    CollectionList,
    Group,
    GroupPage,
    Image,
    ImagePage,
    ImageQuery,
    ImageRow,
    Problem,
    SearchAnswer,
    Versions,
)
from pixsift.api_changes import Job, SnapshotDiff, SnapshotVerified
from pixsift.api_coverage import CoverageReport, NoveltyReport
from pixsift.api_watches import Watch, WatchHit, WatchHitPage, WatchList, WatchPast, WatchTrial

Answer = TypeVar("Answer", bound=BaseModel)
_POLL_SECONDS = 0.5


class ProblemError(Exception):
    """The server refused: ``problem`` has its code, its detail and what helps."""

    def __init__(self, problem: Problem) -> None:
        helps = f": {problem.remedy.words}" if problem.remedy else ""
        super().__init__(f"{problem.code}: {problem.detail}{helps}")
        self.problem = problem
        self.code = problem.code
        self.status = problem.status


class Client:
    """One server. A context manager; not for several threads at once.

    Raises ProblemError for every refusal, httpx.TransportError where nothing answers.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        """url: as ``pixsift up`` prints it. token: from ``pixsift token create``."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_seconds, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def status(self) -> StatusReport:
        """What is in the ledger and what is on its way."""
        return self._get(StatusReport, "/v1/status")

    def collections(self) -> CollectionList:
        """Every collection with its settings."""
        return self._get(CollectionList, "/v1/collections")

    def collection(self, name: str) -> CollectionDetails:
        """One collection."""
        return self._get(CollectionDetails, f"/v1/collections/{name}")

    def images(self, collection: str = "default", **conditions: Any) -> Iterator[ImageRow]:
        """Every image that passes, the newest decision first, page by page as of one point.

        conditions: the fields of ``pixsift.api.ImageQuery``.
        """
        query = ImageQuery(**conditions)
        while True:
            body = query.model_dump(mode="json", exclude_none=True)
            path = f"/v1/collections/{collection}/images/query"
            found = self._post(ImagePage, path, body)
            yield from found.images
            if found.next_cursor is None:
                return
            query = query.model_copy(update={"cursor": found.next_cursor})

    def groups(self, collection: str = "default", *, order: str = "doubt") -> Iterator[Group]:
        """Every duplicate group, in an order: ``doubt``, ``size`` or ``newest``."""
        parameters = {"order": order}
        while True:
            found = self._get(GroupPage, f"/v1/collections/{collection}/groups", parameters)
            yield from found.groups
            if found.next_cursor is None:
                return
            parameters = {"order": order, "cursor": found.next_cursor}

    def explain(self, uri: str) -> list[Image]:
        """What became of an object, and why: every known version, newest first."""
        return self._get(Versions, "/v1/images", {"uri": uri}).images

    def search(
        self, collection: str | None = None, *, like: Sequence[str | int] = (),
        unlike: Sequence[str | int] = (), files: Sequence[str | Path] = (), k: int = 20,
        **conditions: Any,
    ) -> SearchAnswer:  # fmt: skip
        """Kept images like some examples.

        like, unlike: ``s3://`` URIs or object ids of images in the ledger; files: images of this
        machine, which are sent. conditions: further fields of ``pixsift.api.SearchAsk``.
        """
        ask = {
            "collection": collection, "examples": [_example(each) for each in like],
            "counterexamples": [_example(each) for each in unlike], "k": k, **conditions,
        }  # fmt: skip
        if not files:
            return self._post(SearchAnswer, "/v1/search", ask)
        sent = [("files", (str(path), Path(path).read_bytes())) for path in files]
        answer = self._http.post("/v1/search/upload", files=sent, data={"ask": json.dumps(ask)})
        return SearchAnswer.model_validate(_checked(answer))

    def watch(
        self, name: str, *, max_distance: float, collection: str | None = None,
        like: Sequence[str | int] = (), unlike: Sequence[str | int] = (),
        files: Sequence[str | Path] = (), **conditions: Any,
    ) -> Watch:  # fmt: skip
        """Watch for images like some examples, from now on.

        like, unlike, files: as for ``search``. conditions: further fields of
        ``pixsift.api_watches.WatchAsk``.
        """
        ask = _watch_ask(name, max_distance, like, unlike, collection=collection, **conditions)
        if not files:
            return self._post(Watch, "/v1/watches", ask)
        sent = [("files", (str(path), Path(path).read_bytes())) for path in files]
        answer = self._http.post("/v1/watches/upload", files=sent, data={"ask": json.dumps(ask)})
        return Watch.model_validate(_checked(answer))

    def try_watch(
        self, *, max_distance: float, collection: str | None = None,
        like: Sequence[str | int] = (), unlike: Sequence[str | int] = (), **conditions: Any,
    ) -> WatchTrial:  # fmt: skip
        """What a watch would match among the images kept now; stores nothing."""
        ask = _watch_ask("try", max_distance, like, unlike, collection=collection, **conditions)
        return self._post(WatchTrial, "/v1/watches/try", ask)

    def watches(self, collection: str | None = None, *, ended: bool = False) -> list[Watch]:
        """Open watches, the newest first; ended: the others as well."""
        parameters = {"ended": str(ended).lower()}
        if collection is not None:
            parameters["collection"] = collection
        return self._get(WatchList, "/v1/watches", parameters).watches

    def watch_hits(self, watch_id: int) -> Iterator[WatchHit]:
        """Every image that a watch matched, the newest first."""
        parameters: dict[str, str] = {}
        while True:
            found = self._get(WatchHitPage, f"/v1/watches/{watch_id}/hits", parameters).hits
            yield from found
            if not found:
                return
            parameters = {"before": str(found[-1].hit_id)}

    def run_watch(self, watch_id: int) -> WatchPast:
        """Run a watch over what is in its collection now."""
        job = self.wait(self._post(Job, f"/v1/watches/{watch_id}/past", {}))
        return WatchPast.model_validate(job.result)

    def end_watch(self, watch_id: int) -> Watch:
        """End a watch; its hits stay."""
        return Watch.model_validate(_checked(self._http.delete(f"/v1/watches/{watch_id}")))

    def coverage(
        self, collection: str, *, radius: float, folder: str | None = None,
        snapshot: str | None = None, like: Sequence[str | int] = (), pictures: int = 24,
    ) -> CoverageReport:  # fmt: skip
        """A collection compared with a reference set: a folder, a snapshot, or some images."""
        ask = {"radius": radius, "folder": folder, "snapshot": snapshot, "pictures": pictures,
               "examples": [_example(each) for each in like]}  # fmt: skip
        job = self.wait(self._post(Job, f"/v1/collections/{collection}/coverage", ask))
        return CoverageReport.model_validate(job.result)

    def novelty(
        self, collection: str = "default", *, by: str = "day", last: int | None = None
    ) -> NoveltyReport:
        """How much of what came was new, by an attribute, by day or by hour."""
        parameters = {"by": by} | ({} if last is None else {"last": str(last)})
        return self._get(NoveltyReport, f"/v1/collections/{collection}/novelty", parameters)

    def rule(
        self, collection: str, kind: str, images: Sequence[str], *, why: str,
        other: str | None = None, dry_run: bool = False,
    ) -> RulingDone:  # fmt: skip
        """Say ``choose``, ``also_keep``, ``same``, ``not_same`` or ``useless`` of images."""
        ask = {"kind": kind, "images": list(images), "why": why, "other": other,
               "dry_run": dry_run}  # fmt: skip
        return self._post(RulingDone, f"/v1/collections/{collection}/rulings", ask)

    def select(self, request: Mapping[str, Any]) -> SelectionPreview:
        """What a snapshot request would choose; copies nothing."""
        job = self.wait(self._post(Job, "/v1/selections", _request(request)))
        return SelectionPreview.model_validate(job.result)

    def snapshot(self, request: Mapping[str, Any]) -> "Requested":
        """Ask for a snapshot; ``.wait()`` for it."""
        sent = self._post(SentRequest, "/v1/snapshots", _request(request))
        return Requested(self, sent.request_id)

    def snapshot_details(self, text: str) -> SnapshotDetails:
        """A snapshot by its id, request id or name."""
        return self._get(SnapshotDetails, f"/v1/snapshots/{text}")

    def diff(self, before: str, after: str) -> SnapshotDiff:
        """Two snapshots compared."""
        return self._get(SnapshotDiff, f"/v1/snapshots/{before}/diff/{after}")

    def verify(self, snapshot: str) -> SnapshotVerified:
        """A snapshot compared with what lies in S3."""
        job = self.wait(self._post(Job, f"/v1/snapshots/{snapshot}/verify", {}))
        return SnapshotVerified.model_validate(job.result)

    def wait(self, job: Job) -> Job:
        """Until a job has ended. Raises ProblemError for one that failed."""
        while job.state == "running":
            time.sleep(_POLL_SECONDS)
            job = self._get(Job, f"/v1/jobs/{job.job_id}")
        if job.problem is not None:
            raise ProblemError(job.problem)
        return job

    def events(self, *, last_event_id: str | None = None) -> Iterator[tuple[str, str, Any]]:
        """What happens, as it happens: id, event, data. Begin again with the last id seen."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with self._http.stream("GET", "/v1/events", headers=headers, timeout=None) as answer:
            if answer.status_code >= 400:
                answer.read()
                _checked(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    event = fields.get("event", "")
                    if event != "heartbeat":
                        yield fields.get("id", ""), event, json.loads(fields["data"])
                    fields = {}

    def _get(
        self, model: type[Answer], path: str, parameters: Mapping[str, str] | None = None
    ) -> Answer:
        return model.model_validate(_checked(self._http.get(path, params=dict(parameters or {}))))

    def _post(self, model: type[Answer], path: str, body: Mapping[str, Any]) -> Answer:
        return model.model_validate(_checked(self._http.post(path, json=dict(body))))


class Requested:
    """A snapshot that was asked for."""

    def __init__(self, client: Client, request_id: str) -> None:
        self._client = client
        self.request_id = request_id

    def wait(self, *, timeout_seconds: float = 3600.0) -> SnapshotDetails:
        """Until it is published. Raises ProblemError where it was refused, TimeoutError."""
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            try:
                found = self._client.snapshot_details(self.request_id)
            except ProblemError as error:
                if error.status != 404:
                    raise
            else:
                if found.state in ("published", "failed"):
                    return found
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"request {self.request_id} has no snapshot yet")


def frame(rows: Iterator[BaseModel] | Sequence[BaseModel]) -> Any:
    """Rows as a pandas DataFrame, where pandas is installed."""
    import pandas as pd  # type: ignore[import-untyped]  # no stubs

    return pd.DataFrame([row.model_dump() for row in rows])


def arrow(rows: Iterator[BaseModel] | Sequence[BaseModel]) -> Any:
    """Rows as a pyarrow Table, where pyarrow is installed."""
    import pyarrow as pa

    return pa.Table.from_pylist([row.model_dump(mode="json") for row in rows])


def _example(each: str | int) -> dict[str, str | int]:
    return {"object_id": each} if isinstance(each, int) else {"uri": each}


def _watch_ask(
    name: str, max_distance: float, like: Sequence[str | int], unlike: Sequence[str | int],
    **conditions: Any,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name, "max_distance": max_distance,
        "examples": [_example(each) for each in like],
        "counterexamples": [_example(each) for each in unlike], **conditions,
    }  # fmt: skip


def _request(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": "pixsift.snapshot-request/2", "request_id": f"client-{uuid4()}", **given}


def _checked(answer: httpx.Response) -> Any:
    if answer.status_code < 400:
        return answer.json()
    try:
        problem = Problem.model_validate(answer.json())
    except ValueError:
        problem = Problem(
            type="about:blank", title=answer.reason_phrase, status=answer.status_code,
            detail=answer.text[:500], code="not_a_problem_document",
        )  # fmt: skip
    raise ProblemError(problem)
