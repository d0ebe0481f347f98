"""Pages of images and of duplicate groups, read from the ledger as of one point of a collection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion
from pixsift.sql import statements

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """What a page is read at: a seq of a collection, its generation, and which history that is."""

    collection_id: int
    seq: int
    generation: int
    token: UUID


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What is known of an object by its id."""

    bucket: str
    key: str
    version_id: str
    thumbnail_key: str | None
    is_erased: bool
    format: str | None
    """As the decoder found it by content; None: it was never decoded."""

    @property
    def version(self) -> ObjectVersion:
        """Its identity."""
        return ObjectVersion(self.bucket, self.key, self.version_id)


class Browse:
    """Reads what people page through. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("browse")

    def point(self, collection: str, at_seq: int | None) -> Point | None:
        """The point of a collection, now if None; None for a seq in the future."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Point))
            names = {"name": collection, "at_seq": at_seq}
            return cursor.execute(self._sql["point"], names).fetchone()

    def page(self, point: Point, filters: Mapping[str, Any]) -> list[Facts]:
        """Images as of the point. filters: every name of the statement but the point's."""
        names = {
            **filters,
            "attributes": _json(filters["attributes"]),
            "quality": _json(filters["quality"]),
            **_of(point),
        }
        return self._rows("page", names)

    def groups(self, point: Point, filters: Mapping[str, Any]) -> list[Facts]:
        """Representatives that have duplicates now, in the order asked for."""
        return self._rows("groups", {**filters, **_of(point)})

    def members(self, point: Point, filters: Mapping[str, Any]) -> list[Facts]:
        """The duplicates of one representative now."""
        return self._rows("members", {**filters, **_of(point)})

    def facet(
        self, point: Point, *, attribute: str, outcome: str | None, limit: int
    ) -> list[Facts]:
        """Values of an attribute among the images with an outcome now."""
        names = {"attribute": attribute, "outcome": outcome, "limit": limit, **_of(point)}
        return self._rows("facet_counts", names)

    def version(self, object_id: int) -> KnownVersion | None:
        """The object of that id, if there is one."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(KnownVersion))
            return cursor.execute(self._sql["version_of"], {"object_id": object_id}).fetchone()

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[Facts]:
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(self._sql[name], names).fetchall()


def _of(point: Point) -> Facts:
    return {"collection_id": point.collection_id, "generation": point.generation,
            "seq": point.seq}  # fmt: skip


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return Jsonb(dict(value)) if value else None
