"""Reads a pool from the ledger at one fixed point of its collection.

Facts first, then, for what the filter lets through, the embeddings as a binary COPY into a float16
spill file. Everything is read in one repeatable-read transaction.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger.protected_sets import read_protection
from pixsift.adapters.ledger.spill_rows import SpillRows
from pixsift.adapters.postgres.copying import copy_vectors
from pixsift.adapters.postgres.database import Database
from pixsift.core.choosing.columns import AttributeColumns, FlagColumns, MetricColumns
from pixsift.core.choosing.pool import (
    Column,
    Facts,
    LabelConflict,
    ObjectIds,
    Pool,
    by_duplicates,
    left_out_flagged,
    matching,
    times_of,
)
from pixsift.core.choosing.rows import RowSource
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.protection import Protection, within
from pixsift.errors import ConflictError, NotFoundError, Remedy, RequestError
from pixsift.extras import require
from pixsift.messages import Select, Where, Where2
from pixsift.sql import statements

_SQL = statements("pool")
_BATCH = 16_384
"""Ids per COPY, and rows per fetch."""


@dataclass(frozen=True, slots=True)
class PoolPoint:
    """A fixed point of a collection: what a pool is read at."""

    collection_id: int
    generation: int
    at_seq: int


@dataclass(frozen=True, slots=True)
class _Scope:
    collection_id: int
    generation: int
    at_seq: int
    space_id: str
    dimension: int

    def parameters(self) -> dict[str, Any]:
        return {"collection_id": self.collection_id, "generation": self.generation,
                "at_seq": self.at_seq, "space_id": self.space_id}  # fmt: skip


def load_pool(
    database: Database,
    collection_id: int,
    generation: int,
    at_seq: int,
    where: Where,
    *,
    spill_dir: Path,
    request: Select | None = None,
    preselected: Sequence[int] = (),
    device: str | None = None,
    protection: Protection | None = None,
) -> Pool:
    """The images kept at ``at_seq`` that pass ``where``, with their embeddings.

    request: resolves the URIs it mentions, and brings in the vectors of what
    it compares with; preselected: object ids whose vectors are needed too. Those are not eligible.
    device: a torch device (``cuda``, ``auto``) to hold the rows on; None streams from the file.
    protection: evaluation sets to keep away from: what lies near them is not eligible.
    Raises UserError for an unknown collection, generation, point, attribute or URI, an empty
    result, mixed spaces or missing vectors.
    """
    with database.connection() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Facts become columns, and columns a filter, without a query to the server: seconds, at
        # a million images, and the server would end a session that is idle in a transaction.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        scope = _scope(connection, collection_id, generation, at_seq)
        facts, erased = _facts(connection, scope, where)
        passing = matching(facts, where)
        through = by_duplicates(facts, where, passing)
        conflicts = _conflicts(connection, scope, where)
        times = times_of(facts, where, passing)
        flagged_out = left_out_flagged(facts, where, passing)
        chosen = facts.subset(np.flatnonzero(passing))
        if not chosen.object_ids.size:
            raise RequestError(
                f"no image matches the filter: {facts.object_ids.size} are kept at seq {at_seq}"
                + (f" under prefix {where.prefix!r}" if where.prefix else "")
                + (f"; {times.unknown} of them have no capture time" if times else "")
                + (f"; {flagged_out} are left out because a quality check flagged them: "
                   "where.flagged 'include' takes them in" if flagged_out else "")
            )  # fmt: skip
        named = {uri: _named(connection, uri) for uri in _mentioned(request)}
        compared = [i for uri in _compared(request) for i in named[uri]]
        pool = _with_rows(
            connection, scope, chosen, [*preselected, *compared],
            named=named, erased=erased, spill_dir=spill_dir,
        )  # fmt: skip
    if protection is not None:
        pool = _away_from(pool, protection)
    pool = replace(
        pool, times=times, left_out_flagged=flagged_out, flagged=pool.facts.flagged,
        by_duplicates=through, conflicts=conflicts,
    )  # fmt: skip
    return pool if device is None else replace(pool, rows=_on_device(pool.rows, device))


def pool_protection(database: Database, point: PoolPoint) -> Protection:
    """The evaluation sets that are in force now, whatever the point, with their pictures.

    Raises ConflictError where pictures of them have no vector in the pool's embedding space.
    """
    with database.connection() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        scope = _scope(connection, point.collection_id, point.generation, point.at_seq)
        return read_protection(
            connection, scope.collection_id, scope.space_id,
            pool=(scope.generation, scope.at_seq),
        )  # fmt: skip


def _away_from(pool: Pool, protection: Protection) -> Pool:
    near = within(pool.rows, protection)
    for each in protection.sets:
        near |= np.isin(pool.object_ids, list(each.stand_for))
    left_out = int((near & pool.eligible).sum())
    if left_out and not (pool.eligible & ~near).any():
        raise RequestError(
            f"no candidates left: all {left_out} images that match the filter lie within the "
            "distance of an evaluation set, or represent an image of one"
        )
    return replace(pool, eligible=pool.eligible & ~near, left_out_protected=left_out)


def count_pool(database: Database, point: PoolPoint, where: Where) -> int:
    """How many images pass ``where`` at a point, without their embeddings; 0 when none does."""
    with database.connection() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        scope = _scope(connection, point.collection_id, point.generation, point.at_seq)
        facts, _ = _facts(connection, scope, where)
    return int(matching(facts, where).sum())


def pool_point(database: Database, collection: str, at_seq: int | None) -> PoolPoint:
    """The point of a collection, now if None. Raises UserError for an unknown collection."""
    with database.connection() as connection:
        row = connection.execute(
            _SQL["pool_point"], {"name": collection, "at_seq": at_seq}
        ).fetchone()
    if row is None:
        raise NotFoundError(
            f"no collection {collection!r}",
            code="unknown_collection", remedy=Remedy("list_collections"),
        )  # fmt: skip
    return PoolPoint(collection_id=row[0], at_seq=row[1], generation=row[2])


def object_uris(database: Database, object_ids: Sequence[int]) -> dict[int, str]:
    """URIs, with the version, by object id."""
    with database.connection() as connection:
        rows = connection.execute(_SQL["pool_uris"], {"object_ids": list(object_ids)}).fetchall()
    return {row[0]: ObjectVersion(*row[1:]).uri for row in rows}


def total_bytes(database: Database, object_ids: Sequence[int]) -> int:
    """Bytes of the objects in S3, as far as they are known."""
    with database.connection() as connection:
        row = connection.execute(_SQL["pool_bytes"], {"object_ids": list(object_ids)}).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has a row
    return int(row[0])


def _on_device(rows: RowSource, device: str) -> RowSource:
    require(f"a pool on device {device!r}", ["torch"], extra="gpu")
    from pixsift.adapters.accelerator.rows import TorchRows

    return TorchRows.of(rows, device=device)


def _scope(
    connection: psycopg.Connection, collection_id: int, generation: int, at_seq: int
) -> _Scope:
    keys = {"collection_id": collection_id, "generation": generation, "at_seq": at_seq}
    row = connection.execute(_SQL["pool_collection"], keys).fetchone()
    if row is None:
        raise NotFoundError(f"collection {collection_id} does not exist")
    name, seq, space_id, dimension, has_generation = row
    if not has_generation:
        raise NotFoundError(f"collection {name!r} has no generation {generation}")
    if at_seq > seq:
        raise RequestError(f"collection {name!r} is at seq {seq}; {at_seq} is in the future")
    spaces = [row[0] for row in connection.execute(_SQL["pool_spaces"], keys)]
    if len(spaces) > 1:
        raise ConflictError(f"cannot select across embedding spaces ({', '.join(sorted(spaces))})")
    if spaces and spaces[0] != space_id:
        raise ConflictError(
            f"the pool is of embedding space {spaces[0]}, its collection of {space_id}"
        )
    return _Scope(collection_id, generation, at_seq, space_id, dimension)


def _facts(connection: psycopg.Connection, scope: _Scope, where: Where) -> tuple[Facts, int]:
    through = _through_duplicates(connection, scope, where)
    prefix, inside = where.prefix, array("b")
    ids, captured, s3_times = array("q"), array("d"), array("b")
    quality, flags = MetricColumns(), FlagColumns()
    erased = 0
    for object_id, metrics, moment, is_s3_time, is_erased, has_vector, flagged, is_in in _stream(
        connection, "pool_facts",
        {**scope.parameters(), "prefix": prefix, "through": through},
    ):  # fmt: skip
        if not has_vector:
            if not is_erased:
                raise ConflictError(
                    f"object {object_id} is kept but has no embedding", remedy=Remedy("audit")
                )
            erased += 1
            continue
        quality.add(len(ids), metrics or {})
        flags.add(len(ids), flagged or ())
        ids.append(object_id)
        inside.append(is_in)
        captured.append(np.nan if moment is None else moment)
        s3_times.append(is_s3_time)
    object_ids = np.array(ids, dtype=np.int64)
    attributes = _attributes(connection, scope, object_ids)
    facts = Facts(
        object_ids, attributes, quality.finish(len(ids)), np.array(captured),
        np.array(s3_times, dtype=bool), flags.finish(len(ids)),
        None if through is None else np.isin(object_ids, np.array(through, dtype=np.int64)),
        None if through is None else np.array(inside, dtype=bool),
    )  # fmt: skip
    return facts, erased


def _through_duplicates(
    connection: psycopg.Connection, scope: _Scope, where: Where
) -> list[int] | None:
    """Kept images that have what the filter asks for through a duplicate; None: it does not ask."""
    if not isinstance(where, Where2) or not where.labels_of_duplicates:
        return None
    if not where.attributes and where.prefix is None:
        return None
    names = {
        **scope.parameters(), "prefix": where.prefix, "wanted": Jsonb(where.attributes),
        "names": len(where.attributes),
    }  # fmt: skip
    return [row[0] for row in connection.execute(_SQL["pool_through_duplicates"], names)]


def _conflicts(
    connection: psycopg.Connection, scope: _Scope, where: Where
) -> tuple[LabelConflict, ...]:
    """Groups with several values of an attribute that the filter names."""
    if not isinstance(where, Where2) or not where.labels_of_duplicates or not where.attributes:
        return ()
    names = {**scope.parameters(), "names": list(where.attributes)}
    rows = connection.execute(_SQL["pool_conflicts"], names).fetchall()
    return tuple(LabelConflict(row[0], row[1], tuple(row[2])) for row in rows)


def _attributes(
    connection: psycopg.Connection, scope: _Scope, object_ids: ObjectIds
) -> dict[str, Column]:
    table, place = AttributeColumns(), 0
    for object_id, attributes in _stream(connection, "pool_attributes", scope.parameters()):
        # Both are in order of object_id: one pass over both.
        while place < object_ids.size and object_ids[place] < object_id:
            place += 1
        if place < object_ids.size and object_ids[place] == object_id:
            table.add(place, attributes)
    return table.finish(object_ids.size)


def _stream(
    connection: psycopg.Connection, statement: str, parameters: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name=statement) as cursor:
        cursor.itersize = _BATCH
        yield from cursor.execute(_SQL[statement], parameters)


def _mentioned(request: Select | None) -> list[str]:
    if request is None:
        return []
    return list(dict.fromkeys([*request.exclude, *_compared(request)]))


def _compared(request: Select | None) -> list[str]:
    return [] if request is None else [*request.similar_to, *request.dissimilar_to]


def _named(connection: psycopg.Connection, uri: str) -> tuple[int, ...]:
    try:
        named = S3Uri.parse(uri)
    except ValueError as exc:
        raise RequestError(f"{uri!r} {exc}") from exc
    rows = connection.execute(
        _SQL["pool_named"],
        {"bucket": named.bucket, "key": named.key, "version_id": named.version_id},
    ).fetchall()
    if not rows:
        raise NotFoundError(f"the ledger does not know {uri}")
    return tuple(row[0] for row in rows)


def _with_rows(
    connection: psycopg.Connection,
    scope: _Scope,
    chosen: Facts,
    others: Sequence[int],
    *,
    named: dict[str, tuple[int, ...]],
    erased: int,
    spill_dir: Path,
) -> Pool:
    extra = np.setdiff1d(np.array(others, dtype=np.int64), chosen.object_ids)
    present = np.array(
        [row[0] for row in connection.execute(
            _SQL["pool_anchors"], {"space_id": scope.space_id, "object_ids": extra.tolist()}
        )],
        dtype=np.int64,
    )  # fmt: skip
    ids = np.union1d(chosen.object_ids, present)
    rows = SpillRows(spill_dir, scope.dimension)
    for start in range(0, ids.size, _BATCH):
        batch = ids[start : start + _BATCH]
        rows.append(_copy(connection, scope, batch))
    facts = chosen
    if present.size:
        # Earlier choices keep their groups together, so their attributes are needed too.
        theirs = _attributes_of(connection, scope, present)
        facts = _widened(chosen, ids, present, theirs)
    return Pool(facts, rows, np.isin(ids, chosen.object_ids), named, erased)


def _attributes_of(
    connection: psycopg.Connection, scope: _Scope, object_ids: ObjectIds
) -> dict[str, Column]:
    table = AttributeColumns()
    places = {object_id: place for place, object_id in enumerate(object_ids.tolist())}
    parameters = {**scope.parameters(), "object_ids": object_ids.tolist()}
    for object_id, attributes in _stream(connection, "pool_attributes_of", parameters):
        table.add(places[object_id], attributes)
    return table.finish(object_ids.size)


def _widened(
    facts: Facts, ids: ObjectIds, others: ObjectIds, attributes: dict[str, Column]
) -> Facts:
    """The same facts with the attributes of the objects that are only compared with."""
    places = np.searchsorted(ids, facts.object_ids)
    added = np.searchsorted(ids, others)

    def spread(values: NDArray[Any], blank: Any) -> NDArray[Any]:
        wide = np.full(ids.size, blank, values.dtype)
        wide[places] = values
        return wide

    columns = {}
    for name in sorted({*facts.attributes, *attributes}):
        mine, theirs = facts.attributes.get(name), attributes.get(name)
        values = tuple(sorted({*(mine.values if mine else ()), *(theirs.values if theirs else ())}))
        codes = np.full(ids.size, -1, np.int32)
        for column, where in ((mine, places), (theirs, added)):
            if column is not None:
                rank_of = {value: rank for rank, value in enumerate(values)}
                ranks = [rank_of[value] for value in column.values]
                codes[where] = np.array([*ranks, -1], np.int32)[column.codes]
        columns[name] = Column(codes, values)
    return Facts(
        ids,
        columns,
        {n: spread(values, np.nan) for n, values in facts.quality.items()},
        spread(facts.captured_at, np.nan),
        spread(facts.is_s3_time, False),
        {n: spread(mask, False) for n, mask in facts.flags.items()},
    )


def _copy(connection: psycopg.Connection, scope: _Scope, ids: ObjectIds) -> NDArray[np.float16]:
    """(N, D), in the order of ``ids``. Raises ConflictError where one is missing."""
    names = {"space_id": scope.space_id, "object_ids": ids.tolist()}
    blocks = list(
        copy_vectors(
            connection, _SQL["pool_embeddings"], names, bigints=1, dimension=scope.dimension
        )
    )
    found = np.concatenate([rows[:, 0] for rows, _ in blocks] or [np.empty(0, np.int64)])
    if not np.array_equal(found, ids):
        raise ConflictError(
            f"expected {ids.size} embeddings of {scope.dimension} dimensions, the ledger sent "
            f"{found.size}: some are missing, or of other objects"
        )
    return np.concatenate([halves for _, halves in blocks])
