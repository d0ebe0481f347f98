"""Another model or decode recipe for a collection: the estimate, and the change itself.

Everything that the collection judged is fetched again, decoded and embedded by the new space, and
decided into a generation built next to the one in use. Consumers continue to decide in the
meantime. What was embedded stays, so that an interrupted run continues where it was.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_build import ReportCount, Rule, Target
from pixsift.adapters.ledger.generations import NOTICE_SECONDS, Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.spaces import Lacking, Spaces
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import ReembedEstimate, SwitchedGeneration
from pixsift.core import presets
from pixsift.core.calibration import Calibration, vouches_for
from pixsift.core.collection import Collection
from pixsift.core.cost import PRICES
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult
from pixsift.core.outcomes import Finding, Judged
from pixsift.core.second_look import LookRule
from pixsift.errors import (
    ConflictError,
    ObjectGoneError,
    PermanentError,
    SettingError,
    TransientError,
)
from pixsift.operations.collections import check_same_model
from pixsift.operations.redecide import check_epsilon, preset_rule, with_mask
from pixsift.ports import Embedder, EmbeddingSpace, ObjectStore

MAX_OBJECT_BYTES: Final = 64 * 1024 * 1024
"""As in the consumer: it did not judge larger objects."""
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.5
_SLICE: Final = 16
"""Images fetched, decoded and embedded together; the next slice is fetched meanwhile."""
_SLICE_BYTES: Final = 64 * 1024 * 1024
_SAMPLE: Final = 16
_REJECTED: Final = ("empty", "too_large")


class Decoder(Protocol):
    """Bytes to pixels."""

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a run works with."""

    database: Database
    objects: ObjectStore
    decoder: Decoder
    embedder: Embedder
    fetch_threads: int = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted rule of the new generation; None: what fits the new space."""

    preset: str | None = None
    epsilon: float | None = None
    calibration: Calibration | None = None
    """Of the new space; None: the one that ships with pixsift, if any."""


def check_recipe(space: EmbeddingSpace, recipe: str | None) -> None:
    """Raise SettingError unless this release makes pixels by ``recipe``: ``px2`` or ``px2-224``."""
    if recipe is not None and space.recipe_id not in (recipe, f"{recipe}-{_side(space)}"):
        raise SettingError(
            f"this release makes pixels by recipe {space.recipe_id}, not {recipe}: use the release "
            "that made that recipe",
            code="other_recipe",
        )


def estimate(parts: Parts, name: str, wanted: Wanted) -> ReembedEstimate:
    """What ``reembed`` would do now, and how long it would take.

    Looks at up to sixteen of the images, to measure. Raises ConflictError where the collection is
    in that space already.
    """
    collection, rule, target = planned(parts, name, wanted)
    spaces = Spaces(parts.database)
    work = spaces.work(collection, target.space_id)
    sample = spaces.sample(collection, target.space_id, _SAMPLE)
    started = time.monotonic()
    if sample:
        with _looking(parts) as look:
            for part in _slices([[row] for row in sample]):
                look(part)
    took = time.monotonic() - started
    space = parts.embedder.space
    return ReembedEstimate(
        collection=collection.name, space_id=collection.space_id, to_space_id=target.space_id,
        model=space.model, recipe_id=space.recipe_id, epsilon=rule.epsilon,
        preset=presets.preset_of(rule.epsilon, rule.second_look),
        calibrated=target.calibration is not None, objects=work.objects, fetches=work.fetches,
        bytes=work.bytes, request_dollars=work.fetches / 1000 * PRICES["s3_get_per_thousand"],
        seconds=took / len(sample) * work.fetches if sample else None, measured_on=len(sample),
        forgotten=work.remembered,
    )  # fmt: skip


def reembed(
    parts: Parts,
    name: str,
    wanted: Wanted,
    *,
    patience_seconds: float,
    notice_seconds: float = NOTICE_SECONDS,
    take_over: bool = False,
    progress: ReportCount = lambda what, done, of: None,
    actor: str = "pixsift",
) -> SwitchedGeneration:
    """Embed and judge a collection again in the embedder's space, and switch to the result.

    patience_seconds: how long the switch may wait for arrivals that consumers of the new space have
    acknowledged and consumers of the present one have not decided. Raises ConflictError where the
    collection is in that space already, another process builds a generation, or patience ends;
    TransientError or DependencyDownError where S3 or the ledger does not answer. After any of these
    errors another run continues.
    """
    collection, rule, target = planned(parts, name, wanted)
    Collections(parts.database, actor=actor).ensure_space(parts.embedder.space)
    return Generations(parts.database, actor=actor).reembed(
        collection, rule, target,
        prepare=filling(parts, collection, target.space_id, progress),
        patience_seconds=patience_seconds, notice_seconds=notice_seconds, take_over=take_over,
        progress=progress,
    )  # fmt: skip


def rule_in(
    collection: Collection, found: Calibration, *, same_weights: bool, wanted: Wanted
) -> tuple[Rule, dict[str, Any] | None]:
    """The rule of a generation in another space, and its calibration.

    found: what is known of the new space. same_weights: only the recipe is another one; a custom
    rule of the collection is then kept. A preset stays the same preset, and a mask stays.
    """
    look = collection.second_look
    preset = wanted.preset or presets.preset_of(collection.epsilon, look)
    mask = () if look is None else LookRule.from_json(look).mask
    if preset is None and same_weights:
        epsilon, chosen = collection.epsilon, look
    elif look is None and wanted.preset is None:
        epsilon, chosen = found.epsilon, None
    else:
        epsilon, chosen = preset_rule(
            preset or presets.DEFAULT, found.epsilon, found.second_look,
            calibrated=found.calibrated,
        )  # fmt: skip
        chosen = with_mask(chosen, mask if chosen is not None else ())
    epsilon = epsilon if wanted.epsilon is None else wanted.epsilon
    check_epsilon(epsilon)
    summary = found.summary() if found.calibrated else None
    vouched = summary if vouches_for(summary, epsilon, chosen) else None
    chosen = None if chosen is None else dict(chosen)
    return Rule(epsilon, chosen, collection.keep_best), vouched


def planned(parts: Parts, name: str, wanted: Wanted) -> tuple[Collection, Rule, Target]:
    """The collection, and rule and space of the generation that ``wanted`` asks for.

    Raises ConflictError where the collection is in that space already, RequestError for a
    calibration that was measured with other weights or another recipe.
    """
    registry = Collections(parts.database)
    collection, space = registry.collection(name), parts.embedder.space
    if collection.space_id == space.space_id:
        raise ConflictError(
            f"collection {name!r} is in embedding space {space.space_id} ({space.model}, "
            f"{space.recipe_id}) already",
            code="same_space",
        )
    now = registry.space(collection.space_id)
    same_weights = now is not None and now.weights_sha256 == space.weights_sha256
    if wanted.calibration is not None:
        check_same_model(wanted.calibration, space)
    found = wanted.calibration or default_calibration(space)
    rule, vouched = rule_in(collection, found, same_weights=same_weights, wanted=wanted)
    return collection, rule, Target(space.space_id, space.dimension, vouched)


def filling(
    parts: Parts, collection: Collection, space_id: str, progress: ReportCount
) -> Callable[[], None]:
    """What makes known in a space all that is lacking there; to be called again and again."""
    return _Run(parts, collection, space_id, progress).make_known


class _Run:
    """Fetches and embeds the objects that are missing in a space."""

    def __init__(
        self, parts: Parts, collection: Collection, space_id: str, progress: ReportCount
    ) -> None:
        self._parts = parts
        self._collection = collection
        self._space_id = space_id
        self._progress = progress
        self._spaces = Spaces(parts.database)
        self._ledger = Ledger(parts.database)
        self._of: int | None = None
        self._done = 0

    def make_known(self) -> None:
        """Fetch, decode, embed and store everything that is missing now."""
        if self._of is None:
            self._of = self._spaces.work(self._collection, self._space_id).objects
        with _looking(self._parts) as look:
            for page in self._spaces.lacking(self._collection, self._space_id):
                self._look_at(page, look)

    def _look_at(self, page: Sequence[Lacking], look: "_Look") -> None:
        """One object is fetched for all with the same bytes, unless it is gone."""
        groups: dict[bytes, list[Lacking]] = {}
        for row in page:
            groups.setdefault(row.content_sha256, []).append(row)
        waiting = list(groups.values())
        while waiting:
            again: list[list[Lacking]] = []
            for part, results in _ahead(_slices(waiting), look):
                again += self._store(part, self._embed(results))
            waiting = again

    def _store(
        self, part: Sequence[list[Lacking]], judged: Sequence[Judged]
    ) -> list[list[Lacking]]:
        found: list[tuple[int, Judged]] = []
        again = []
        for group, item in zip(part, judged, strict=True):
            speaks_for_all = item.finding in ("embedded", "rejected")
            for row in group if speaks_for_all else group[:1]:
                found.append((row.object_id, replace(item, version=row.version)))
            if not speaks_for_all and len(group) > 1:
                again.append(group[1:])
        self._spaces.put(self._collection, self._space_id, found)
        self._done += len(found)
        self._progress("embedding", self._done, max(self._done, self._of or 0))
        return again

    def _embed(self, results: Sequence["_Looked"]) -> list[Judged]:
        pixels = {r.image.pixel_sha256: r.image for r in results if r.image is not None}
        known = self._ledger.embeddings(self._space_id, list(pixels))
        fresh = {p: image for p, image in pixels.items() if p not in known}
        vectors, failures = _vectors(self._parts.embedder, fresh)
        return [_judged(result, vectors, failures) for result in results]


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """The result of fetching and decoding one object."""

    row: Lacking
    image: DecodedImage | None = None
    finding: Finding = "embedded"
    reason: str = ""
    detail: str = ""


_Look = Callable[[Sequence[list[Lacking]]], list[_Looked]]


@contextmanager
def _looking(parts: Parts) -> Iterator[_Look]:
    """A function that fetches and decodes the first of each group."""
    with ThreadPoolExecutor(parts.fetch_threads) as pool:

        def look(part: Sequence[list[Lacking]]) -> list[_Looked]:
            rows = [group[0] for group in part]
            bodies = list(pool.map(lambda row: _fetched(parts.objects, row), rows))
            blobs = [body for body in bodies if isinstance(body, bytes)]
            decoded = iter(parts.decoder.decode(blobs) if blobs else [])
            return [
                _decoded(row, next(decoded)) if isinstance(body, bytes) else body
                for row, body in zip(rows, bodies, strict=True)
            ]

        yield look


def _fetched(objects: ObjectStore, row: Lacking) -> "bytes | _Looked":
    """The bytes, or what became of the object. Raises TransientError or DependencyDownError."""
    for attempt in range(1, _TRIES + 1):
        try:
            body = objects.fetch(row.version, max_bytes=MAX_OBJECT_BYTES).body
            return body or _Looked(row, None, "rejected", "empty")
        except ObjectGoneError as error:
            return _Looked(row, None, "gone", error.reason)
        except PermanentError as error:
            finding: Finding = "rejected" if error.reason in _REJECTED else "failed"
            return _Looked(row, None, finding, error.reason, error.detail)
        except TransientError:
            if attempt == _TRIES:
                raise
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _decoded(row: Lacking, result: DecodeResult) -> _Looked:
    if isinstance(result, DecodeFailure):
        return _Looked(row, None, "rejected", result.reason, result.detail)
    return _Looked(row, result)


def _vectors(
    embedder: Embedder, images: dict[bytes, DecodedImage]
) -> tuple[dict[bytes, Any], dict[bytes, str]]:
    """Vectors, and why there is none, by pixel hash."""
    pixels = list(images)
    vectors: dict[bytes, Any] = {}
    failures: dict[bytes, str] = {}
    for start in range(0, len(pixels), embedder.batch_size):
        part = pixels[start : start + embedder.batch_size]
        result = embedder.embed([images[p].model_input for p in part])
        vectors |= {
            part[i]: row for i, row in zip(result.kept_indices, result.embeddings, strict=True)
        }
        failures |= {part[i]: why for i, why in result.failures.items()}
    return vectors, failures


def _judged(result: _Looked, vectors: dict[bytes, Any], failures: dict[bytes, str]) -> Judged:
    row, image = result.row, result.image
    if image is None:
        detail = {"message": result.detail.replace("\0", "")[:500]} if result.detail else {}
        return Judged(row.version, result.finding, result.reason, detail=detail)
    if image.pixel_sha256 in failures:
        return Judged(row.version, "failed", failures[image.pixel_sha256])
    return Judged(
        row.version, "embedded", content_sha256=row.content_sha256,
        pixel_sha256=image.pixel_sha256, embedding=vectors.get(image.pixel_sha256),
        look=image.look,
    )  # fmt: skip


def _slices(groups: Sequence[list[Lacking]]) -> Iterator[list[list[Lacking]]]:
    """Groups in runs that fit into memory."""
    part: list[list[Lacking]] = []
    size = 0
    for group in groups:
        more = group[0].size_bytes or 0
        if part and (len(part) == _SLICE or size + more > _SLICE_BYTES):
            yield part
            part, size = [], 0
        part.append(group)
        size += more
    if part:
        yield part


def _ahead(
    slices: Iterator[list[list[Lacking]]], look: _Look
) -> Iterator[tuple[list[list[Lacking]], list[_Looked]]]:
    """Each slice with its results; the next one is prepared in the meantime."""
    with ThreadPoolExecutor(1) as ahead:
        pending = None
        for part in slices:
            following = part, ahead.submit(look, part)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = following
        if pending is not None:
            yield pending[0], pending[1].result()


def _side(space: EmbeddingSpace) -> str:
    return space.recipe_id.rpartition("-")[2]
