"""The objects in an embedding space whose generation is still being built.

For each object one row: the hash of its pixels by the space's recipe, whose vector is stored as any
other, or why it has none. The rows are facts and outlive the process that writes them: after a
kill, the next run continues there. Nothing here decides anything. Rows are written while the
collection is held as it is (``history.share``), so that neither an erasure nor a switch is missed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.decision_batch import object_columns
from pixsift.adapters.ledger.decision_plan import Marks, read_salt
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged, one_per_version
from pixsift.core.second_look import SIGNAL_BYTES
from pixsift.core.successor import InSpace
from pixsift.errors import ConflictError, TransientError
from pixsift.sql import statements

_SQL = statements("spaces")
_FACTS = statements("ledger")
PAGE: Final = 1024
"""Objects asked for at once."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A judged object that is not yet known in the space."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    content_sha256: bytes
    size_bytes: int | None

    @property
    def version(self) -> ObjectVersion:
        """Its identity."""
        return ObjectVersion(self.bucket, self.key, self.version_id)


@dataclass(frozen=True, slots=True)
class Work:
    """The work that remains for a space."""

    objects: int
    """Judged objects without a vector there."""
    fetches: int
    """GET requests: one for all objects with the same bytes."""
    bytes: int
    remembered: int
    """Expired images whose memory still filters; their bytes are gone."""


class Spaces:
    """Facts of one ledger's objects in spaces that are being built. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def work(self, collection: Collection, space_id: str) -> Work:
        """The work that remains now."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Work))
            found = cursor.execute(_SQL["work"], _names(collection, space_id)).fetchone()
        assert found is not None  # noqa: S101 - an aggregate has one row
        return found

    def lacking(self, collection: Collection, space_id: str) -> Iterator[list[Lacking]]:
        """Pages of the objects that must be fetched, in the order of their ids.

        What a generation of the space has judged before, and what has the same bytes as an object
        that the space knows, is taken from there.
        """
        after = 0
        names = _names(collection, space_id)
        while True:
            asked = {**names, "after": after, "limit": PAGE}
            with self._database.connection() as connection:
                page = _lacking(connection, asked)
                if not page:
                    return
                before, after = after, page[-1].object_id
                if self._take_known(connection, collection, space_id, page):
                    page = _lacking(connection, {**asked, "after": before, "limit": len(page)})
                    page = [row for row in page if row.object_id <= after]
            if page:
                yield page

    def sample(self, collection: Collection, space_id: str, count: int) -> list[Lacking]:
        """A few of the missing objects; nothing is changed."""
        with self._database.connection() as connection:
            asked = {**_names(collection, space_id), "after": 0, "limit": count}
            return _lacking(connection, asked)

    def take_known(self, collection: Collection, space_id: str) -> int:
        """Take what is known without fetching; returns how many objects are still missing."""
        return sum(len(page) for page in self.lacking(collection, space_id))

    def put(
        self, collection: Collection, space_id: str, found: Sequence[tuple[int, Judged]]
    ) -> None:
        """Store what was found of objects (by their ids); what an erasure has marked is left out.

        An ``embedded`` one brings its vector, unless the space has one for these pixels.
        """
        with self._database.transaction() as connection:
            self._hold(connection, collection)
            _put(connection, collection, space_id, found)

    def moving(self, space_id: str) -> dict[int, bool]:
        """Collections of other spaces that are being built in this one (True), or have left it
        (False)."""
        with self._database.connection() as connection:
            return dict(connection.execute(_SQL["moving"], {"space_id": space_id}).fetchall())

    def put_arrivals(self, collection: Collection, space_id: str, judged: Sequence[Judged]) -> None:
        """What a consumer of the space found of arrivals that it is about to acknowledge.

        From here on the switch waits until the generation in use has decided them. Raises
        TransientError where the space is no longer being built: the arrival must be judged again,
        possibly in the collection's own space.
        """
        items = [item for item in one_per_version(judged) if item.finding != "gone"]
        if not items:
            return
        columns = object_columns(collection, items)
        with self._database.transaction() as connection:
            connection.execute(_FACTS["upsert_objects"], columns)
            ids = [row[0] for row in connection.execute(_FACTS["object_ids"], columns).fetchall()]
            self._hold(connection, collection)
            names = _names(collection, space_id)
            row = connection.execute(_SQL["is_being_built"], names).fetchone()
            if row is None or not row[0]:
                raise TransientError(
                    f"collection {collection.name} is no longer being built in space {space_id}"
                )
            _put(connection, collection, space_id, list(zip(ids, items, strict=True)))
            connection.execute(_SQL["note_arrivals"], {**names, "object_ids": ids})

    def _hold(self, connection: Connection, collection: Collection) -> None:
        held = history.share(connection, collection)
        if held is None:
            raise TransientError(f"collection {collection.name} is gone")
        history.check_space(collection, held)

    def _take_known(
        self,
        connection: Connection,
        collection: Collection,
        space_id: str,
        page: Sequence[Lacking],
    ) -> int:
        names = {"space_id": space_id, "object_ids": [row.object_id for row in page]}
        with connection.transaction():
            self._hold(connection, collection)
            return sum(
                connection.execute(_SQL[name], names).rowcount
                for name in ("take_from_decisions", "take_from_same_bytes")
            )


def in_space(
    connection: Connection, space_id: str, object_ids: Sequence[int]
) -> dict[int, InSpace]:
    """What became of these objects in a space, by object id."""
    names = {"space_id": space_id, "object_ids": list(object_ids)}
    rows = connection.execute(_SQL["in_space"], names).fetchall()
    return {row[0]: InSpace(*row[1:]) for row in rows}


def lacks_any(connection: Connection, collection_id: int, space_id: str, **since: int) -> bool:
    """Under the lock: whether ``generation`` has judged anything since ``seq`` that the space does
    not know."""
    names = {"collection_id": collection_id, "space_id": space_id, **since}
    row = connection.execute(_SQL["lacks_any"], names).fetchone()
    return row is not None and bool(row[0])


def undecided_arrivals(connection: Connection, collection_id: int, space_id: str) -> int:
    """Arrivals that consumers of the space have acknowledged, and that have no decision yet."""
    names = {"collection_id": collection_id, "space_id": space_id}
    connection.execute(_SQL["drop_decided_arrivals"], names)
    row = connection.execute(_SQL["count_arrivals"], names).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def alone(connection: Connection, collection: Collection) -> Iterator[None]:
    """Be the only process that builds a space of the collection. Raises ConflictError."""
    names = {"collection_id": collection.collection_id}
    row = connection.execute(_SQL["try_alone"], names).fetchone()
    if row is None or not row[0]:
        raise ConflictError(
            f"another process is embedding collection {collection.name!r} now: wait until it ends",
            code="embedding_runs",
        )
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute(_SQL["no_longer_alone"], names)


def _put(
    connection: Connection,
    collection: Collection,
    space_id: str,
    found: Sequence[tuple[int, Judged]],
) -> None:
    marks = Marks(read_salt(connection), [item for _, item in found])
    erased = marks.erased(marks.ask(connection))
    found = [(object_id, item) for object_id, item in found if item.version not in erased]
    if not found:
        return
    vectors = {
        item.pixel_sha256: item
        for _, item in found
        if item.finding == "embedded" and item.pixel_sha256 and item.embedding is not None
    }
    pixels = sorted(vectors)
    if pixels:
        connection.execute(
            _FACTS["insert_embeddings"],
            {
                "space_id": space_id,
                "pixels": pixels,
                "embeddings": [np.asarray(vectors[p].embedding, np.float16) for p in pixels],
                "looks": [vectors[p].look[:SIGNAL_BYTES] for p in pixels],
                "changes": [vectors[p].look[SIGNAL_BYTES:] for p in pixels],
            },
        )
    items = [item for _, item in found]
    _check_vectors(
        connection,
        space_id,
        {i.pixel_sha256 for i in items if i.finding == "embedded" and i.pixel_sha256},
    )
    connection.execute(
        _SQL["put_in_space"],
        {
            "space_id": space_id,
            "object_ids": [object_id for object_id, _ in found],
            "pixels": [i.pixel_sha256 if i.finding == "embedded" else None for i in items],
            "outcomes": [None if i.finding == "embedded" else i.finding for i in items],
            "reasons": [item.reason for item in items],
            "details": [Jsonb(dict(item.detail)) for item in items],
        },
    )


def _check_vectors(connection: Connection, space_id: str, pixels: set[bytes]) -> None:
    """Raise TransientError where an erasure took a vector that was there a moment ago."""
    names = {"space_id": space_id, "pixel_sha256s": list(pixels)}
    row = connection.execute(_FACTS["count_vectors"], names).fetchone()
    if row != (len(pixels),):
        raise TransientError("a vector was erased meanwhile: the images will be embedded again")


def _lacking(connection: Connection, names: dict[str, Any]) -> list[Lacking]:
    with connection.cursor(row_factory=class_row(Lacking)) as cursor:
        return cursor.execute(_SQL["lacking"], names).fetchall()


def _names(collection: Collection, space_id: str) -> dict[str, Any]:
    return {"collection_id": collection.collection_id, "space_id": space_id}
