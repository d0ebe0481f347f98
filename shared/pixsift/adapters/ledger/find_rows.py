"""What a search by example reads from the ledger: filters, pixels, what a list shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.copying import copy_vectors
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.resident import SeqPoint
from pixsift.core.quality import FILE_CHECKS
from pixsift.messages import Where2, in_utc
from pixsift.sql import statements

Facts = dict[str, Any]
Ids = NDArray[np.int64]
_SQL = statements("find")


class FindRows:
    """Reads of one collection at a time. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def matching(self, point: SeqPoint, where: Where2, outcomes: Sequence[str] = ("kept",)) -> Ids:
        """Ids of the images with one of these outcomes that pass a filter, ascending."""
        quality = {name: bounds.model_dump() for name, bounds in where.quality.items()}
        after, before = where.captured_after, where.captured_before
        return self._ids("matching", {
            **_of(point), "prefix": where.prefix or None,
            "after": after and in_utc(after), "before": before and in_utc(before),
            "attributes": Jsonb(where.attributes) if where.attributes else None,
            "quality": Jsonb(quality) if quality else None,
            "flagged": where.flagged, "flags": where.flags or None,
            "file_checks": sorted(FILE_CHECKS), "outcomes": list(outcomes),
        })  # fmt: skip

    def remembered(self, point: SeqPoint) -> Ids:
        """Representatives whose image is gone."""
        return self._ids("remembered", _of(point))

    def under_prefix(self, point: SeqPoint, bucket: str, prefix: str, limit: int) -> Ids:
        """Kept images below a prefix, the newest first."""
        names = {**_of(point), "bucket": bucket, "prefix": prefix, "limit": limit}
        return self._ids("under_prefix", names)

    def references(self, space_id: str, bucket: str, prefix: str, limit: int) -> Ids:
        """Images below a prefix, in any collection, that have a vector in the space; ascending."""
        names = {"space_id": space_id, "bucket": bucket, "prefix": prefix, "limit": limit}
        return np.sort(self._ids("reference_under_prefix", names))

    def novelty(self, point: SeqPoint, asked: Mapping[str, Any]) -> list[Facts]:
        """Frames and kept images by group. asked: every name of the statement but the point's."""
        attributes = asked["attributes"]
        return self._rows("novelty", {
            **asked, **_of(point), "attributes": Jsonb(attributes) if attributes else None,
        })  # fmt: skip

    def pixels_of(self, space_id: str, object_ids: Sequence[int]) -> dict[int, bytes]:
        """Pixel hash by object, of those that have a vector in the space."""
        names = {"space_id": space_id, "object_ids": list(object_ids)}
        return {
            row["object_id"]: bytes(row["pixel_sha256"]) for row in self._rows("pixels_of", names)
        }

    def kept_with_pixels(self, point: SeqPoint, pixels: Sequence[bytes]) -> Ids:
        """Kept images that show the very same pixels."""
        return self._ids("kept_with_pixels", {**_of(point), "pixels": list(pixels)})

    def with_pixels(self, pixels: Sequence[bytes]) -> Ids:
        """Whatever shows the very same pixels, kept or not."""
        return self._ids("with_pixels", {"pixels": list(pixels)})

    def shown(self, point: SeqPoint, object_ids: Sequence[int]) -> dict[int, Facts]:
        """What a list shows of some images, by id."""
        rows = self._rows("shown", {**_of(point), "object_ids": list(object_ids)})
        return {row["object_id"]: row for row in rows}

    def duplicates_of(self, point: SeqPoint, object_ids: Sequence[int]) -> list[Facts]:
        """The duplicates of some kept images."""
        return self._rows("duplicates_of", {**_of(point), "object_ids": list(object_ids)})

    def vectors(
        self, space_id: str, dimension: int, object_ids: Ids
    ) -> tuple[Ids, NDArray[np.float64]]:
        """The stored vectors of some objects, by ascending id; an erased one has none."""
        names = {"space_id": space_id, "object_ids": object_ids.tolist()}
        with self._database.connection() as connection:
            blocks = list(copy_vectors(
                connection, _SQL["vectors"], names, bigints=1, dimension=dimension
            ))  # fmt: skip
        if not blocks:
            return np.empty(0, np.int64), np.empty((0, dimension))
        ids = np.concatenate([rows[:, 0] for rows, _ in blocks])
        return ids, np.concatenate([halves for _, halves in blocks]).astype(np.float64)

    def _ids(self, name: str, names: Mapping[str, Any]) -> Ids:
        with self._database.connection() as connection:
            rows = connection.execute(_SQL[name], names).fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[Facts]:
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(_SQL[name], names).fetchall()


def _of(point: SeqPoint) -> Facts:
    return {"collection_id": point.collection_id, "generation": point.generation}
