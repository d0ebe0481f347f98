"""What a search by example reads from the ledger: filters, pixels, what a list shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


FEW = 64
"""Rows that are read by a prepared statement, what a list shows of them included."""


@dataclass(frozen=True, slots=True, eq=False)
class ExampleRows:
    """What a search needs of its examples."""

    vectors: Mapping[int, NDArray[np.float64]]
    """(D,) as stored, by object."""
    pixels: frozenset[bytes]
    kept: frozenset[int]
    """Kept images that show the very same pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidateRows:
    """What a search needs of its candidates."""

    object_ids: Ids
    vectors: NDArray[np.float64]
    """(N, D) as stored."""
    shown: Mapping[int, Facts]
    """Empty where there are many."""


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

    def examples(self, space_id: str, point: SeqPoint, object_ids: Sequence[int]) -> "ExampleRows":
        """The vectors and pixels of some objects; one without a vector in the space is left out."""
        names = {**_of(point), "space_id": space_id, "object_ids": list(object_ids)}
        with self._database.connection() as connection:
            rows = connection.cursor(binary=True).execute(_SQL["examples"], names).fetchall()
        return ExampleRows(
            {row[0]: row[2].astype(np.float64) for row in rows},
            frozenset(bytes(row[1]) for row in rows),
            frozenset(row[3] for row in rows if row[3] is not None),
        )  # fmt: skip

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

    def candidates(self, space_id: str, point: SeqPoint, object_ids: Ids) -> "CandidateRows":
        """Of some images, ascending: vectors and, of a few, what a list shows, in one trip."""
        if len(object_ids) > FEW:
            return CandidateRows(*self.vectors(space_id, point.dimension, object_ids), {})
        names = {**_of(point), "space_id": space_id, "object_ids": object_ids.tolist()}
        with self._database.connection() as connection, connection.pipeline():
            vectors = connection.cursor(binary=True).execute(_SQL["few_vectors"], names)
            shown = connection.cursor(row_factory=dict_row).execute(_SQL["shown"], names)
            found, facts = vectors.fetchall(), shown.fetchall()
        halves = np.array([row[1] for row in found], np.float64).reshape(-1, point.dimension)
        ids = np.array([row[0] for row in found], np.int64)
        return CandidateRows(ids, halves, {row["object_id"]: row for row in facts})

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
