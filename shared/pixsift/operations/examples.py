"""Examples of a query as vectors: images of the ledger, uploads, folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.ledger.find_rows import ExampleRows, FindRows
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.resident import SeqPoint
from pixsift.api import ByExamples, Example
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.retrieval import MOST_EXAMPLES, Way
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.browse import known_version
from pixsift.operations.explain import explain

MODES_FROM = 3
"""From this many examples on ``auto`` looks for modes: two examples cannot be grouped."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Examples with their vectors."""

    vectors: NDArray[np.float64]
    """(Q, D) as stored: rounded to half floats."""
    names: tuple[str, ...]
    object_ids: frozenset[int]
    """Those that are in the ledger."""
    pixels: frozenset[bytes]
    ids: tuple[int | None, ...] = ()
    """Per vector of a named example, its object; None: a file that came with the request."""
    kept: frozenset[int] = frozenset()
    """Kept images that show the very same pixels as examples of the ledger."""
    sent: frozenset[bytes] = frozenset()
    """Pixels of the files that came with the request."""


@dataclass(frozen=True, slots=True)
class Uploads:
    """Files that came with a request: their vectors, or why there are none."""

    vectors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """(D,) rounded as stored, by name."""
    pixels: Mapping[str, bytes] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


class Examples:
    """Finds the vectors of examples. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = FindRows(database)

    def of(
        self, collection: Collection, point: SeqPoint, ask: ByExamples, uploads: Uploads
    ) -> Embedded:
        """Those of a query, its folder included; at least one.

        Raises NotFoundError for an unknown example, RequestError where there are no examples,
        or an example has no vector in the collection's space.
        """
        found = self.embedded(collection, point, ask.examples, uploads)
        if ask.folder is not None:
            found = self.with_folder(collection, point, ask.folder, found)
        if not len(found.vectors):
            failed = "; ".join(f"{n}: {why}" for n, why in list(uploads.failures.items())[:3])
            raise RequestError(
                f"nothing to search by: no example has a vector ({failed or 'none was named'})",
                code="no_examples",
            )
        return found

    def embedded(
        self, collection: Collection, point: SeqPoint, examples: Sequence[Example],
        uploads: Uploads,
    ) -> Embedded:  # fmt: skip
        """Vectors of examples, in their order; of the ledger's as stored."""
        empty = np.empty((0, point.dimension))
        if not examples:
            return Embedded(empty, (), frozenset(), frozenset())
        ids = {n: self._object_id(e) for n, e in enumerate(examples) if e.upload is None}
        known = ExampleRows({}, frozenset(), frozenset())
        if ids:
            known = self._rows.examples(collection.space_id, point, sorted(set(ids.values())))
        rows: list[NDArray[np.float64]] = []
        names: list[str] = []
        of: list[int | None] = []
        for number, example in enumerate(examples):
            if example.upload is not None:
                if example.upload in uploads.failures:
                    continue
                if example.upload not in uploads.vectors:
                    raise RequestError(
                        f"no file {example.upload!r} came with the request", code="no_upload"
                    )
                rows.append(uploads.vectors[example.upload])
                names.append(example.upload)
                of.append(None)
                continue
            vector = known.vectors.get(ids[number])
            if vector is None:
                known_version(self._database, ids[number])
                raise RequestError(
                    f"image {ids[number]} has no vector in collection {collection.name!r}: it was "
                    "rejected, failed or erased, or another model made it",
                    code="no_vector",
                )
            rows.append(vector)
            names.append(example.uri or f"image {ids[number]}")
            of.append(ids[number])
        named = {example.upload for example in examples}
        sent = frozenset(hash_ for name, hash_ in uploads.pixels.items() if name in named)
        return Embedded(
            np.stack(rows) if rows else empty, tuple(names), frozenset(ids.values()),
            known.pixels | sent, tuple(of), known.kept, sent,
        )  # fmt: skip

    def with_folder(
        self, collection: Collection, point: SeqPoint, folder: str, found: Embedded
    ) -> Embedded:
        """With the newest kept images below a prefix behind the others."""
        uri = parsed(folder)
        ids = np.sort(self._rows.under_prefix(point, uri.bucket, uri.key, MOST_EXAMPLES))
        known, vectors = self._rows.vectors(collection.space_id, point.dimension, ids)
        if not len(known):
            raise NotFoundError(f"no kept image lies below {folder}", code="empty_folder")
        shown = self._rows.shown(point, known.tolist())
        names = [ObjectVersion(r["bucket"], r["key"], r["version_id"]).uri
                 for r in (shown[int(i)] for i in known)]  # fmt: skip
        pixels = set(self._rows.pixels_of(collection.space_id, known.tolist()).values())
        return Embedded(
            np.concatenate([found.vectors, vectors])[:MOST_EXAMPLES],
            (*found.names, *names)[:MOST_EXAMPLES],
            found.object_ids | frozenset(known.tolist()), found.pixels | frozenset(pixels),
            kept=found.kept, sent=found.sent,
        )  # fmt: skip

    def _object_id(self, example: Example) -> int:
        """Raises NotFoundError for a URI that the ledger does not know."""
        if example.object_id is not None:
            return example.object_id
        return explain(self._database, parsed(example.uri or ""))[0].object.object_id


def parsed(uri: str) -> S3Uri:
    """Raises RequestError for text that is not an S3 URI."""
    try:
        return S3Uri.parse(uri)
    except ValueError as error:
        raise RequestError(f"{uri!r} {error}", code="bad_uri") from error


def way_of(ask: ByExamples, examples: int) -> Way:
    """What ``auto`` means for so many examples."""
    if ask.way != "auto":
        return ask.way
    return "modes" if examples >= MODES_FROM else "nearest"
