"""Search with pgvector: an HNSW body filled outside the lock, plus an exact tail.

The body is a table per generation, complete up to a seq; what is newer is the tail, held as a
small mirror and searched exactly. So graph inserts never sit inside a decision, and the search
misses only what the graph misses. Misses are measured and repaired by ``pixsift audit``.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, LiteralString

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.mirror import NumpyBlocks, Slot, unit_rows
from pixsift.adapters.search.resident import SeqPoint, read_point, refreshed
from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.errors import DependencyDownError, PixsiftError
from pixsift.ports import Neighborhood
from pixsift.sql import statements

_SQL = statements("pgvector_search")
_HISTORY = statements("history")
_LOG = logging.getLogger(__name__)
_QUERIES_PER_LANE = 8
SOUND_PGVECTOR = (0, 8, 4)
"""Older ones can corrupt HNSW under concurrent insert and vacuum (pgvector changelog)."""


@dataclass(frozen=True, slots=True)
class HnswParameters:
    """Chosen by recall at epsilon in burst order; see docs/search.md."""

    m: int = 16
    ef_construction: int = 400
    ef_search: int = 200
    """Candidates per query, and the most neighbors the index is asked for."""
    first_rows: int = 16
    """Neighbors asked for at first: each costs a visit to the table, and few images have more."""
    lanes: int = 2
    """Connections that share the queries of a batch: a statement uses one core of the database."""
    tail_rows: int = 4096
    """A longer tail is moved into the body, in the background."""


class PgvectorSearch:
    """Implements ``NeighborSearch``. Thread-safe."""

    def __init__(
        self,
        database: Database,
        *,
        parameters: HnswParameters | None = None,
        background: bool = True,
        pause: Callable[[str], None] | None = None,
    ) -> None:
        """background: whether a long tail is moved into the body by a thread of our own."""
        self._database = database
        self._parameters = parameters or HnswParameters()
        self._background = background
        self._pause = pause
        self._slots: dict[int, Slot] = defaultdict(Slot)
        self._worker: Thread | None = None
        self._is_sound = False

    def check(self) -> None:
        """Raise DependencyDownError where the server's pgvector corrupts its index.

        Only users of the index need this check: the exact search does not use it.
        """
        if self._is_sound:
            return
        with self._database.connection() as connection:
            row = connection.execute(_SQL["library_version"]).fetchone()
        found = "none" if row is None else str(row[0])
        if row is None or tuple(int(part) for part in found.split(".")) < SOUND_PGVECTOR:
            raise DependencyDownError(
                f"pgvector {found} is too old for its HNSW index, which concurrent inserts and "
                "vacuum can corrupt: need >= 0.8.4; or PIXSIFT_SEARCH=resident, and a larger "
                "PIXSIFT_SEARCH_MEMORY_BYTES"
            )
        self._is_sound = True

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """See ``NeighborSearch.within``."""
        self.check()
        reach = max_distance + SCREEN_MARGIN
        slot = self._slots[collection_id]
        with slot.lock, self._database.connection() as connection:
            point = read_point(connection, collection_id)
            if self._pause is not None:
                self._pause("watermark_read")
            body, built_to = self._body(connection, point)
            mirror, slot.mirror = slot.mirror, None  # a failure must not leave half a mirror
            slot.mirror = refreshed(
                connection, point, mirror, floor=built_to, new_blocks=NumpyBlocks
            )
            found = list(slot.mirror.within(unit_rows(queries), reach))
            tail = slot.mirror.count
            if body is not None:
                try:
                    near = self._nearest(body, queries, reach)
                except _BodyGoneError:
                    # Dropped just now: the generation has changed, and this answer says so.
                    return Neighborhood(point.seq, -1, point.token, tuple(found))
                found = [np.union1d(a, b) for a, b in zip(found, near, strict=True)]
        if self._background and tail > self._parameters.tail_rows:
            self._advance_in_background(collection_id)
        return Neighborhood(point.seq, point.generation, point.token, tuple(found))

    def advance(self, collection_id: int) -> int:
        """Move the tail into the body, building the body first where there is none.

        No lock of the decision is taken. Returns the seq the body is complete up to; -1 when
        another process is working on it.
        """
        self.check()
        names: dict[str, Any] = {"collection_id": collection_id}
        with self._database.transaction() as connection:
            row = connection.execute(_SQL["try_alone"], names).fetchone()
            if row is None or not row[0]:
                return -1
            point = read_point(connection, collection_id)
            self._complete(connection, point)
        self._drop_retired(collection_id)
        return point.seq

    def follow(self, collection_id: int, generation: int, seq: int) -> None:
        """Build the body of a generation that comes into use soon, complete up to ``seq``.

        Only if the generation in use has a body: otherwise no process searches with one. Without it
        the whole new generation would be tail, in the memory of every consumer.
        """
        with self._database.transaction() as connection:
            point = read_point(connection, collection_id)
            if self._body(connection, point)[0] is None:
                return
            target = replace(point, generation=generation, seq=seq)
            self._complete(connection, target)
        self._forget_erased(target)

    def rebuild(self, collection_id: int) -> int:
        """Drop the body and build it again, as ``advance`` does; searches are exact in the
        meantime."""
        names: dict[str, Any] = {"collection_id": collection_id}
        with self._database.transaction() as connection:
            row = connection.execute(_SQL["try_alone"], names).fetchone()
            if row is None or not row[0]:
                return -1
            point = read_point(connection, collection_id)
            drop_body(connection, collection_id, point.generation)
        return self.advance(collection_id)

    def _body(self, connection: Connection, point: SeqPoint) -> tuple[str | None, int]:
        row = connection.execute(
            _SQL["body"], {"collection_id": point.collection_id, "generation": point.generation}
        ).fetchone()
        return (None, -1) if row is None else (row[0], row[1])

    def _complete(self, connection: Connection, point: SeqPoint) -> None:
        """Bring the body of a generation up to ``point.seq``; make it where there is none."""
        # Building an index takes minutes: the usual limits are for decisions.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        body, built_to = self._body(connection, point)
        names = {
            "collection_id": point.collection_id, "generation": point.generation,
            "after": built_to, "up_to": point.seq,
        }  # fmt: skip
        if body is None:
            body = self._create(connection, point, names)
        elif built_to < point.seq:
            connection.execute(_on(_SQL["clean_body"], body), names)
            connection.execute(_on(_SQL["fill_body"], body), names)
        connection.execute(_SQL["record_body"], {**names, "body_table": body})

    def _forget_erased(self, point: SeqPoint) -> None:
        """Vectors of images erased while the body was built: the erasure could not see it yet.

        An erasure removes vectors under the collection's lock: after this process has held that
        lock, every erasure that did not see the body is committed.
        """
        with self._database.transaction() as connection:
            connection.execute(
                _HISTORY["lock_collection"],
                {"collection_id": point.collection_id, "seqs": [], "tokens": []},
            )
        with self._database.transaction() as connection:
            connection.execute("SET LOCAL statement_timeout = 0")
            body, _ = self._body(connection, point)
            if body is not None:
                connection.execute(_on(_SQL["drop_erased"], body))

    def _nearest(
        self, body: str, queries: NDArray[np.float16], reach: float
    ) -> list[NDArray[np.int64]]:
        """Object ids in the body per query; a query with very many neighbors is asked again."""
        lanes = max(1, min(self._parameters.lanes, len(queries) // _QUERIES_PER_LANE))
        with ThreadPoolExecutor(lanes) as threads:
            parts = threads.map(
                lambda part: self._nearest_part(body, part, reach), np.array_split(queries, lanes)
            )
            return [ids for part in parts for ids in part]

    def _nearest_part(
        self, body: str, queries: NDArray[np.float16], reach: float
    ) -> list[NDArray[np.int64]]:
        widest = self._parameters.ef_search
        found: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(queries)
        open_ = np.arange(len(queries))
        with self._database.connection() as connection, _missing_body():
            for most in (min(self._parameters.first_rows, widest), widest):
                asked = self._ask(connection, body, queries[open_], reach, most)
                for number, ids in zip(open_.tolist(), asked, strict=True):
                    found[number] = ids
                open_ = np.array([n for n in open_.tolist() if len(found[n]) >= most], np.intp)
                if not open_.size:
                    return found
            for number in open_.tolist():
                names = {"query": queries[number], "max_distance": reach}
                rows = connection.execute(_on(_SQL["scan_body"], body), names).fetchall()
                found[number] = np.array([object_id for (object_id,) in rows], np.int64)
        return found

    def _ask(
        self,
        connection: Connection,
        body: str,
        queries: NDArray[np.float16],
        reach: float,
        most: int,
    ) -> list[NDArray[np.int64]]:
        names = {"queries": list(queries), "most": most, "max_distance": reach}
        width = {"ef_search": str(self._parameters.ef_search)}
        with connection.pipeline(), connection.transaction():
            connection.execute(_SQL["search_width"], width)
            rows = connection.execute(_on(_SQL["nearest"], body), names).fetchall()
        found: list[list[int]] = [[] for _ in queries]
        for ordinal, object_id, _ in rows:
            found[ordinal - 1].append(object_id)
        return [np.array(ids, np.int64) for ids in found]

    def _create(self, connection: Connection, point: SeqPoint, names: dict[str, Any]) -> str:
        """A new body: rows first, then the index, which is many times faster."""
        body = f"hnsw_{point.collection_id}_{point.generation}"
        parameters = {
            "m": self._parameters.m,
            "ef_construction": self._parameters.ef_construction,
            "dimension": point.dimension,
        }
        connection.execute(_on(_SQL["create_body"], body, **parameters))
        connection.execute(_on(_SQL["fill_body"], body), names)
        connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
        connection.execute(_on(_SQL["index_body"], body, **parameters))
        return body

    def _drop_retired(self, collection_id: int) -> None:
        names = {"collection_id": collection_id}
        with self._database.connection() as connection:
            retired = connection.execute(_SQL["retired_bodies"], names).fetchall()
        for body, generation in retired:
            with self._database.transaction() as connection:
                connection.execute(_SQL["forget_body"], {**names, "generation": generation})
                connection.execute(_on(_SQL["drop_body"], body))

    def _advance_in_background(self, collection_id: int) -> None:
        if self._worker is not None and self._worker.is_alive():
            return

        def work() -> None:
            try:
                self.advance(collection_id)
            except PixsiftError as error:
                # The tail stays longer and is searched exactly; the next batch tries again.
                _LOG.warning("the search index could not be advanced: %s", error)

        self._worker = Thread(target=work, name="pixsift-hnsw", daemon=True)
        self._worker.start()


def drop_body(connection: Connection, collection_id: int, generation: int) -> None:
    """Drop the body of a generation, if it has one."""
    names = {"collection_id": collection_id, "generation": generation}
    row = connection.execute(_SQL["body"], names).fetchone()
    if row is not None:
        connection.execute(_SQL["forget_body"], names)
        connection.execute(_on(_SQL["drop_body"], row[0]))


class _BodyGoneError(Exception):
    """The body was dropped after it was found."""


@contextmanager
def _missing_body() -> Iterator[None]:
    """Raised before the adapter would report missing tables."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise _BodyGoneError from error


def _on(statement: LiteralString, body: str, **numbers: int) -> sql.Composed:
    literals = {name: sql.Literal(number) for name, number in numbers.items()}
    return sql.SQL(statement).format(body=sql.Identifier(body), **literals)
