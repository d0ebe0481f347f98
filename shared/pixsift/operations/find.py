"""Finds images by example, for the command, the server and the console. Candidates come from the
cheapest source of vectors (``adapters.search.by_example``); the order is made from the stored
vectors in float64 (``core.retrieval``), which is also what a ``similar`` snapshot uses, so a search
on screen and the snapshot made of it hold the same images.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.find_rows import Facts, FindRows, Ids
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.by_example import ByExample, Candidates, Findable
from pixsift.adapters.search.resident import SeqPoint
from pixsift.api import Example, Hit, SearchAnswer, SearchAsk, SearchMode, SearchPlan
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.core.retrieval import (
    Aims,
    Way,
    aims_of,
    nearest_example,
    ranked,
    scores,
)
from pixsift.errors import TransientError
from pixsift.messages import Range, Where2
from pixsift.operations.browse import thumbnail_path
from pixsift.operations.embedder import ModelChoice, check_space, load_for
from pixsift.operations.examples import Embedded, Examples, Uploads, way_of
from pixsift.operations.retrieve import only_collection
from pixsift.ports import Embedder

_SAME = 1e-4
"""Cosine distance by which the half floats of one picture may differ between store and query."""
_FILTERS_KEPT = 32


@dataclass(slots=True)
class Finder:
    """Searches the collections of one ledger; keeps vectors in memory between searches."""

    database: Database
    memory_bytes: int = 2 << 30
    _by_example: ByExample = field(init=False)
    _rows: FindRows = field(init=False)
    _examples: Examples = field(init=False)
    _filters: dict[tuple[int, int, str, str], Ids] = field(default_factory=dict)
    _collections: dict[str, Collection] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._by_example = ByExample(self.database, memory_bytes=self.memory_bytes)
        self._rows = FindRows(self.database)
        self._examples = Examples(self.database)

    def find(self, ask: SearchAsk, uploads: Uploads | None = None) -> SearchAnswer:
        """See ``SearchAsk``. uploads: the vectors of files that came with the request.

        Raises NotFoundError for an unknown collection or example, RequestError where there is
        nothing to search by, or an example has no vector in the collection's space.
        """
        started = time.monotonic()
        collection, point = self._at(ask.collection)
        given = uploads or Uploads()
        found = self._examples.of(collection, point, ask, given)
        against = self._examples.embedded(collection, point, ask.counterexamples, given)
        way = way_of(ask, len(found.vectors))
        findable = Findable(
            self._allowed(point, ask.where, ask.outcome), self._gone(point),
            self._own(point, found, against, ask),
        )  # fmt: skip
        mean = np.zeros(point.dimension)
        if way != "nearest":
            mean = self._by_example.mean(point, findable, beyond_kept=ask.outcome != "kept")
        aims = aims_of(found.vectors, mean, way)
        hits, candidates = self._ranked(
            collection, point, ask, found=found, aims=aims, against=against.vectors,
            findable=findable,
        )  # fmt: skip
        modes = [
            SearchMode(
                mode=number, examples=[found.names[i] for i in members],
                hits=sum(hit.mode == number for hit in hits),
            )
            for number, members in enumerate(aims.members if way != "nearest" else ())
        ]  # fmt: skip
        return SearchAnswer(
            collection=collection.name, at_seq=point.seq, generation=point.generation, way=way,
            plan=SearchPlan(
                how=candidates.how, is_exact=candidates.is_exact, kept=candidates.searched,
                matching=None if findable.allowed is None else len(findable.allowed),
                milliseconds=round(1000 * (time.monotonic() - started), 3),
            ),
            modes=modes, hits=hits, failures=dict(given.failures),
        )  # fmt: skip

    def _at(self, name: str | None) -> tuple[Collection, SeqPoint]:
        """The collection and where it is now. What a search uses of a collection is fixed by its
        id and generation, so it is not read again while these hold."""
        known = self._collections.get(name) if name is not None else None
        if known is not None:
            try:
                point = self._by_example.point(known.collection_id)
            except TransientError:  # it is gone, and another one may have its name
                self._collections.pop(known.name, None)
            else:
                if point.generation == known.generation:
                    return known, point
        collection = only_collection(self.database, name)
        point = self._by_example.point(collection.collection_id)
        if name == collection.name and collection.generation == point.generation:
            self._collections[name] = collection
        return collection, point

    def _ranked(
        self, collection: Collection, point: SeqPoint, ask: SearchAsk, *, found: Embedded,
        aims: Aims, against: NDArray[np.float64], findable: Findable,
    ) -> tuple[list[Hit], Candidates]:  # fmt: skip
        """Hits in order. With bounds on the distance, more and more candidates until k fit."""
        most = ask.k
        while True:
            candidates = self._by_example.near(
                point, aims.vectors, most, counterexamples=against, findable=findable,
                exact=ask.exact, beyond_kept=ask.outcome != "kept",
            )  # fmt: skip
            rows = self._rows.candidates(collection.space_id, point, candidates.object_ids)
            vectors = rows.vectors
            order, by = ranked(scores(vectors, aims.vectors, against), most, in_turn=aims.in_turn)
            near, distances = nearest_example(vectors, found.vectors)
            inside = [
                (row, aim) for row, aim in zip(order.tolist(), by.tolist(), strict=True)
                if _is_within(ask.distance, float(distances[row]))
            ]  # fmt: skip
            is_all = len(order) < most or most >= candidates.searched
            if len(inside) >= ask.k or is_all or ask.distance is None:
                break
            most = min(4 * most, max(candidates.searched, 1))
        chosen = inside[: ask.k]
        results = [
            _Found(int(rows.object_ids[row]), float(distances[row]), int(near[row]), aim)
            for row, aim in chosen
        ]
        if ask.duplicates == "expanded":
            results = self._expanded(collection, point, results, found)[: ask.k]
        way = way_of(ask, len(found.vectors))
        return self._hits(point, results, found, rows.shown, way=way), candidates

    def _expanded(
        self, collection: Collection, point: SeqPoint, results: list["_Found"], found: Embedded
    ) -> list["_Found"]:
        """Each hit followed by its duplicates, nearest to the examples first."""
        rows = self._rows.duplicates_of(point, [each.object_id for each in results])
        own = found.object_ids
        ids = np.array(sorted(row["object_id"] for row in rows), np.int64)
        known, vectors = self._rows.vectors(collection.space_id, point.dimension, ids)
        near, distances = nearest_example(vectors, found.vectors)
        place = {int(i): n for n, i in enumerate(known)}
        behind: dict[int, list[_Found]] = {}
        by_id = {each.object_id: each for each in results}
        for row in rows:
            at = place.get(row["object_id"])
            if at is None or row["object_id"] in own or bytes(row["pixel_sha256"]) in found.pixels:
                continue
            hit = by_id[row["representative_object_id"]]
            behind.setdefault(hit.object_id, []).append(
                _Found(row["object_id"], float(distances[at]), int(near[at]), hit.mode)
            )  # fmt: skip
        unfolded: list[_Found] = []
        for each in results:
            others = sorted(behind.get(each.object_id, []), key=lambda f: (f.distance, f.object_id))
            unfolded += [each, *others]
        return unfolded

    def _hits(
        self, point: SeqPoint, results: Sequence["_Found"], found: Embedded,
        known: Mapping[int, Facts], *, way: Way,
    ) -> list[Hit]:  # fmt: skip
        missing = [each.object_id for each in results if each.object_id not in known]
        shown = {**known, **self._rows.shown(point, missing)} if missing else known
        hits: list[Hit] = []
        for each in results:
            row = shown.get(each.object_id)
            if row is None:
                continue
            hits.append(
                Hit(
                    rank=len(hits) + 1, object_id=each.object_id,
                    uri=ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri,
                    distance=each.distance, nearest_to=found.names[each.near],
                    mode=0 if way == "nearest" else each.mode,
                    is_itself=each.distance < _SAME, outcome=row["outcome"],
                    duplicate_of=row["representative_object_id"],
                    duplicates=row["duplicates"], attributes=row["attributes"],
                    captured_at=row["captured_at"],
                    thumbnail=thumbnail_path(each.object_id) if row["has_thumbnail"] else None,
                )
            )  # fmt: skip
        return hits

    def _own(self, point: SeqPoint, found: Embedded, against: Embedded, ask: SearchAsk) -> Ids:
        """Ids that this query must not find: counterexamples and, unless asked for, examples."""
        if ask.own:
            return np.array(sorted(against.object_ids), np.int64)
        mine = np.array(sorted(found.object_ids | against.object_ids | found.kept), np.int64)
        if ask.outcome != "kept":
            same = self._rows.with_pixels(sorted(found.pixels))
        elif found.sent:
            same = self._rows.kept_with_pixels(point, sorted(found.sent))
        else:
            return mine
        return np.unique(np.concatenate([same, mine]))

    def _gone(self, point: SeqPoint) -> Ids:
        """Ids of images that are gone; of one point they are read once."""
        return self._once(point, "gone", lambda: self._rows.remembered(point))

    def _allowed(self, point: SeqPoint, where: Where2, outcome: str) -> Ids | None:
        """Ids that pass the filter; of one point and one filter they are read once."""
        if where == Where2(flagged="include") and outcome == "kept":
            return None
        outcomes = ("kept", "duplicate") if outcome == "any" else (outcome,)
        return self._once(
            point, f"{outcome} {where.model_dump_json()}",
            lambda: self._rows.matching(point, where, outcomes),
        )  # fmt: skip

    def _once(self, point: SeqPoint, name: str, read: Callable[[], Ids]) -> Ids:
        """What ``read`` returns; of one point and name it is read once, while it is in use."""
        key = (point.collection_id, point.generation, f"{point.seq} {point.token}", name)
        with self._lock:
            known = self._filters.pop(key, None)
        found = read() if known is None else known
        with self._lock:
            while len(self._filters) >= _FILTERS_KEPT:
                self._filters.pop(next(iter(self._filters)))
            return self._filters.setdefault(key, found)


class QueryEmbedder:
    """Vectors of images that callers send, by a model that is loaded once, when first needed.

    Untrusted bytes are decoded in isolated processes, by the recipe that judges uploads.
    """

    def __init__(self, model: ModelChoice, *, workers: int = 1) -> None:
        self._model = model
        self._workers = workers
        self._embedder: Embedder | None = None
        self._decoder: DecoderPool | None = None
        self._lock = Lock()

    def uploads(self, files: Mapping[str, bytes], collection: Collection) -> Uploads:
        """Raises SettingError where the model makes other vectors than the collection's."""
        if not files:
            return Uploads()
        with self._lock:  # one model, one forward pass at a time
            embedder, decoder = self._ready(collection)
            decoded = dict(zip(files, decoder.decode(list(files.values())), strict=True))
            failures = {n: d.reason for n, d in decoded.items() if isinstance(d, DecodeFailure)}
            sound = [(n, d) for n, d in decoded.items() if isinstance(d, DecodedImage)]
            if not sound:
                return Uploads(failures=failures)
            result = embedder.embed([image.model_input for _, image in sound])
        failures |= {sound[i][0]: reason for i, reason in result.failures.items()}
        names = [sound[int(i)][0] for i in result.kept_indices]
        return Uploads(
            dict(zip(names, result.embeddings.astype(np.float16).astype(np.float64), strict=True)),
            {name: image.pixel_sha256 for name, image in sound}, failures,
        )  # fmt: skip

    def close(self) -> None:
        """Stop the decoder's processes."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.close()
                self._decoder = None

    def __enter__(self) -> "QueryEmbedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self, collection: Collection) -> tuple[Embedder, DecoderPool]:
        if self._embedder is None:
            self._embedder = load_for(self._model, collection)
        check_space(self._embedder, collection, self._model.name)
        if self._decoder is None:
            self._decoder = DecoderPool(self._embedder.input_side, workers=self._workers)
        return self._embedder, self._decoder


def find_by_files(
    database: Database, files: Sequence[Path], ask: SearchAsk, *, model: ModelChoice
) -> SearchAnswer:
    """``ask`` with files of this machine as further examples, by their paths; always exact.

    Raises as ``Finder.find`` does, and SettingError for a model of another embedding space.
    """
    collection = only_collection(database, ask.collection)
    uploads = uploads_of_files(files, collection, model=model)
    examples = [*ask.examples, *(Example(upload=str(path)) for path in files)]
    whole = ask.model_copy(update={"examples": examples, "exact": True})
    return Finder(database, memory_bytes=0).find(whole, uploads)


def uploads_of_files(
    files: Sequence[Path], collection: Collection, *, model: ModelChoice
) -> Uploads:
    """Vectors of files of this machine, by their paths. Raises SettingError for another model."""
    blobs: dict[str, bytes] = {}
    failures: dict[str, str] = {}
    for path in files:
        try:
            blobs[str(path)] = path.read_bytes()
        except OSError as error:
            failures[str(path)] = f"unreadable: {error.strerror}"
    with QueryEmbedder(model) as embedder:
        uploads = embedder.uploads(blobs, collection)
    return replace(uploads, failures={**uploads.failures, **failures})


@dataclass(frozen=True, slots=True)
class _Found:
    object_id: int
    distance: float
    near: int
    mode: int


def _is_within(bounds: Range | None, distance: float) -> bool:
    if bounds is None:
        return True
    low = -np.inf if bounds.min is None else bounds.min
    high = np.inf if bounds.max is None else bounds.max
    return bool(low <= distance <= high)
