"""Finds candidates for a search by example, in the cheapest of three correct ways; each answer says
which one was used. *Resident*: every kept vector in memory, shared code with the consumer's mirror,
exact. *Scan*: the vectors of what the filter lets through are read from the ledger and compared,
exact; for filters that let little through, and where nothing else suffices. *Index*: pgvector's
HNSW with iterative scans plus the exact tail, for collections beyond the memory budget. If the
index ends before k images passed the filter, a scan answers instead: so an answer has fewer than k
images only if the collection has.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from pixsift.adapters.postgres.copying import copy_vectors
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.mirror import Mirror, NumpyBlocks, Slot, row_bytes, unit_rows
from pixsift.adapters.search.resident import SeqPoint, read_point, refreshed
from pixsift.sql import statements

_SQL = statements("find")
_BODY = statements("pgvector_search")
_MARGIN: Final = 1e-5
"""Ten times what float32 products of unit rows err by after a few turns of the axes: candidates
within it are kept, and the float64 order decides."""
_SCAN_SHARE: Final = 0.1
"""A share of the collection: reading this few vectors is cheaper than using the index."""
_EF_SEARCH: Final = 200
_MOST_FROM_INDEX: Final = 20_000
_OPENED_KEPT: Final = 8
"""Filters of which the open rows are kept, a byte a row, until the mirror changes."""
Ids = NDArray[np.int64]
How = Literal["resident", "scan", "index"]


@dataclass(frozen=True, slots=True, eq=False)
class Findable:
    """What a search may find. The same arrays again cost nothing: keep those that stay."""

    allowed: Ids | None = None
    """Ascending; None: everything kept."""
    gone: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Kept, but the image itself is gone."""
    own: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Not to be found by this query only."""

    @property
    def barred(self) -> Ids:
        """Never in the answer."""
        return np.concatenate([self.gone, self.own])


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates; the exact order is made from the stored vectors."""

    how: How
    is_exact: bool
    searched: int
    """Kept vectors in the collection."""
    object_ids: Ids
    """Ascending, without repetition."""


class ByExample:
    """Candidates from the kept vectors of a ledger's collections. Thread-safe."""

    def __init__(self, database: Database, *, memory_bytes: int) -> None:
        """memory_bytes: the most that the vectors of one collection may take here."""
        self._database = database
        self._memory_bytes = memory_bytes
        self._slots: dict[int, _Slot] = defaultdict(_Slot)

    def point(self, collection_id: int) -> SeqPoint:
        """The collection's present point."""
        with self._database.connection() as connection:
            return read_point(connection, collection_id)

    def fits(self, point: SeqPoint) -> bool:
        """Whether the collection's vectors fit the memory budget."""
        held = self._slots[point.collection_id].mirror
        if held is not None and held.generation == point.generation:
            count = held.count  # counting a million rows in the ledger takes longer than a search
        else:
            count = self._count(point)
        return count * row_bytes(point.dimension) <= self._memory_bytes

    def mean(
        self, point: SeqPoint, findable: Findable, *, beyond_kept: bool = False
    ) -> NDArray[np.float64]:
        """(D,) mean of the unit vectors that may be found; zeros where there are none."""
        if not beyond_kept and self.fits(point):
            with self._resident(point) as slot:
                return _mean(slot.current, slot.open_rows(findable))
        total, count = np.zeros(point.dimension), 0
        for ids, halves in self.blocks(point, findable.allowed):
            is_open = ~np.isin(ids, findable.barred)
            total += unit_rows(halves[is_open]).sum(axis=0, dtype=np.float64)
            count += int(is_open.sum())
        return total / max(1, count)

    def near(
        self, point: SeqPoint, aims: NDArray[np.float64], k: int, *,
        counterexamples: NDArray[np.float64], findable: Findable, exact: bool,
        beyond_kept: bool = False,
    ) -> Candidates:  # fmt: skip
        """At least the k best of every aim among what is findable, or all there are.

        aims: (T, D); counterexamples: (C, D), C may be 0. beyond_kept: not all of the allowed are
        kept.
        """
        if not beyond_kept and self.fits(point):
            with self._resident(point) as slot:
                found = _in_memory(slot.current, aims, counterexamples, k, slot.open_rows(findable))
                return Candidates("resident", True, slot.current.count, found)
        searched, allowed = self._count(point), findable.allowed
        is_selective = allowed is not None and len(allowed) <= _SCAN_SHARE * searched
        if beyond_kept:
            searched = 0 if allowed is None else len(allowed)
        if not beyond_kept and not exact and not is_selective and not len(counterexamples):
            indexed = self._through_index(point, aims, k, findable)
            if indexed is not None:
                return Candidates("index", False, searched, indexed)
        scanned = self._scanned(point, aims, counterexamples, k, findable)
        return Candidates("scan", True, searched, scanned)

    @contextmanager
    def _resident(self, point: SeqPoint) -> Iterator["_Slot"]:
        """The mirror at ``point`` or later, for as long as the block runs."""
        slot = self._slots[point.collection_id]
        with slot.lock:
            if not slot.is_at(point):
                with self._database.connection() as connection:
                    # Another search may have brought the mirror further: then to the present.
                    head = read_point(connection, point.collection_id)
                    mirror, slot.mirror = slot.mirror, None  # a failure leaves no half mirror
                    slot.opened.clear()
                    mirror = refreshed(connection, head, mirror, floor=-1, new_blocks=NumpyBlocks)
                _numpy(mirror).turn(mirror.count)
                slot.mirror = mirror
            yield slot

    def _count(self, point: SeqPoint) -> int:
        with self._database.connection() as connection:
            return _count(connection, point)

    def _scanned(
        self, point: SeqPoint, aims: NDArray[np.float64], against: NDArray[np.float64], k: int,
        findable: Findable,
    ) -> Ids:  # fmt: skip
        """One pass over the vectors, with the best of every aim so far."""
        wanted = aims.astype(np.float32).T
        best, barred = [_Best(k) for _ in aims], findable.barred
        for ids, halves in self.blocks(point, findable.allowed):
            is_open = ~np.isin(ids, barred)
            units = unit_rows(halves[is_open])
            products = units @ wanted
            if len(against):
                products -= (units @ against.astype(np.float32).T).max(axis=1, keepdims=True)
            for one, column in zip(best, products.T, strict=True):
                one.add(ids[is_open], column)
        return np.unique(np.concatenate([one.ids for one in best]))

    def blocks(
        self, point: SeqPoint, allowed: Ids | None = None
    ) -> Iterator[tuple[Ids, NDArray[np.float16]]]:
        """Ids (N,) and stored vectors (N, D) of what is kept now, read from the ledger in parts.

        allowed: only these, ascending.
        """
        names: dict[str, Any] = {"collection_id": point.collection_id,
                                 "generation": point.generation}  # fmt: skip
        with self._database.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            if allowed is None:
                for rows, halves in copy_vectors(
                    connection, _SQL["every_vector"], names, bigints=1, dimension=point.dimension
                ):
                    yield rows[:, 0], halves
                return
            space = _space_of(connection, point)
            for start in range(0, len(allowed), 16_384):
                part = {"object_ids": allowed[start : start + 16_384].tolist(), "space_id": space}
                for rows, halves in copy_vectors(
                    connection, _SQL["vectors"], part, bigints=1, dimension=point.dimension
                ):
                    yield rows[:, 0], halves

    def _through_index(
        self, point: SeqPoint, aims: NDArray[np.float64], k: int, findable: Findable
    ) -> Ids | None:
        """None where there is no index, or it ended before k images of each aim were allowed."""
        with self._database.connection() as connection, connection.transaction():
            names = {"collection_id": point.collection_id, "generation": point.generation}
            row = connection.execute(_BODY["body"], names).fetchone()
            if row is None:
                return None
            body, built_to = row
            # The tail: images newer than the body are compared exactly.
            tail = refreshed(connection, point, None, floor=built_to, new_blocks=NumpyBlocks)
            found = [_in_memory(tail, aims, aims[:0], k, _rows_open(tail, findable))]
            statement = sql.SQL(_SQL["body_nearest"]).format(body=sql.Identifier(body))
            connection.execute(
                _SQL["iterative"],
                {"ef_search": str(_EF_SEARCH), "most": str(4 * _MOST_FROM_INDEX)},
            )
            for aim in aims.astype(np.float16):
                ids = _enough(partial(_ask_body, connection, statement, aim), k, findable)
                if ids is None:
                    return None
                found.append(ids)
        return np.unique(np.concatenate(found))


class _Best:
    """The k largest so far, and what lies within the margin of the smallest of them."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.ids: Ids = np.empty(0, np.int64)
        self._values = np.empty(0, np.float32)

    def add(self, ids: Ids, values: NDArray[np.float32]) -> None:
        """Add more values."""
        self.ids = np.concatenate([self.ids, ids])
        self._values = np.concatenate([self._values, values])
        stays = best_of(self._values, self._k)
        self.ids, self._values = self.ids[stays], self._values[stays]


def best_of(values: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Where the k largest values are, and those within the margin of the smallest of them."""
    if len(values) <= k:
        return np.arange(len(values), dtype=np.intp)
    least = np.partition(values, len(values) - k)[len(values) - k]
    return np.flatnonzero(values >= least - _MARGIN).astype(np.intp)


class _Slot(Slot):
    """The mirror of one collection, and which of its rows were open to the latest filters."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: deque[tuple[Ids | None, Ids, NDArray[np.bool_]]] = deque(maxlen=_OPENED_KEPT)

    @property
    def current(self) -> Mirror:
        """The mirror, in a block of ``_resident``."""
        assert self.mirror is not None  # noqa: S101 - loaded there
        return self.mirror

    def is_at(self, point: SeqPoint) -> bool:
        """Whether the mirror is exactly the collection at this point."""
        mirror = self.mirror
        return mirror is not None and (mirror.generation, mirror.watermark, mirror.token) == (
            point.generation, point.seq, point.token
        )  # fmt: skip

    def open_rows(self, findable: Findable) -> NDArray[np.bool_] | None:
        """(count,) which rows may be found; None: all."""
        allowed, gone = findable.allowed, findable.gone
        if allowed is None and not len(gone):
            return _rows_open(self.current, findable) if len(findable.own) else None
        same = [rows for a, g, rows in self.opened if a is allowed and g is gone]
        if not same:
            same = [_all_open(self.current, findable)]
            self.opened.append((allowed, gone, same[0]))
        return _without(self.current, same[0].copy(), findable.own)


def _in_memory(
    mirror: Mirror, aims: NDArray[np.float64], against: NDArray[np.float64], k: int,
    is_open: NDArray[np.bool_] | None,
) -> Ids:  # fmt: skip
    blocks = _numpy(mirror)
    if len(against):
        wanted = np.concatenate([aims, against]).astype(np.float32)
        products = blocks.products(wanted, mirror.count)
        scores = products[: len(aims)] - products[len(aims) :].max(axis=0)
        if is_open is not None:
            scores[:, ~is_open] = -np.inf
        rows = [best_of(row, k) for row in scores]
        rows = [r[np.isfinite(s[r])] for r, s in zip(rows, scores, strict=True)]
    else:
        rows = blocks.top(aims.astype(np.float32), mirror.count, k, is_open, margin=_MARGIN)
    return np.unique(mirror.object_ids[np.concatenate(rows)]) if rows else np.empty(0, np.int64)


def _rows_open(mirror: Mirror, findable: Findable) -> NDArray[np.bool_]:
    """(count,) which rows may be found."""
    return _without(mirror, _all_open(mirror, findable), findable.own)


def _all_open(mirror: Mirror, findable: Findable) -> NDArray[np.bool_]:
    """(count,) which rows may be found by any query."""
    ids, allowed = mirror.object_ids[: mirror.count], findable.allowed
    is_open = np.ones(mirror.count, bool) if allowed is None else np.isin(ids, allowed)
    if len(findable.gone):
        is_open &= ~np.isin(ids, findable.gone)
    return is_open


def _without(mirror: Mirror, is_open: NDArray[np.bool_], object_ids: Ids) -> NDArray[np.bool_]:
    for object_id in object_ids.tolist():
        if (row := mirror.rows.get(object_id)) is not None:
            is_open[row] = False
    return is_open


def _numpy(mirror: Mirror) -> NumpyBlocks:
    assert isinstance(mirror.blocks, NumpyBlocks)  # noqa: S101 - as made here
    return mirror.blocks


def _mean(mirror: Mirror, is_open: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    return _numpy(mirror).mean(mirror.count, is_open)


def _ask_body(
    connection: Connection, statement: sql.Composed, aim: NDArray[np.float16], most: int
) -> list[tuple[int]]:
    return connection.execute(statement, {"query": aim, "most": most}).fetchall()


def _enough(ask: Callable[[int], list[tuple[int]]], k: int, findable: Findable) -> Ids | None:
    """Ask the index for more until k pass; None where the index ends before."""
    allowed, barred = findable.allowed, findable.barred
    most = max(2 * k + len(barred), _EF_SEARCH)
    while most <= _MOST_FROM_INDEX:
        ids = np.array([row[0] for row in ask(most)], np.int64)
        passing = ids[~np.isin(ids, barred)]
        if allowed is not None:
            passing = passing[np.isin(passing, allowed)]
        if len(passing) >= k:
            return passing
        if len(ids) < most:
            return None
        most *= 4
    return None


def _count(connection: Connection, point: SeqPoint) -> int:
    names = {"collection_id": point.collection_id, "generation": point.generation}
    row = connection.execute(_SQL["count_kept"], names).fetchone()
    return 0 if row is None else int(row[0])


def _space_of(connection: Connection, point: SeqPoint) -> str:
    row = connection.execute(
        statements("overview")["space_of"], {"collection_id": point.collection_id}
    ).fetchone()
    return "" if row is None else str(row[0])
