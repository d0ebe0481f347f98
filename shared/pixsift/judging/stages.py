"""The stages an arrival passes: fetch, decode, embed, thumbnails, commit. Each takes a batch.

A stage changes its arrivals and returns nothing; an error it raises concerns its whole batch. A
problem of one arrival is a finding on that arrival.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pixsift.adapters.ledger.ledger import Ledger
from pixsift.core.events import ObjectCreated, ObjectRemoved
from pixsift.core.files import FileVersion
from pixsift.core.identity import (
    ObjectVersion,
    version_id_of,
    versions_hidden_by_markers,
)
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult
from pixsift.core.outcomes import Decision, Judged
from pixsift.errors import (
    AccessDeniedError,
    DependencyDownError,
    PermanentError,
    PixsiftError,
    TransientError,
)
from pixsift.judging import findings
from pixsift.judging.arrivals import Arrival, StoredFacts
from pixsift.ports import Embedder, ObjectStore
from pixsift.telemetry import Telemetry
from pixsift.threads import Clock


class Decoder(Protocol):
    """The decoder pool, or a replacement in tests."""

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]: ...

    def ping(self) -> None: ...


class SourceHealth(Protocol):
    """Whether a bucket answers, and what an error of one object says about its bucket."""

    def check(self, bucket: str) -> None:
        """Raise BucketDownError while the bucket is down."""
        ...

    def succeeded(self, version: ObjectVersion, *, size_bytes: int) -> None:
        """The store has just returned this version."""
        ...

    def failed(
        self,
        bucket: str,
        again: Callable[[], object],
        error: PixsiftError,
        *,
        listing: bool = False,
    ) -> PixsiftError:
        """The error to raise: of this object alone, or of its bucket. again: the failed call once
        more; listing: it listed versions."""
        ...


class Fetch:
    """Asks the store: for the bytes of a created version, or which versions are really gone."""

    def __init__(
        self,
        objects: ObjectStore,
        ledger: Ledger,
        access: SourceHealth,
        *,
        max_object_bytes: int,
        telemetry: Telemetry,
    ) -> None:
        self._objects = objects
        self._ledger = ledger
        self._access = access
        self._max_bytes = max_object_bytes
        self._telemetry = telemetry

    def run(self, arrival: Arrival, reserve: Callable[[int], None]) -> None:
        """Fill in version and bytes, or the finding."""
        bucket = arrival.event.bucket
        self._access.check(bucket)
        try:
            self._run(arrival, reserve)
        except (TransientError, DependencyDownError) as error:
            if isinstance(error, AccessDeniedError):
                self._telemetry.count("access_denied")
            listing = isinstance(arrival.event, ObjectRemoved) and arrival.event.delete_marker
            raise self._access.failed(
                bucket, lambda: self._ask_again(arrival), error, listing=listing
            ) from error

    def _run(self, arrival: Arrival, reserve: Callable[[int], None]) -> None:
        if isinstance(arrival.event, ObjectRemoved):
            arrival.others = list(self._removed(arrival.event))
            return
        arrival.version = version = arrival.version or self._resolve(arrival.event)
        if version is None:
            return
        try:
            self._fetch(arrival, version, reserve)
        except PermanentError as error:
            arrival.verdict = findings.from_error(arrival, arrival.version or version, error)

    def _ask_again(self, arrival: Arrival) -> None:
        """The call that failed, with one byte of the body. Raises while it fails."""
        if (version := arrival.version) is not None:
            self._objects.read_first_byte(version)
        elif isinstance(arrival.event, ObjectRemoved):
            self._no_longer(arrival.event)
        else:
            self._resolve(arrival.event)

    def _fetch(
        self, arrival: Arrival, version: ObjectVersion, reserve: Callable[[int], None]
    ) -> None:
        if arrival.size_bytes is not None and arrival.size_bytes > self._max_bytes:
            size = arrival.size_bytes
            raise PermanentError("too_large", f"{size} bytes, limit {self._max_bytes}")
        with self._telemetry.timed("fetch_seconds"):
            fetched = self._objects.fetch(version, max_bytes=self._max_bytes, reserve=reserve)
        # A listed file is named by size and time; the bytes read complete its version id.
        arrival.version = version = fetched.version or version
        self._access.succeeded(version, size_bytes=len(fetched.body))
        self._telemetry.observe("fetched_bytes", len(fetched.body))
        arrival.body = fetched.body
        arrival.stored = StoredFacts(
            fetched.etag, len(fetched.body), fetched.metadata, fetched.modified_at
        )
        if not version.is_versioned:
            arrival.others = self._overwritten(version, arrival.event.sequencer)
        if not fetched.body:
            raise PermanentError("empty")
        arrival.content_sha256 = hashlib.sha256(fetched.body).digest()

    def _resolve(self, event: ObjectCreated) -> ObjectVersion | None:
        """An event without version id and ETag means whatever is at the key now."""
        head = self._objects.head(event.bucket, event.key)
        identity = version_id_of(head.version_id, head.etag) if head else None
        return ObjectVersion(event.bucket, event.key, identity) if identity else None

    def _overwritten(self, current: ObjectVersion, sequencer: str | None) -> list[Judged]:
        """Without versioning a write ends the writes before it."""
        return [
            findings.gone(version, "overwritten", sequencer)
            for version in self._ledger.versions_of(current.bucket, current.key)
            if version != current and not version.is_versioned
        ]

    def _removed(self, event: ObjectRemoved) -> Iterable[Judged]:
        """The versions that no longer exist, as S3 says now: events come in any order."""
        reason = "expired" if event.expired else "deleted"
        return [
            findings.gone(version, reason, event.sequencer) for version in self._no_longer(event)
        ]

    def _no_longer(self, event: ObjectRemoved) -> list[ObjectVersion]:
        bucket, key = event.bucket, event.key
        if event.delete_marker:
            listing = self._objects.list_versions(bucket, key)
            hidden = versions_hidden_by_markers(listing)
            there = {version_id_of(line.version_id, line.etag) for line in listing}
            # With versioning suspended a marker takes the place of the version without an id.
            replaced = [
                version
                for version in self._ledger.versions_of(bucket, key)
                if not version.is_versioned and version.version_id not in there
            ]
            return [ObjectVersion(bucket, key, identity) for identity in hidden] + replaced
        if event.version_id is not None:
            version = ObjectVersion(bucket, key, event.version_id)
            return [] if self._objects.head(bucket, key, version=version) else [version]
        head = self._objects.head(bucket, key)
        current = version_id_of(None, head.etag) if head else None
        return [
            version
            for version in self._ledger.versions_of(bucket, key)
            if not version.is_versioned and not _is_same(version.version_id, current)
        ]


class Decode:
    """Bytes to pixels; bytes that were seen before need no pixels."""

    def __init__(
        self,
        decoder: Decoder,
        ledger: Ledger,
        *,
        space_id: str,
        telemetry: Telemetry,
    ) -> None:
        self._decoder = decoder
        self._ledger = ledger
        self._space_id = space_id
        self._telemetry = telemetry

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """Fill in pixels, what is known already, or the finding."""
        contents = {a.content_sha256 for a in arrivals if a.content_sha256 is not None}
        known = self._ledger.find_exact(self._space_id, list(contents))
        _, erased = self._ledger.erased([], list(contents))
        for arrival in arrivals:
            arrival.known = known.get(arrival.content_sha256 or b"")
            if arrival.content_sha256 in erased and arrival.version is not None:
                # Its pixels, vector and thumbnail must not come back; the commit checks again.
                arrival.verdict = findings.gone(arrival.version, "erased", arrival.event.sequencer)
        unknown = [a for a in arrivals if a.known is None and a.verdict is None]
        if unknown:
            with self._telemetry.timed("decode_seconds"):
                results = self._decoder.decode([_body(arrival) for arrival in unknown])
            for arrival, result in zip(unknown, results, strict=True):
                self._take(arrival, result)
        for arrival in arrivals:
            arrival.body = None

    def _take(self, arrival: Arrival, result: DecodeResult) -> None:
        assert arrival.version is not None  # noqa: S101 - fetched ones have it
        if isinstance(result, DecodeFailure):
            arrival.verdict = findings.from_decode_failure(arrival, arrival.version, result)
            return
        arrival.decoded = result
        if result.thumbnail_webp:
            arrival.thumbnail_key = thumbnail_key(result)


class Embed:
    """Pixels to vectors; a vector that exists is not made again."""

    def __init__(self, embedder: Embedder, ledger: Ledger, *, telemetry: Telemetry) -> None:
        self._embedder = embedder
        self._ledger = ledger
        self._telemetry = telemetry

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """Fill in embeddings where the ledger has none, or the finding."""
        wanted = {a.decoded.pixel_sha256: a.decoded for a in arrivals if a.decoded is not None}
        stored = self._ledger.embeddings(self._embedder.space.space_id, list(wanted))
        fresh = [image for pixels, image in wanted.items() if pixels not in stored]
        self._telemetry.count("embeddings_reused", len(arrivals) - len(fresh))
        if not fresh:
            return
        with self._telemetry.timed("embed_seconds"):
            result = self._embedder.embed([image.model_input for image in fresh])
        self._telemetry.observe("embed_batch", len(fresh))
        vectors = {
            fresh[index].pixel_sha256: row
            for index, row in zip(result.kept_indices, result.embeddings, strict=True)
        }
        failures = {fresh[index].pixel_sha256: why for index, why in result.failures.items()}
        for arrival in arrivals:
            if arrival.decoded is None or arrival.version is None:
                continue
            pixels = arrival.decoded.pixel_sha256
            if pixels in failures:
                error = PermanentError(failures[pixels])
                arrival.verdict = findings.from_error(arrival, arrival.version, error)
            elif pixels in vectors:
                arrival.embedding = vectors[pixels]


_SLOW_SECONDS = 5.0
"""A failed call that took longer than this counts as a bucket that hangs."""


class Thumbnails:
    """Writes thumbnails to the derived bucket. A failed one is skipped and counted.

    A derived bucket that does not answer would hold every image for as long as a call may take, so
    after a failure nothing is written for a while.
    """

    def __init__(
        self,
        objects: ObjectStore,
        bucket: str,
        *,
        telemetry: Telemetry,
        pause_seconds: float = 15.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._objects = objects
        self._bucket = bucket
        self._telemetry = telemetry
        self._pause = pause_seconds
        self._clock = clock
        self._resume_at = float("-inf")

    def run(self, arrival: Arrival) -> None:
        """Write the thumbnail; the arrival forgets its key where that fails."""
        if arrival.decoded is None or arrival.thumbnail_key is None:
            return
        if self._clock() < self._resume_at:
            self._telemetry.count("thumbnail_failures")
            arrival.thumbnail_key = None
            return
        started = self._clock()
        try:
            self._objects.put(
                self._bucket,
                arrival.thumbnail_key,
                arrival.decoded.thumbnail_webp,
                content_type="image/webp",
            )
        except PixsiftError as error:
            self._telemetry.count("thumbnail_failures")
            arrival.thumbnail_key = None
            now = self._clock()
            if isinstance(error, DependencyDownError) or now - started > _SLOW_SECONDS:
                self._resume_at = now + self._pause

    def remove(self, arrival: Arrival) -> None:
        """Delete the thumbnail again; one that stays is counted."""
        if arrival.thumbnail_key is None:
            return
        try:
            self._objects.delete(self._bucket, arrival.thumbnail_key)
        except PixsiftError:
            self._telemetry.count("thumbnail_failures")


class Commit:
    """Commits to the ledger, one transaction per collection."""

    def __init__(
        self, ledger: Ledger, thumbnails: Thumbnails, *, telemetry: Telemetry, space_id: str = ""
    ) -> None:
        """space_id: what the embedder makes; needed where arrivals have shadows."""
        self._ledger = ledger
        self._space_id = space_id
        self._thumbnails = thumbnails
        self._telemetry = telemetry

    def run(self, arrivals: Sequence[Arrival]) -> list[Decision]:
        """Commit all findings of the arrivals; returns the new decisions."""
        collections = {c.collection_id: c for a in arrivals for c in a.collections}
        new: list[Decision] = []
        erased: set[ObjectVersion] = set()
        for identity in sorted(collections):  # locks are taken in one order everywhere
            collection = collections[identity]
            judged = [
                item
                for arrival in arrivals
                if any(c.collection_id == identity for c in arrival.collections)
                for item in findings.for_collection(arrival, collection)
            ]
            if not judged:
                continue
            with self._telemetry.timed("commit_seconds"):
                decisions = self._ledger.commit(collection, judged)
            self._telemetry.observe("commit_batch", len(judged))
            new.extend(decision for decision in decisions if decision.is_new)
            erased |= {decision.version for decision in decisions if decision.reason == "erased"}
        self._embed_ahead(arrivals)
        self._drop_thumbnails([arrival for arrival in arrivals if arrival.version in erased])
        self._count(new)
        return new

    def _embed_ahead(self, arrivals: Sequence[Arrival]) -> None:
        """For collections being built in this space: removals are decided in the generation in use;
        everything else is stored for the switch, and decided by the consumers of the present
        space."""
        shadows = {c.collection_id: c for a in arrivals for c in a.shadows}
        for identity in sorted(shadows):
            found = [
                item
                for arrival in arrivals
                if any(c.collection_id == identity for c in arrival.shadows)
                for item in (*findings.for_space(arrival), *arrival.others)
            ]
            gone = [item for item in found if item.finding == "gone"]
            self._ledger.commit(shadows[identity], gone)
            self._ledger.spaces.put_arrivals(shadows[identity], self._space_id, found)
            self._telemetry.count("embedded_ahead", len(found) - len(gone))

    def _drop_thumbnails(self, erased: Sequence[Arrival]) -> None:
        """Thumbnails of images that were erased on the way, after the decoder's check."""
        pixels = {a.decoded.pixel_sha256: a for a in erased if a.decoded is not None}
        if not pixels:
            return
        in_use = self._ledger.pixels_in_use(list(pixels))
        for arrival in (a for pixel_sha256, a in pixels.items() if pixel_sha256 not in in_use):
            self._thumbnails.remove(arrival)

    def _count(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            self._telemetry.count(f"outcome_{decision.outcome}")
        kept = sum(decision.outcome == "kept" for decision in decisions)
        duplicates = sum(decision.outcome == "duplicate" for decision in decisions)
        if kept + duplicates:
            self._telemetry.observe("duplicates_ratio", 100 * duplicates / (kept + duplicates))


def thumbnail_key(image: DecodedImage) -> str:
    """Named by the pixels: equal images share one thumbnail, in every collection and space."""
    return f"thumbnails/{image.pixel_sha256.hex()}.webp"


def _is_same(version_id: str, current: str | None) -> bool:
    """Whether the version is the current one; for a file that was not read, by size and time."""
    known, there = FileVersion.parse(version_id), FileVersion.parse(current or "")
    if known is not None and there is not None:
        return known.is_same_write(there)
    return version_id == current


def _body(arrival: Arrival) -> bytes:
    assert arrival.body is not None  # noqa: S101 - only fetched ones are decoded
    return arrival.body
