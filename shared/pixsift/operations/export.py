"""Publishes a stored list as a snapshot: copies, describes, and writes ``snapshot.json`` last.

All or nothing: the descriptor is written only when every image of the list has been copied from
its exact version and verified. Every step can be repeated: destinations are fixed by the list,
files have the same bytes each time, and the ledger records the progress. An exporter works under a
lease and writes with its fence; of two exporters that both believe they hold the lease, only one
can write.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from aws_lambda_powertools import Logger

from pixsift import __version__
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.s3_stream import StreamWriter
from pixsift.adapters.ledger.snapshots import LeaseLostError, Snapshot, SnapshotFile, Snapshots
from pixsift.core.calibration import vouches_for
from pixsift.core.copyplan import CopyItem
from pixsift.core.descriptor import (
    SNAPSHOT_FILE,
    build_croissant,
    build_descriptor,
    is_same_snapshot,
)
from pixsift.core.identity import ObjectVersion, location
from pixsift.core.manifest import build_duplicates, build_manifest, build_metadata
from pixsift.core.manifest_rows import ManifestRow
from pixsift.core.webdataset import plan_shards, tar_stream
from pixsift.errors import ObjectGoneError, PermanentError, PixsiftError, TransientError
from pixsift.operations.redact import drop_unpublished
from pixsift.ports import Copier, CopyResult

_FLUSH_ITEMS, _FLUSH_SECONDS = 200, 2.0
"""Copies between two writes of progress: at most this much is copied again after a kill."""
ExportState = Literal["published", "failed", "busy", "stopped"]
KeepLease = Callable[[str, int], AbstractContextManager[object]]
"""Called with a snapshot's id and the fence; returns a context that renews the lease."""
_NAMED_FAILURES = 5
_MOST_STALLS = 5
"""Exporters that ended one after another without progress: the next one would end as well."""


class StoppedError(TransientError):
    """The process was asked to stop; the next process continues from here."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How the exporter works; times in seconds."""

    bucket: str
    lease_seconds: float = 60.0
    shard_bytes: int = 256 * 1024**2
    retry_delay_seconds: float = 10.0
    give_up_seconds: float = 86_400.0
    """Age of a list after which an outage ends it as a failure."""


class Exporter:
    """Publishes stored lists. ``at_point`` is called at named points; tests kill there."""

    def __init__(
        self,
        settings: ExportSettings,
        *,
        snapshots: Snapshots,
        copier: Copier,
        objects: S3Objects,
        writer: StreamWriter,
        keep_lease: KeepLease,
        logger: Logger,
        at_point: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._settings = settings
        self._snapshots = snapshots
        self._copier = copier
        self._objects = objects
        self._writer = writer
        self._keep_lease = keep_lease
        self._logger = logger
        self._at_point = at_point

    def run(self, snapshot_id: str, stop: threading.Event) -> ExportState:
        """Publish one snapshot, or record why it cannot be published; finished steps are not
        repeated.

        ``busy``: another exporter holds the lease. ``stopped``: ``stop`` was set; the lease is
        given back. Raises TransientError or DependencyDownError when a later try may succeed. A
        list that ends exporter after exporter, or that an outage keeps back for a day, fails.
        """
        fence = self._snapshots.claim(snapshot_id, lease_seconds=self._settings.lease_seconds)
        if fence is None:
            state = self._snapshots.get(snapshot_id).state
            return (
                "published" if state == "published" else "failed" if state == "failed" else "busy"
            )
        self._at_point("claimed")
        try:
            with self._keep_lease(snapshot_id, fence), self._redacted_dropped(snapshot_id):
                return self._export(_not_stalled(self._snapshots.get(snapshot_id)), fence, stop)
        except PermanentError as error:
            self._logger.error("snapshot failed", snapshot_id=snapshot_id, reason=str(error))
            self._snapshots.fail(snapshot_id, fence, error=str(error))
            return "failed"
        except StoppedError:
            self._snapshots.give_back(snapshot_id, fence)
            return "stopped"
        except LeaseLostError:
            raise
        except PixsiftError as error:
            age = datetime.now(UTC) - self._snapshots.get(snapshot_id).created_at
            if age.total_seconds() > self._settings.give_up_seconds:
                self._logger.error("snapshot failed", snapshot_id=snapshot_id, reason=str(error))
                self._snapshots.fail(snapshot_id, fence, error=f"gave_up: {error}")
                return "failed"
            self._snapshots.give_back(
                snapshot_id, fence, delay_seconds=self._settings.retry_delay_seconds
            )
            raise

    def _export(
        self, snapshot: Snapshot, fence: int, stop: threading.Event
    ) -> Literal["published"]:
        export = snapshot.request.get("export", {})
        if export.get("mode", "copy") == "copy":
            self._copy_images(snapshot, fence, stop)
        self._at_point("copied")
        rows = self._snapshots.manifest_rows(snapshot.snapshot_id)
        self._write_tables(snapshot, fence, rows)
        if "webdataset" in export.get("formats", []):
            self._write_shards(snapshot, fence, rows, stop)
        self._at_point("described")
        self._publish(snapshot, fence, rows)
        return "published"

    @contextmanager
    def _redacted_dropped(self, snapshot_id: str) -> Iterator[None]:
        """After the block, however it ends: an image that was erased while this exporter was
        writing may have been copied after its deletion. ``audit`` finds what cannot be deleted
        now."""
        try:
            yield
        except PixsiftError:
            with suppress(PixsiftError):
                snapshot = self._snapshots.get(snapshot_id)
                if snapshot.state != "published" and self._snapshots.redactions(snapshot_id):
                    drop_unpublished(
                        self._snapshots, self._objects, self._settings.bucket, snapshot
                    )
            raise

    # -- the images -------------------------------------------------------------------------

    def _copy_images(self, snapshot: Snapshot, fence: int, stop: threading.Event) -> None:
        items = self._snapshots.items(snapshot.snapshot_id)
        halt = _AnyOf(stop)
        progress = _CopyProgress(self._snapshots, snapshot.snapshot_id, fence)
        failures: list[CopyResult] = []
        for result in self._results(items, snapshot.prefix, halt, progress):
            if result.failure:
                failures.append(result)
                halt.set()  # it cannot be published any more: do not copy the rest
            else:
                progress.add(result)
                self._at_point("image_copied")
        if failures:
            raise _lost(failures, snapshot.images)
        if stop.is_set():
            raise StoppedError("stopped while copying")
        left = self._snapshots.items(snapshot.snapshot_id)
        if left:
            raise TransientError(f"{len(left)} images of {snapshot.snapshot_id} are not copied yet")

    def _results(
        self, items: Sequence[CopyItem], prefix: str, halt: "_AnyOf", progress: "_CopyProgress"
    ) -> Iterator[CopyResult]:
        try:
            yield from self._copier.copy(items, prefix=prefix, stop=halt)
        finally:
            progress.flush()  # also after an error: what was copied stays copied

    # -- the files next to them -------------------------------------------------------------

    def _write_tables(self, snapshot: Snapshot, fence: int, rows: Sequence[ManifestRow]) -> None:
        for split in sorted({row.split for row in rows}):
            self._write(
                snapshot, fence, f"data/{split}/metadata.parquet", build_metadata(rows, split)
            )
        self._write(snapshot, fence, "manifest.parquet", build_manifest(rows))
        duplicates = self._snapshots.duplicate_rows(snapshot.snapshot_id)
        self._write(snapshot, fence, "duplicates.parquet", build_duplicates(duplicates))
        croissant = build_croissant(
            name=snapshot.name,
            snapshot_id=snapshot.snapshot_id,
            created_at=snapshot.created_at,
            files=self._files(snapshot),
        )
        self._write(snapshot, fence, "croissant.json", croissant)

    def _write(self, snapshot: Snapshot, fence: int, path: str, content: bytes) -> None:
        file = SnapshotFile(path, len(content), hashlib.sha256(content).hexdigest())
        self._objects.put(
            self._settings.bucket, snapshot.prefix + path, content, content_type=_type(path)
        )
        self._snapshots.record_file(snapshot.snapshot_id, fence, file)
        self._at_point("file_written")

    def _write_shards(
        self, snapshot: Snapshot, fence: int, rows: Sequence[ManifestRow], stop: threading.Event
    ) -> None:
        done = self._files(snapshot)
        for shard in plan_shards(rows, max_bytes=self._settings.shard_bytes):
            if shard.path in done:
                continue
            if stop.is_set():
                raise StoppedError("asked to stop between shards")
            try:
                size, sha256 = self._writer.write(
                    snapshot.prefix + shard.path, tar_stream(shard.rows, self._read)
                )
            except ObjectGoneError as gone:
                raise PermanentError("source_missing", gone.detail) from gone
            self._snapshots.record_file(
                snapshot.snapshot_id, fence, SnapshotFile(shard.path, size, sha256)
            )
            self._at_point("shard_written")

    def _read(self, row: ManifestRow) -> bytes:
        """The exact version's bytes, checked against what the consumer saw."""
        content = self._objects.get(row.source)
        if row.content_sha256 and hashlib.sha256(content).hexdigest() != row.content_sha256:
            raise PermanentError("checksum_mismatch", row.source.uri)
        return content

    # -- the descriptor ---------------------------------------------------------------------

    def _publish(self, snapshot: Snapshot, fence: int, rows: Sequence[ManifestRow]) -> None:
        # An erasure or another exporter may have interfered: publish only with the lease.
        self._snapshots.renew(
            snapshot.snapshot_id, fence, lease_seconds=self._settings.lease_seconds
        )
        descriptor = build_descriptor(
            identity=_identity(snapshot),
            request=snapshot.request,
            report=snapshot.report,
            rows=rows,
            files=self._files(snapshot),
        )
        bucket, key = self._settings.bucket, snapshot.prefix + SNAPSHOT_FILE
        fresh = self._objects.put(
            bucket, key, descriptor, content_type="application/json", only_if_absent=True
        )
        if not fresh:
            self._check_ours(bucket, key, descriptor)
        self._at_point("descriptor_written")
        self._snapshots.publish(
            snapshot.snapshot_id, fence, location=location(bucket, snapshot.prefix)
        )

    def _check_ours(self, bucket: str, key: str, descriptor: bytes) -> None:
        """An earlier try may have written it and died before it recorded that."""
        head = self._objects.head(bucket, key)
        if head is None:
            raise TransientError(f"s3://{bucket}/{key} disappeared")
        version = ObjectVersion(bucket, key, f"etag:{head.etag}")
        if not is_same_snapshot(self._objects.get(version), descriptor):
            raise PermanentError("location_taken", f"s3://{bucket}/{key} is another snapshot")

    def _files(self, snapshot: Snapshot) -> dict[str, tuple[int, str]]:
        return {
            file.path: (file.size_bytes, file.sha256)
            for file in self._snapshots.files(snapshot.snapshot_id)
        }


class _CopyProgress:
    """Writes copied items to the ledger in groups."""

    def __init__(self, snapshots: Snapshots, snapshot_id: str, fence: int) -> None:
        self._snapshots = snapshots
        self._snapshot_id = snapshot_id
        self._fence = fence
        self._copied: dict[int, str] = {}
        self._flushed_at = time.monotonic()

    def add(self, result: CopyResult) -> None:
        self._copied[result.item.rank] = result.checksum
        waited = time.monotonic() - self._flushed_at
        if len(self._copied) >= _FLUSH_ITEMS or waited >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._snapshots.mark_copied(self._snapshot_id, self._fence, self._copied)
        self._copied = {}
        self._flushed_at = time.monotonic()


class _AnyOf(threading.Event):
    """Set by itself or by another event."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


def _not_stalled(snapshot: Snapshot) -> Snapshot:
    if snapshot.stalls >= _MOST_STALLS:
        raise PermanentError(
            "ended_the_process",
            f"{snapshot.stalls} curators ended one after another while they exported it, without "
            "progress; see their logs, and request it again",
        )
    return snapshot


def _lost(failures: Sequence[CopyResult], images: int) -> PermanentError:
    named = ", ".join(f"{f.item.source.uri} ({f.failure})" for f in failures[:_NAMED_FAILURES])
    more = f" and {len(failures) - _NAMED_FAILURES} more" if len(failures) > _NAMED_FAILURES else ""
    return PermanentError(
        failures[0].failure,
        f"at least {len(failures)} of {images} images cannot be copied as listed: {named}{more}; "
        "request again once the ledger knows of the change, or list them under select.exclude",
    )


def _identity(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.snapshot_id,
        "name": snapshot.name,
        "collection": snapshot.collection,
        "generation": snapshot.generation,
        "at_seq": snapshot.at_seq,
        "spec_hash": snapshot.spec_hash,
        "seed": snapshot.seed,
        "created_at": snapshot.created_at.isoformat(),
        "space_id": snapshot.space_id,
        "epsilon": snapshot.epsilon,
        "epsilon_calibrated": snapshot.epsilon is not None
        and vouches_for(snapshot.calibration, snapshot.epsilon, snapshot.second_look),
        "pixsift": __version__,
    }


def _type(path: str) -> str:
    return "application/json" if path.endswith(".json") else "application/vnd.apache.parquet"
