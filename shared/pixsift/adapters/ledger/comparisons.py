"""Two generations of a collection side by side, at one point of its history."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.sql import statements

_SQL = statements("comparisons")


@dataclass(frozen=True, slots=True)
class Share:
    """Objects with one outcome in the first generation and one in the second."""

    was: str
    becomes: str
    objects: int
    other_representative: int
    """Of duplicates in both: how many have another representative."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An object that only one of the two calls a duplicate."""

    object_id: int
    representative: int | None
    distance: float | None
    """In the space of the generation that calls it a duplicate."""
    reason: str


class Comparisons:
    """Compares generation ``generation`` with ``other`` at ``seq``."""

    def __init__(
        self, database: Database, collection: Collection, *, generation: int, other: int, seq: int
    ) -> None:
        self._database = database
        self._names: dict[str, Any] = {
            "collection_id": collection.collection_id, "generation": generation, "other": other,
            "seq": seq,
        }  # fmt: skip

    def shares(self) -> Sequence[Share]:
        """Every pair of outcomes that there is."""
        with self._database.connection() as connection:
            rows = connection.execute(_SQL["shares"], self._names).fetchall()
        return [Share(*row) for row in rows]

    def disagreements(self, was: str, becomes: str, *, most: int) -> Sequence[Disagreement]:
        """At most ``most`` objects with these outcomes, evenly from nearest to farthest."""
        names = self._names | {"was": was, "becomes": becomes, "most": most}
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=class_row(Disagreement)) as cursor,
        ):
            return cursor.execute(_SQL["disagreements"], names).fetchall()
