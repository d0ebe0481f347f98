"""The demo: robots upload, pixsift curates, a snapshot appears; and the ledger is checked.

Everything is real, each part in its own process: LocalStack, PostgreSQL, the consumer and the
curator. All processes are stopped at the end, also after an error or an interruption.
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.aws.uploads import FolderUploads, S3Location
from pixsift.adapters.local.localstack import check_installed
from pixsift.adapters.local.simulated_camera import check_scenes, load_scenes, photos_in
from pixsift.adapters.postgres.database import Database
from pixsift.answers.local import DemoReport
from pixsift.answers.snapshots import SnapshotFacts
from pixsift.core.outcomes import OUTCOMES, ObjectOutcome, SnapshotObject
from pixsift.errors import DependencyDownError, Remedy, RequestError
from pixsift.messages import Select, SnapshotRequest, Split
from pixsift.operations.collections import DEFAULT_COLLECTION, ensure_default
from pixsift.operations.demo.check import check_ledger, check_snapshot, is_complete
from pixsift.operations.demo.robots import DemoPlan, Upload, plan_photos, plan_scenes
from pixsift.operations.local.loop import LocalLoop, Say, read_record, stop_record
from pixsift.operations.local.signals import uninterrupted
from pixsift.operations.local.state_folder import claim, only_one
from pixsift.operations.local.up_down import Ingredients
from pixsift.operations.snapshots import objects_of, send_request, wait_for_snapshot
from pixsift.operations.status import current_outcomes, outcome_counts
from pixsift.pages.contact_sheet import contact_sheet

_STANDSTILL_SECONDS = 120.0
"""A message whose consumer died comes back after 60 s."""
_PUBLISHED_WITHIN_SECONDS = 60.0
_UPLOADS_PER_SECOND = 20.0
"""Of one robot, at most: fast enough for a demo, slow enough to watch."""
MOST_PHOTOS = 600


@dataclass(frozen=True, slots=True)
class Standing:
    """The progress of the demo."""

    planned: int
    uploaded: int
    backlog: int
    """Messages in the ingest queue, including those in flight."""
    outcomes: Mapping[str, int]

    @property
    def decided(self) -> int:
        """Objects with an outcome."""
        return sum(self.outcomes.values())

    def line(self) -> str:
        """One line for a log."""
        judged = ", ".join(f"{self.outcomes[o]} {o}" for o in OUTCOMES if self.outcomes.get(o))
        return (
            f"uploaded {self.uploaded} of {self.planned}, decided {self.decided}, "
            f"backlog {self.backlog}" + (f": {judged}" if judged else "")
        )


class Standstill:
    """Detects that nothing happens any more, as opposed to a slow machine."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: Standing | None = None
        self._since = 0.0

    def is_reached(self, standing: Standing, *, now: float) -> bool:
        """Whether the last change is ``seconds`` ago. now: seconds of any steady clock."""
        if standing != self._last:
            self._last, self._since = standing, now
        return now - self._since >= self._seconds


class View(Protocol):
    """Shows the progress of the demo."""

    def say(self, line: str) -> None: ...

    def live(self) -> AbstractContextManager[Callable[[Standing], None]]: ...


@dataclass(frozen=True, slots=True)
class Connections:
    """How to reach what the demo starts, once it runs."""

    uploads: Callable[[], FolderUploads]
    queue: Callable[[str], SqsQueue]


@dataclass(frozen=True, slots=True)
class _Home:
    """The snapshot as it was downloaded."""

    location: str = ""
    folder: str = ""
    items: Sequence[SnapshotObject] = ()
    complaints: Sequence[str] = ()


def run_demo(
    state_folder: Path,
    made_of: Ingredients,
    connections: Connections,
    view: View,
    *,
    images: Path | None,
    frames: int,
    k: int,
) -> DemoReport:
    """The whole demo, in a folder ``demo`` of the state folder.

    images: photos to use instead of the built-in scenes. frames: per scene and robot. k: images in
    the snapshot, at most. Raises UserError, before anything starts, for a folder without photos, a
    missing LocalStack, or a state folder that holds other things.
    """
    photos = choose_photos(images, view.say)
    check_installed(made_of.venv)
    claim(state_folder)
    state = state_folder.absolute() / "demo"
    with only_one(state.parent, "demo"), ThreadPoolExecutor(1) as pool:
        _clear(state)
        plan = pool.submit(_plan, photos, frames)
        return _run(state, plan, made_of, connections, view, k=k)


def choose_photos(images: Path | None, say: Say) -> Sequence[Path] | None:
    """The photos of a folder, if one was named, at most ``MOST_PHOTOS``.

    Raises RequestError for a folder without any, SettingError where the built-in scenes are absent.
    """
    if images is None:
        check_scenes()
        return None
    photos = photos_in(images.expanduser())  # make quotes what a shell would expand
    if not photos:
        raise RequestError(f"no photos in {images}", remedy=Remedy("name_photos"))
    if len(photos) > MOST_PHOTOS:
        say(f"of {len(photos)} photos, the first {MOST_PHOTOS} by name are taken")
    return photos[:MOST_PHOTOS]


def _plan(photos: Sequence[Path] | None, frames: int) -> DemoPlan:
    return plan_scenes(load_scenes(), frames=frames) if photos is None else plan_photos(photos)


def _run(
    state: Path, future: "Future[DemoPlan]", made_of: Ingredients, connections: Connections,
    view: View, *, k: int,
) -> DemoReport:  # fmt: skip
    started = time.monotonic()
    loop = LocalLoop(state, venv=made_of.venv, server_port=made_of.server_port)
    try:
        loop.start_infrastructure(view.say)
        with made_of.connect(loop.database_url) as database:
            collection = ensure_default(
                database, loop.stack.raw_bucket, made_of.model,
                quality_policy={"blurred": "reject"}, actor=made_of.actor,
            )  # fmt: skip
        loop.start_services(view.say, server=False)
        plan = future.result()
        view.say(f"three robots upload {plan.count()} objects; these are the outcomes:")
        with made_of.connect(loop.database_url) as database:
            demo = _Demo(loop, database, connections, plan, view)
            return demo.run(epsilon=collection.epsilon, k=k, started=started)
    finally:
        view.say("stopping the local loop")
        with uninterrupted():
            loop.stop()
            shutil.rmtree(loop.postgres_folder, ignore_errors=True)
            shutil.rmtree(state / "localstack", ignore_errors=True)


def _clear(state: Path) -> None:
    """Remove the last demo's results, and stop what a killed demo left running."""
    record = read_record(state)
    if record is not None:
        stop_record(record)
        shutil.rmtree(record.postgres, ignore_errors=True)
    if state.exists():
        shutil.rmtree(state)


class _Demo:
    """The flow from the first upload to the contact sheet."""

    def __init__(
        self, loop: LocalLoop, database: Database, connections: Connections, plan: DemoPlan,
        view: View,
    ) -> None:  # fmt: skip
        self._loop, self._plan, self._view = loop, plan, view
        self._database = database
        self._queue = connections.queue
        self._uploads = connections.uploads()
        self._sent: dict[str, str] = {}
        """Key -> version id."""

    def run(self, *, epsilon: float, k: int, started: float) -> DemoReport:
        """Run everything; problems are listed in the report. started: on the steady clock."""
        self._upload_and_watch()
        rows = current_outcomes(self._database, DEFAULT_COLLECTION)
        complaints = check_ledger(self._plan, self._sent, rows, epsilon=epsilon)
        outcomes: dict[str, dict[str, int]] = {}
        for count in outcome_counts(self._database, DEFAULT_COLLECTION):
            outcomes.setdefault(count.outcome, {})[count.reason] = count.objects
        kept = sum(1 for row in rows if row.outcome == "kept")
        snapshot_id, home = "", _Home()
        if kept:
            snapshot = self._request_snapshot(min(k, kept))
            snapshot_id, home = snapshot.snapshot_id, self._bring_home(snapshot, rows, k=k)
        else:
            self._view.say("no image was kept, so a snapshot would be empty")
        sheet, missing = self._write_contact_sheet(rows, home)
        if missing:
            complaints.append(f"{missing} kept images have no thumbnail")
        return DemoReport(
            uploaded=len(self._sent), ignored=self._plan.count("sidecar"), outcomes=outcomes,
            snapshot_id=snapshot_id, snapshot_images=len(home.items),
            snapshot_location=home.location, snapshot_folder=home.folder,
            contact_sheet=str(sheet), seconds=round(time.monotonic() - started, 1),
            complaints=[*complaints, *home.complaints],
        )  # fmt: skip

    def _upload_and_watch(self) -> None:
        """Upload and wait until every object is decided, or nothing happens any more and the queue
        is empty.

        Raises DependencyDownError when nothing happens although messages or uploads wait.
        """
        ingest = self._queue(self._loop.stack.ingest_queue)
        standstill = Standstill(_STANDSTILL_SECONDS)
        stop = threading.Event()
        with self._view.live() as show, ThreadPoolExecutor(len(self._plan.by_robot)) as robots:
            drives = [
                robots.submit(self._drive, uploads, stop)
                for uploads in self._plan.by_robot.values()
            ]
            try:
                while not self._is_settled(standing := self._standing(drives, ingest), drives):
                    show(standing)
                    self._loop.check_services()
                    if standstill.is_reached(standing, now=time.monotonic()):
                        self._check_nothing_waits(standing)
                        break  # the check of the ledger names what is missing
                    time.sleep(0.4)
                show(standing)
            finally:
                stop.set()

    def _drive(self, uploads: list[Upload], stop: threading.Event) -> None:
        """The uploads of one robot."""
        for upload in uploads:
            if stop.wait(1 / _UPLOADS_PER_SECOND):
                return
            bucket = self._loop.stack.raw_bucket
            self._sent[upload.key] = self._uploads.put(bucket, upload.key, upload.content())
            if upload.kind == "deleted":
                self._uploads.delete(bucket, upload.key)

    def _standing(self, drives: "list[Future[None]]", ingest: SqsQueue) -> Standing:
        for drive in drives:
            if drive.done():
                drive.result()  # a failed upload ends the demo with its own message
        outcomes: Counter[str] = Counter()
        for count in outcome_counts(self._database, DEFAULT_COLLECTION):
            outcomes[count.outcome] += count.objects
        return Standing(self._plan.count(), len(self._sent), sum(ingest.depth()), outcomes)

    def _check_nothing_waits(self, standing: Standing) -> None:
        """After a standstill: raise if the services are stuck rather than finished."""
        if standing.backlog or standing.uploaded < standing.planned:
            raise DependencyDownError(
                f"nothing has happened for {_STANDSTILL_SECONDS:.0f} s: {standing.line()}; "
                f"what the services say is in {self._loop.state}/*.log"
            )

    def _is_settled(self, standing: Standing, drives: "list[Future[None]]") -> bool:
        """Whether everything was sent and decided, and the queue is empty."""
        sent = all(drive.done() for drive in drives)
        return sent and is_complete(self._plan, standing.outcomes) and standing.backlog == 0

    def _request_snapshot(self, k: int) -> SnapshotFacts:
        """Request a snapshot as any program would: with one message to the queue."""
        request = SnapshotRequest(
            request_id=f"demo-{uuid4()}",
            collection=DEFAULT_COLLECTION,
            name="demo",
            select=Select(strategy="k_center", k=k, seed=7),
            split=Split(train=0.8, val=0.1, test=0.1),
        )
        self._view.say(f"a snapshot of at most {k} images is requested over SQS")
        send_request(self._queue(self._loop.stack.snapshot_queue), request)
        return wait_for_snapshot(
            self._database, request.request_id, timeout_seconds=_PUBLISHED_WITHIN_SECONDS
        )

    def _bring_home(self, snapshot: SnapshotFacts, rows: list[ObjectOutcome], *, k: int) -> _Home:
        """Download the snapshot as a user would, and compare it with the ledger."""
        if snapshot.location is None:
            raise DependencyDownError(f"snapshot {snapshot.snapshot_id} says no location")
        folder = self._loop.state / "snapshot"
        self._uploads.download(S3Location.parse(snapshot.location), folder)
        items = objects_of(self._database, snapshot.snapshot_id)
        paths = [(item.destination_key, folder / item.destination_key) for item in items]
        copies = {key: path.read_bytes() for key, path in paths if path.is_file()}
        complaints = check_snapshot(items, rows, copies, wanted=k)
        if not (folder / "snapshot.json").is_file():
            complaints.append("snapshot.json is missing")
        return _Home(snapshot.location, str(folder), items, complaints)

    def _write_contact_sheet(self, rows: list[ObjectOutcome], home: _Home) -> tuple[Path, int]:
        """Returns the page, and how many kept images have no thumbnail."""
        folder = self._loop.state / "thumbnails"
        bucket = self._loop.stack.derived_bucket
        self._uploads.download(S3Location(bucket, "thumbnails/"), folder)
        thumbnails = {
            f"thumbnails/{path.name}": f"thumbnails/{path.name}" for path in folder.glob("*.webp")
        }
        page = contact_sheet(
            rows,
            title="What pixsift made of three robots' images",
            facts=[
                f"{len(rows)} objects judged, {self._plan.count('sidecar')} sidecars ignored",
                f"snapshot {home.location or '(none)'}, {len(home.items)} images",
            ],
            thumbnails=thumbnails,
            chosen=frozenset(item.object_id for item in home.items),
        )
        path = self._loop.state / "contact-sheet.html"
        path.write_text(page, "utf-8")
        kept = (row.thumbnail_key for row in rows if row.outcome == "kept")
        return path, sum(1 for key in kept if key not in thumbnails)
