"""Exact search over the kept vectors of a collection, held in memory as one matrix.

The mirror is refreshed to the collection's seq before each search and reports that seq as its
watermark. A stale mirror stays correct: a decision looks at everything newer under the lock.
It is of one history: a ledger that was restored, or another one behind the same name, has another
token at the mirror's watermark, or none, and then everything is read again.
The screen runs in float32 with a margin, so it proposes a few images too many, but never misses
one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.postgres.copying import CopiedRows, copy_vectors
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.cell_blocks import CellBlocks
from pixsift.adapters.search.mirror import Blocks, Mirror, Slot, unit_rows
from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.errors import TransientError
from pixsift.ports import Neighborhood
from pixsift.sql import statements

_SQL = statements("resident_search")


class ResidentSearch:
    """Implements ``NeighborSearch``. Thread-safe; one mirror per collection."""

    def __init__(
        self,
        database: Database,
        *,
        new_blocks: Callable[[int], Blocks] = CellBlocks,
        pause: Callable[[str], None] | None = None,
    ) -> None:
        """new_blocks: makes the storage for vectors of a dimension; pause: called with
        ``watermark_read``."""
        self._database = database
        self._new_blocks = new_blocks
        self._pause = pause
        self._slots: dict[int, Slot] = defaultdict(Slot)

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """See ``NeighborSearch.within``."""
        slot = self._slots[collection_id]
        with slot.lock:
            with self._database.connection() as connection:
                point = read_point(connection, collection_id)
                if self._pause is not None:
                    self._pause("watermark_read")
                mirror, slot.mirror = slot.mirror, None  # a failure must not leave half a mirror
                slot.mirror = refreshed(
                    connection, point, mirror, floor=-1, new_blocks=self._new_blocks
                )
            found = slot.mirror.within(unit_rows(queries), max_distance + SCREEN_MARGIN)
            return Neighborhood(point.seq, point.generation, point.token, found)

    def count(self, collection_id: int) -> int:
        """Vectors held for a collection."""
        mirror = self._slots[collection_id].mirror
        return 0 if mirror is None else mirror.count

    def forget(self, collection_id: int) -> None:
        """Give a collection's memory back."""
        with self._slots[collection_id].lock:
            self._slots[collection_id].mirror = None


@dataclass(frozen=True, slots=True)
class SeqPoint:
    """Where a collection is: everything up to ``seq`` is visible to later reads."""

    collection_id: int
    seq: int
    token: UUID
    """Of the turn with this seq."""
    generation: int
    dimension: int


def read_point(connection: Connection, collection_id: int) -> SeqPoint:
    """The watermark of a search; must be read before anything is searched."""
    row = connection.execute(_SQL["point"], {"collection_id": collection_id}).fetchone()
    if row is None:
        raise TransientError(f"collection {collection_id} is gone")
    return SeqPoint(collection_id, *row)


def refreshed(
    connection: Connection,
    point: SeqPoint,
    mirror: Mirror | None,
    *,
    floor: int,
    new_blocks: Callable[[int], Blocks],
) -> Mirror:
    """A mirror of the representatives newer than ``floor``, complete up to ``point``.

    The one given is brought up to date where it fits; otherwise a new one is loaded.
    """
    names: dict[str, Any] = {"collection_id": point.collection_id, "generation": point.generation}
    if mirror is None or not _is_of(connection, point, mirror, floor):
        mirror = Mirror(new_blocks(point.dimension), point.generation, floor)
        names["floor"] = floor
        for rows, halves in _load(connection, names, point.dimension):
            current = rows[:, 1] <= point.seq
            mirror.append(rows[current, 0], halves[current])
    elif mirror.watermark < point.seq:
        names["watermark"] = mirror.watermark
        with connection.pipeline():
            closed = connection.execute(_SQL["closed"], names)
            opened = connection.cursor(binary=True).execute(_SQL["opened"], names)
        mirror.remove([object_id for (object_id,) in closed.fetchall()])
        new = [row for row in opened.fetchall() if row[1] <= point.seq]
        if new:
            ids = np.array([row[0] for row in new], np.int64)
            mirror.append(ids, np.stack([row[2] for row in new]))
    mirror.watermark, mirror.token = point.seq, point.token
    return mirror


def _is_of(connection: Connection, point: SeqPoint, mirror: Mirror, floor: int) -> bool:
    """Whether the mirror can be brought up to ``point``: same generation, floor and history."""
    if (mirror.generation, mirror.floor) != (point.generation, floor):
        return False
    if mirror.watermark == point.seq:
        return mirror.token == point.token
    names = {"collection_id": point.collection_id, "watermark": mirror.watermark}
    row = connection.execute(_SQL["token_at"], names).fetchone()
    return mirror.watermark < point.seq and row is not None and row[0] == mirror.token


def _load(connection: Connection, names: dict[str, Any], dimension: int) -> Iterator[CopiedRows]:
    """All open representatives in blocks: object id and valid_from_seq (N, 2), halves (N, D)."""
    with connection.transaction():
        # A million rows take longer than any decision may.
        connection.execute("SET LOCAL statement_timeout = 0")
        yield from copy_vectors(connection, _SQL["load"], names, bigints=2, dimension=dimension)
