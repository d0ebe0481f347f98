"""Watches of a ledger: what arrivals are compared with, what a list shows, what is to be announced.

The start of a watch decides what it sees. It is written while the collection is shared: running
turns have ended, later ones wait. So every turn after ``from_seq`` finds the new token under its
lock and compares once more where it was planned with older watches; what was decided up to
``from_seq`` is the past, which ``past_vectors`` reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger.history import insert_hits, share
from pixsift.adapters.postgres.copying import copy_vectors
from pixsift.adapters.postgres.database import Connection, Cursor, Database
from pixsift.core.collection import Collection
from pixsift.core.watching import Aim, Halves, Match, Matcher
from pixsift.errors import ConflictError, TransientError
from pixsift.sql import statements

_SQL = statements("watches")
Facts = dict[str, Any]
MOST_WATCHES = 1000
"""Open watches of one collection at a time: an arrival is compared with all of them."""


def token_asked(connection: Connection, collection_id: int) -> Cursor:
    """Send the question; ``token_of`` reads the answer."""
    return connection.execute(_SQL["watch_token"], {"collection_id": collection_id})


def token_of(answer: Cursor) -> UUID | None:
    """The token of a collection's present watches; None: it never had one."""
    row = answer.fetchone()
    return None if row is None else row[0]


class KnownWatches:
    """The watches of each collection, as a process read them last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[tuple[int, str], tuple[UUID, Matcher]] = {}

    def of(self, connection: Connection, collection: Collection, token: UUID | None) -> Matcher:
        """The watches of this token; read again if the token has changed."""
        if token is None:
            return Matcher.empty()
        key = (collection.collection_id, collection.space_id)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known[0] == token:
            return known[1]
        matcher = read_matcher(connection, *key)
        with self._lock:
            self._known[key] = (token, matcher)
        return matcher


def read_matcher(
    connection: Connection, collection_id: int, space_id: str, watch_id: int | None = None
) -> Matcher:
    """The open watches of a collection in its space, or one of them."""
    return matcher_of(matcher_asked(connection, collection_id, space_id, watch_id))


def matcher_asked(
    connection: Connection, collection_id: int, space_id: str, watch_id: int | None = None
) -> Cursor:
    """Send the question; ``matcher_of`` reads the answer."""
    names = {"collection_id": collection_id, "space_id": space_id, "watch_id": watch_id}
    return connection.cursor(binary=True).execute(_SQL["matched_by"], names)


def matcher_of(answer: Cursor) -> Matcher:
    """What arrivals are compared with."""
    return Matcher(Aim(*row) for row in answer.fetchall())


@dataclass(frozen=True, slots=True, eq=False)
class NewWatch:
    """A watch to be written."""

    name: str
    max_distance: float
    condition: Mapping[str, Any]
    duplicates: bool
    destination: str
    examples: Sequence[Sequence[str]]
    pixels: Sequence[bytes]
    modes: Halves
    """(T, D)."""
    against: Halves
    """(C, D)."""
    created_by: str


class WatchRows:
    """Reads and writes watches and their hits. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, collection: Collection, new: NewWatch) -> int:
        """Begin a watch; its id. Raises ConflictError for a name that is taken or one too many,
        TransientError where the collection moved to another space meanwhile."""
        names = {
            "collection_id": collection.collection_id, "name": new.name,
            "space_id": collection.space_id, "max_distance": new.max_distance,
            "condition": Jsonb(dict(new.condition)), "duplicates": new.duplicates,
            "destination": new.destination, "examples": Jsonb([list(e) for e in new.examples]),
            "example_pixels": list(new.pixels), "created_by": new.created_by,
        }  # fmt: skip
        modes, against = len(new.modes), len(new.against)
        with self._database.transaction() as connection:
            if share(connection, collection) != collection.space_id:
                raise TransientError(f"collection {collection.name} has moved to another space")
            connection.execute(
                _SQL["change_watches"], names
            )  # the next change waits here for this one
            count = connection.execute(_SQL["count_open"], names).fetchone()
            if count is not None and count[0] >= MOST_WATCHES:
                raise ConflictError(
                    f"collection {collection.name!r} has {count[0]} watches, the most there can "
                    "be: end some", code="too_many_watches",
                )  # fmt: skip
            row = connection.execute(_SQL["insert_watch"], names).fetchone()
            if row is None:
                raise ConflictError(
                    f"collection {collection.name!r} has a watch named {new.name!r}: end it, or "
                    "choose another name", code="watch_exists",
                )  # fmt: skip
            vectors = {
                "watch_id": row[0],
                "is_against": [False] * modes + [True] * against,
                "modes": [*range(modes), *range(against)],
                "embeddings": [*new.modes, *new.against],
            }
            connection.execute(_SQL["insert_watch_vectors"], vectors)
            return int(row[0])

    def end(self, watch_id: int, *, why: str) -> bool:
        """End a watch; False where it is not open."""
        with self._database.transaction() as connection:
            names = {"watch_id": watch_id, "why": why}
            row = connection.execute(_SQL["end_watch"], names).fetchone()
            if row is not None:
                connection.execute(_SQL["change_watches"], {"collection_id": row[0]})
            return row is not None

    def watches(
        self, *, collection: str | None = None, watch_id: int | None = None,
        ended: bool = False, limit: int = 1000,
    ) -> list[Facts]:  # fmt: skip
        """The newest first; ended: those that have ended as well."""
        names = {"collection": collection, "watch_id": watch_id, "ended": ended, "limit": limit}
        return self._rows("watches", names)

    def hits(self, watch_id: int, *, before: int | None, limit: int) -> list[Facts]:
        """The newest first."""
        return self._rows("hits", {"watch_id": watch_id, "before": before, "limit": limit})

    def hits_between(
        self, collection: str, from_seq: int, to_seq: int, *, limit: int
    ) -> tuple[list[Facts], list[Facts]]:
        """Counts by watch of a span of turns, and the newest hits."""
        names = {"name": collection, "from_seq": from_seq, "to_seq": to_seq, "limit": limit}
        counts = self._rows("count_hits_between", names)
        return counts, self._rows("hits_between", names) if counts else []

    def past(
        self, collection: Collection, dimension: int, *, duplicates: bool
    ) -> Iterator[tuple[NDArray[np.int64], Halves]]:
        """Object ids (N,) and vectors (N, D) of what is kept now, in blocks."""
        names = {
            "collection_id": collection.collection_id, "space_id": collection.space_id,
            "outcomes": ["kept", "duplicate"] if duplicates else ["kept"],
        }  # fmt: skip
        with self._database.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            for rows, halves in copy_vectors(
                connection, _SQL["past_vectors"], names, bigints=1, dimension=dimension
            ):
                yield rows[:, 0], halves

    def matcher(self, collection: Collection, watch_id: int) -> Matcher:
        """Of one watch."""
        with self._database.connection() as connection:
            return read_matcher(connection, collection.collection_id, collection.space_id, watch_id)

    def note_past(self, found: Sequence[tuple[int, Match]]) -> int:
        """Hits that were found in the past; how many were new."""
        if not found:
            return 0
        with self._database.connection() as connection:
            return insert_hits(connection, found, seq=None).rowcount

    def claim(self, *, limit: int, seconds: float) -> list[Facts]:
        """Hits to announce, no other process's for ``seconds``."""
        return self._rows("claim_hits", {"limit": limit, "seconds": seconds})

    def announced(self, hit_ids: Sequence[int]) -> None:
        """Record that the bus has accepted them."""
        with self._database.connection() as connection:
            connection.execute(_SQL["mark_hits_announced"], {"hit_ids": list(hit_ids)})

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[Facts]:
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(_SQL[name], names).fetchall()
