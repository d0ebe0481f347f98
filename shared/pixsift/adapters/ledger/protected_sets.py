"""Evaluation sets in the ledger: declared, withdrawn, listed, and read with their pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.rows import class_row

from pixsift.adapters.ledger import history
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.collection import Collection
from pixsift.core.dedup import Halves
from pixsift.core.protection import Kind, Protected, Protection
from pixsift.errors import ConflictError, Remedy
from pixsift.sql import statements

_SQL = statements("protection")
_FRESH_SECONDS = 30.0
"""How old the pictures may be that arrivals are compared with: a prefix may have new ones."""


@dataclass(frozen=True, slots=True)
class ProtectedSet:
    """A set as it was declared."""

    protected_id: UUID
    kind: Kind
    snapshot_id: str | None
    snapshot_name: str | None
    bucket: str | None
    prefix: str | None
    folder: str | None
    distance: float
    who: str
    why: str
    declared_at: datetime
    withdrawn_at: datetime | None

    @property
    def source(self) -> str:
        """Its name for people."""
        if self.kind == "prefix":
            return f"s3://{self.bucket}/{self.prefix}"
        return self.folder or f"snapshot {self.snapshot_name} ({self.snapshot_id})"


@dataclass(frozen=True, slots=True, eq=False)
class NewSet:
    """A set to be declared; of snapshot, prefix and folder exactly one is given."""

    distance: float
    who: str
    why: str
    snapshot_id: str | None = None
    prefix: tuple[str, str] | None = None
    """Bucket, and what its keys begin with."""
    folder: str | None = None
    pictures: Mapping[bytes, Halves] | None = None
    """Of a folder: vector by pixel hash."""

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        if self.snapshot_id is not None:
            return "snapshot"
        return "folder" if self.prefix is None else "prefix"


class ProtectedSets:
    """The sets of one ledger's collections. Leaves no connection open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def declare(self, collection: Collection, new: NewSet) -> UUID:
        """Put a set into force. Raises ConflictError where pictures of it have no vector in the
        collection's space."""
        bucket, prefix = new.prefix or (None, None)
        names = {
            "collection_id": collection.collection_id, "kind": new.kind,
            "snapshot_id": new.snapshot_id, "bucket": bucket, "prefix": prefix,
            "folder": new.folder, "distance": new.distance, "who": new.who, "why": new.why,
        }  # fmt: skip
        pictures = new.pictures or {}
        with self._database.transaction() as connection:
            history.share(connection, collection)  # its seq is stored: keep-best needs it
            row = connection.execute(_SQL["declare"], names).fetchone()
            assert row is not None  # noqa: S101 - it returns what it inserts
            connection.execute(
                _SQL["add_images"],
                {"protected_id": row[0], "space_id": collection.space_id,
                 "pixels": list(pictures), "embeddings": list(pictures.values())},
            )  # fmt: skip
            read_protection(connection, collection.collection_id, collection.space_id)
        found: UUID = row[0]
        return found

    def withdraw(self, collection: Collection, protected_ids: Sequence[UUID]) -> list[UUID]:
        """End sets; returns those that were in force."""
        names = {"collection_id": collection.collection_id, "protected_ids": list(protected_ids)}
        with self._database.transaction() as connection:
            history.share(connection, collection)
            return [row[0] for row in connection.execute(_SQL["withdraw"], names).fetchall()]

    def sets(self, collection: Collection, *, withdrawn: bool = False) -> list[ProtectedSet]:
        """The sets in force, the oldest first; withdrawn: also those that were withdrawn."""
        with self._database.connection() as connection:
            return _sets(connection, collection.collection_id, withdrawn=withdrawn)

    def protection(self, collection: Collection) -> Protection:
        """The sets in force with their pictures. Raises ConflictError as ``declare`` does."""
        with self._database.connection() as connection:
            return read_protection(connection, collection.collection_id, collection.space_id)


class ArrivalGuard:
    """Finds arrivals near a protected picture. Thread-safe; reads the pictures now and then."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = Lock()
        self._held: dict[int, tuple[tuple[str, ...], float, Protection]] = {}
        """By collection: of which space and sets, and since when."""

    def protection(self, collection: Collection, in_force: Sequence[UUID]) -> Protection:
        """What arrivals are compared with. in_force: the ids of the sets, as read a moment ago."""
        state = (collection.space_id, *map(str, in_force))
        now = self._clock()
        with self._lock:
            held = self._held.get(collection.collection_id)
        if held is not None and held[0] == state and now - held[1] < _FRESH_SECONDS:
            return held[2]
        with self._database.connection() as connection:
            found = read_protection(
                connection, collection.collection_id, collection.space_id, complete=False
            )
        with self._lock:
            self._held[collection.collection_id] = (state, now, found)
        return found


def read_protection(
    connection: Connection,
    collection_id: int,
    space_id: str,
    *,
    pool: tuple[int, int] | None = None,
    complete: bool = True,
) -> Protection:
    """The sets in force with their pictures in a space.

    pool: generation and seq of a pool; its images that represent a picture are named then.
    Raises ConflictError where pictures have no vector in that space, unless not ``complete``.
    """
    sets = _sets(connection, collection_id, withdrawn=False)
    return Protection(
        tuple(
            _protected(connection, each, collection_id, space_id, pool=pool, complete=complete)
            for each in sets
        )
    )


def _protected(
    connection: Connection, each: ProtectedSet, collection_id: int, space_id: str, *,
    pool: tuple[int, int] | None, complete: bool,
) -> Protected:  # fmt: skip
    names: dict[str, Any] = {
        "protected_id": each.protected_id, "snapshot_id": each.snapshot_id,
        "bucket": each.bucket, "prefix": each.prefix, "space_id": space_id,
        "collection_id": collection_id,
    }  # fmt: skip
    if complete:
        row = connection.execute(_SQL["members_without_vector"], names).fetchone()
        if row is not None and row[0]:
            raise ConflictError(
                f"{row[0]} images of the evaluation set {each.source} have no vector in embedding "
                f"space {space_id}: nothing can keep away from them",
                code="not_embedded", remedy=Remedy("protect_again"),
            )  # fmt: skip
    cursor = connection.cursor(binary=True)
    rows = cursor.execute(_SQL["member_vectors"], names).fetchall()
    vectors = {bytes(pixels): halves for pixels, halves in rows}
    stand_for: frozenset[int] = frozenset()
    if pool is not None:
        asked = names | {"generation": pool[0], "at_seq": pool[1]}
        found = connection.execute(_SQL["stand_for_members"], asked).fetchall()
        stand_for = frozenset(row[0] for row in found)
    return Protected(
        each.protected_id, each.source, each.distance, tuple(vectors),
        np.stack(list(vectors.values())) if vectors else np.empty((0, 0), np.float16),
        stand_for, each.bucket, each.prefix or "",
    )  # fmt: skip


def _sets(connection: Connection, collection_id: int, *, withdrawn: bool) -> list[ProtectedSet]:
    names = {"collection_id": collection_id, "all": withdrawn}
    with connection.cursor(row_factory=class_row(ProtectedSet)) as cursor:
        return cursor.execute(_SQL["in_force"], names).fetchall()
