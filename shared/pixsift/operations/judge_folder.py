"""Judges the files of a folder: a lister feeds the stages of an image, in the order of keys.

What the ledger knows already is not read again: a file is recognized by its size and time. A file
that has an outcome and no longer exists becomes ``gone``. Decisions are committed in the order of
keys, so an interrupted and continued run ends like an undisturbed one. Nothing is written to the
folder.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aws_lambda_powertools import Logger

from pixsift.adapters.decode.signatures import sniff
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.folder_objects import FolderObjects, Walked
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.events import ObjectCreated, ObjectEvent, ObjectRemoved
from pixsift.core.files import FileVersion
from pixsift.core.identity import ObjectVersion
from pixsift.core.reconcile import KnownVersion
from pixsift.errors import DependencyDownError, PixsiftError, TransientError
from pixsift.judging.arrivals import Arrival, Delivery
from pixsift.judging.pipeline import Limits, Pipeline
from pixsift.judging.stages import Commit, Decode, Decoder, Embed, Fetch, Thumbnails
from pixsift.operations.reconcile import known_in_range, pages_of_keys
from pixsift.ports import Embedder, ListedObject
from pixsift.telemetry import Telemetry

MAX_OBJECT_BYTES = 64 * 1024**2
_IMAGE_NAMES = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif",
    "heic", "heif", "avif", "jxl", "jp2", "pgm", "ppm", "pnm", "pbm",
})  # fmt: skip
"""Extensions of images: such a file is judged whatever it contains, so that a broken one is
reported."""
_OTHER_NAMES = frozenset({
    "zip", "tar", "tgz", "gz", "bz2", "xz", "zst", "7z", "rar", "txt", "md", "json", "jsonl", "csv",
    "tsv", "xml", "yaml", "yml", "toml", "ini", "log", "html", "htm", "pdf", "py", "ipynb", "js",
    "css", "npy", "npz", "pkl", "h5", "hdf5", "parquet", "arrow", "pt", "pth", "onnx",
    "safetensors", "svg", "db", "sqlite", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "wav",
    "mp3", "flac", "xmp",
})  # fmt: skip
"""Extensions of files that accompany images: ignored without reading."""
_START_BYTES = 64
_TRIES = 3
_FINISH_SECONDS = 10.0


@dataclass(slots=True)
class FolderTally:
    """The counts of a run."""

    total: int = 0
    """Files in the folder when the run began."""
    judged: int = 0
    """Read, decoded where necessary, and decided in this run."""
    unchanged: int = 0
    """Decided by an earlier run."""
    ignored: int = 0
    """Files that are not images."""
    removed: int = 0
    """Objects of the ledger that are no longer in the folder, or were overwritten there."""
    undecided: int = 0
    """Files without an outcome: the next run tries them again."""
    walked: Walked = field(default_factory=Walked)
    stopped: bool = False
    """Asked to stop before the end."""

    @property
    def done(self) -> int:
        """Files that are settled."""
        return self.judged + self.unchanged + self.ignored + self.undecided


Report = Callable[[FolderTally], None]


@dataclass(frozen=True, slots=True, eq=False)
class FolderParts:
    """What a run needs."""

    database: Database
    ledger: Ledger
    objects: FolderObjects
    decoder: Decoder
    embedder: Embedder
    derived_bucket: str
    """Where thumbnails go."""
    logger: Logger
    telemetry: Telemetry
    in_flight: int = 128
    """Files inside the pipeline at any time."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Listed(Delivery):
    """One file, or one object that is no longer there."""

    event: ObjectEvent
    tries: int = 1


class _FolderHealth:
    """See ``judging.stages.SourceHealth``: an error concerns one file, unless the folder fails."""

    def __init__(self, objects: FolderObjects) -> None:
        self._objects = objects

    def check(self, bucket: str) -> None:
        """Asked only when something fails."""

    def succeeded(self, version: ObjectVersion, *, size_bytes: int) -> None:
        """Nothing to remember."""

    def failed(
        self,
        bucket: str,
        again: Callable[[], object],
        error: PixsiftError,
        *,
        listing: bool = False,
    ) -> PixsiftError:
        """For example one file that may not be read; a folder that is gone stops everything."""
        try:
            self._objects.check_bucket(bucket)
        except PixsiftError as of_folder:
            return DependencyDownError(str(of_folder))
        denied = error.code == "access_denied"
        return TransientError(str(error), reason="access_denied" if denied else "try_again")


class FolderRun:
    """One walk through a folder. ``run`` may be called once.

    It is the ``Settler`` of its own deliveries.
    """

    def __init__(
        self, parts: FolderParts, collection: Collection, bucket: str, *, report: Report
    ) -> None:
        self._parts = parts
        self._collection = collection
        self._bucket = bucket
        self._report_progress = report
        self._lock = threading.Lock()
        self._tally = FolderTally()
        self._again: list[_Listed] = []
        self._outage: DependencyDownError | None = None
        self._halt = threading.Event()

    def run(self, stop: threading.Event) -> FolderTally:
        """Judge what is new until ``stop``.

        Raises DependencyDownError when the ledger, the disk or the folder fails; earlier decisions
        stay.
        """
        pipeline = self._pipeline()
        try:
            self._tally.total = sum(1 for _ in self._parts.objects.iter_versions(self._bucket))
            if not self._tally.total:
                return self._tally  # not mounted, rather than emptied: nothing is forgotten
            self._feed(pipeline, self._events(), stop)
            while self._again and not self._must_end(stop, pipeline):
                again, self._again = self._again, []
                self._feed(pipeline, iter([(d.event, d.tries + 1) for d in again]), stop)
        finally:
            self._tally.stopped = stop.is_set()
            pipeline.finish(_FINISH_SECONDS)
        if failure := self._outage or pipeline.lost:
            raise failure
        self._report_progress(self._tally)
        return self._tally

    # Settler: the end of each file.

    def done(self, delivery: Delivery) -> None:
        """Its outcome is committed."""
        self._count(delivery, undecided=False)

    def give_back(self, delivery: Delivery, error: Exception) -> None:
        """Try once more later, or, in an outage, end the run."""
        ours = _ours(delivery)
        if isinstance(error, DependencyDownError):
            self._stop_for(error)
        elif ours.tries < _TRIES:
            with self._lock:
                self._again.append(ours)
        else:
            self._count(delivery, undecided=True)

    def unfinished(self, deliveries: Sequence[Delivery]) -> None:
        """The next run finds them without an outcome."""

    def _stop_for(self, error: DependencyDownError) -> None:
        self._outage = self._outage or error
        self._halt.set()

    def _count(self, delivery: Delivery, *, undecided: bool) -> None:
        with self._lock:
            if isinstance(_ours(delivery).event, ObjectRemoved):
                self._tally.removed += 1
            elif undecided:
                self._tally.undecided += 1
            else:
                self._tally.judged += 1
        self._report_progress(self._tally)

    # The lister.

    def _feed(
        self, pipeline: Pipeline, events: "Iterator[tuple[ObjectEvent, int]]", stop: threading.Event
    ) -> None:
        for event, tries in events:
            if self._must_end(stop, pipeline):
                return
            delivery = _Listed(event=event, tries=tries, last_chance=True)
            pipeline.submit(delivery, [Arrival(delivery, event, [self._collection])], stop)
        while not self._must_end(stop, pipeline):
            if pipeline.drain(stop, seconds=0.2):
                return

    def _must_end(self, stop: threading.Event, pipeline: Pipeline) -> bool:
        return stop.is_set() or self._halt.is_set() or pipeline.lost is not None

    def _events(self) -> Iterator[tuple[ObjectEvent, int]]:
        """New, changed and removed files, by key."""
        after = ""
        walked = self._tally.walked
        for page in pages_of_keys(self._parts.objects.walk(self._bucket, walked)):
            last = page[-1].key
            known = self._known(after, last)
            for event in self._of_page(page, known):
                yield event, 1
            after = last
        for key in self._known(after, None):
            yield from ((event, 1) for event in self._removal(key))

    def _known(self, after: str, to: str | None) -> dict[str, list[KnownVersion]]:
        found: dict[str, list[KnownVersion]] = {}
        rows = known_in_range(
            self._parts.database, [self._collection], self._bucket, after=after, to=to
        )
        for row in rows:
            found.setdefault(row.key, []).append(row)
        return {key: rows for key, rows in found.items() if any(row.is_alive for row in rows)}

    def _of_page(
        self, page: Sequence[ListedObject], known: dict[str, list[KnownVersion]]
    ) -> Iterator[ObjectEvent]:
        for line in page:
            rows = known.pop(line.key, [])
            if self._is_settled(line, rows):
                self._skip("unchanged")
            elif not self._is_image(line.key):
                self._skip("ignored")
            else:
                size = line.version.size_bytes
                yield ObjectCreated(self._bucket, line.key, size_bytes=size)
        for key in known:
            yield from self._removal(key)

    def _removal(self, key: str) -> Iterator[ObjectRemoved]:
        """Only files that certainly no longer exist: a folder that cannot be listed hides files."""
        try:
            gone = self._parts.objects.head(self._bucket, key) is None
        except PixsiftError:
            gone = False
        if gone:
            yield ObjectRemoved(self._bucket, key)

    def _is_settled(self, line: ListedObject, known: Sequence[KnownVersion]) -> bool:
        there = FileVersion.parse(line.version.version_id)
        for row in known:
            was = FileVersion.parse(row.version_id)
            outcome = row.outcomes.get(str(self._collection.collection_id))
            if was and there and was.is_same_write(there) and outcome not in (
                None, "failed", "gone",
            ):  # fmt: skip
                return True
        return False

    def _is_image(self, key: str) -> bool:
        if self._collection.reach(self._bucket, key) != "accepted":
            return False
        name = key.rsplit("/", 1)[-1]
        extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
        if extension in _IMAGE_NAMES or extension in _OTHER_NAMES:
            return extension in _IMAGE_NAMES
        try:
            start = self._parts.objects.read_start(self._bucket, key, _START_BYTES)
        except PixsiftError:
            return False
        return sniff(start) not in (None, "SVG", "PDF", "EPS", "TGA", "ICO", "CUR", "NumPy array")

    def _skip(self, name: str) -> None:
        with self._lock:
            setattr(self._tally, name, getattr(self._tally, name) + 1)
        self._report_progress(self._tally)

    def _pipeline(self) -> Pipeline:
        parts = self._parts
        telemetry, ledger = parts.telemetry, parts.ledger
        thumbnails = Thumbnails(parts.objects, parts.derived_bucket, telemetry=telemetry)
        fetch = Fetch(
            parts.objects, ledger, _FolderHealth(parts.objects),
            max_object_bytes=MAX_OBJECT_BYTES, telemetry=telemetry,
        )  # fmt: skip
        decode = Decode(
            parts.decoder, ledger, space_id=parts.embedder.space.space_id, telemetry=telemetry
        )
        return Pipeline(
            fetch=fetch,
            decode=decode,
            thumbnails=thumbnails,
            embed=Embed(parts.embedder, ledger, telemetry=telemetry),
            commit=Commit(ledger, thumbnails, telemetry=telemetry),
            settler=self,
            report=self._stop_for,
            limits=Limits(
                max_in_flight=parts.in_flight,
                fetch_threads=4,
                embed_batch=parts.embedder.batch_size,
                in_order=True,
            ),
            logger=parts.logger,
            telemetry=telemetry,
        )


def judge_folder(
    parts: FolderParts,
    collection: Collection,
    bucket: str,
    *,
    stop: threading.Event,
    report: Report = lambda tally: None,
) -> FolderTally:
    """Bring the ledger up to date with a folder; see ``FolderRun.run``."""
    return FolderRun(parts, collection, bucket, report=report).run(stop)


def _ours(delivery: Delivery) -> _Listed:
    assert isinstance(delivery, _Listed)  # noqa: S101 - nothing else is submitted
    return delivery
