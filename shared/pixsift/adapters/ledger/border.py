"""Reads the pairs near the limits of a collection's rule, and what the rule compares of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import class_row, dict_row

from pixsift.adapters.ledger.generation_rows import Position
from pixsift.adapters.postgres.copying import copy_vectors
from pixsift.adapters.postgres.database import Connection
from pixsift.core.dedup import Halves
from pixsift.sql import statements

Facts = dict[str, Any]
_SQL = statements("border")


@dataclass(frozen=True, slots=True)
class NearPair:
    """An image and the kept one that decides about it."""

    object_id: int
    representative_object_id: int
    distance: float


@dataclass(frozen=True, slots=True)
class BorderRows:
    """One generation's pairs, over a connection."""

    connection: Connection
    collection_id: int
    at: Position

    def duplicates(self, limit: int) -> list[NearPair]:
        """Near-duplicates: the farthest, and a sample; up to twice ``limit``."""
        return self._pairs("duplicate_pairs", limit)

    def near_misses(self, limit: int) -> list[NearPair]:
        """Kept ones that had another within epsilon, the newest first."""
        return self._pairs("near_misses", limit)

    def newest_kept(self, limit: int) -> tuple[NDArray[np.int64], Halves]:
        """(N,) ids and (N, D) stored halves of the newest kept images, in the order of arrival."""
        names = {**self._names(), "limit": limit}
        blocks = list(copy_vectors(
            self.connection, _SQL["newest_kept"], names, bigints=1, dimension=self.at.dimension
        ))  # fmt: skip
        if not blocks:
            return np.empty(0, np.int64), np.empty((0, self.at.dimension), np.float16)
        ids = np.concatenate([rows[:, 0] for rows, _ in blocks])
        return ids, np.concatenate([halves for _, halves in blocks])

    def looks(self, object_ids: Iterable[int]) -> dict[int, bytes]:
        """Signals of the second look and of the test for change, by object."""
        names = {**self._names(), "space_id": self.at.space_id, "object_ids": list(object_ids)}
        return {row["object_id"]: bytes(row["look"] or b"") for row in self._rows("looks", names)}

    def shown(self, object_ids: Iterable[int]) -> dict[int, Facts]:
        """What is shown of images that are not erased, by id."""
        rows = self._rows("shown", {"object_ids": list(object_ids)})
        return {row["object_id"]: row for row in rows}

    def _pairs(self, name: str, limit: int) -> list[NearPair]:
        statement: LiteralString = _SQL[name]
        with self.connection.cursor(row_factory=class_row(NearPair)) as cursor:
            return cursor.execute(statement, {**self._names(), "limit": limit}).fetchall()

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[Facts]:
        statement: LiteralString = _SQL[name]
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, names).fetchall()

    def _names(self) -> Facts:
        return {"collection_id": self.collection_id, "generation": self.at.generation}
