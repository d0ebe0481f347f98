"""The two-phase decision protocol: race-free without holding a lock while searching.

Phase 1, no transaction, no lock: read the collection's seq as the watermark W, **then** search
representatives near each item. Phase 2, one READ COMMITTED transaction: lock the collection's
row, **alone in its statement**; look exactly at what is newer than W; prove that each candidate
still represents; decide the items one after the other; write; bump seq; commit.

Why it is race-free: lock order is visibility order, since PostgreSQL makes a commit visible before
it releases locks, and in READ COMMITTED each statement under the lock takes a fresh snapshot. seq
moves only under the lock, so W is complete: the search's snapshot, taken later, holds everything
up to W, and the tail scan holds the rest. Nobody can add rows in between. Removing a
representative takes the same lock and bumps the same seq.

What changed between the phases in a way the plan cannot absorb (another generation, a child the
plan does not know, a vector stored first by somebody else, an erasure) rolls back and starts
phase 1 again.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import numpy as np
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres import Connection, Database
from pixsift.core.collection import Collection
from pixsift.core.dedup import (
    Halves,
    Image,
    Kept,
    NearRule,
    Ruling,
    cosine_distance,
    decide_batch,
)
from pixsift.core.outcomes import Decision, Judged, Outcome, one_per_version, replaces
from pixsift.core.sources import compile_key_pattern, read_key
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = dict(statements("ledger"))
_ATTEMPTS = 6
"""Phase 1 starts again at most this often before the batch goes back to its queue."""

Within = Callable[[Connection, int], None]


class _StartAgainError(Exception):
    """The plan does not fit what the lock shows: roll back, phase 1 again."""


@dataclass(slots=True, eq=False)
class _Plan:
    """What phase 1 found out."""

    items: list[Judged]
    watermark: int
    generation: int
    rule: NearRule
    vectors: dict[bytes, tuple[Halves, bytes]]
    """Pixel hash -> the vector and look the decision will be measured on."""
    stored: set[bytes]
    """Pixel hashes whose vector the ledger has."""
    children: list[Image] = field(default_factory=list)
    removing: set[int] = field(default_factory=set)
    """Representatives that go away."""
    near: dict[bytes, list[int]] = field(default_factory=dict)
    """Pixel hash -> candidates that satisfy the rule, if they are still alive."""
    candidates: dict[int, Image] = field(default_factory=dict)


class DecisionProtocol:
    """Commits batches of one ledger. Thread-safe."""

    def __init__(
        self,
        database: Database,
        search: NeighborSearch,
        *,
        pause: Callable[[str], None] | None = None,
    ) -> None:
        """pause: called with ``planned``, ``lock_held``, ``inserted``, ``committed``."""
        self._database = database
        self._search = search
        self._pause = pause or (lambda point: None)
        self._salt = b""

    def commit(
        self, collection: Collection, judged: Sequence[Judged], *, within: Within | None = None
    ) -> list[Decision]:
        """See ``Ledger.commit``."""
        items = one_per_version(judged)
        if not items:
            return []
        for _ in range(_ATTEMPTS):
            try:
                plan = self._plan(collection, items)
                self._pause("planned")
                decisions = self._settle(collection, plan, within)
            except _StartAgainError:
                continue
            self._pause("committed")
            return decisions
        raise TransientError("the collection changes faster than this batch can be planned")

    # Phase 1: no lock, every statement in its own snapshot, the watermark first.

    def _plan(self, collection: Collection, items: list[Judged]) -> _Plan:
        with self._database.connection() as connection:
            names = {"collection_id": collection.collection_id}
            row = connection.execute(_SQL["read_watermark"], names).fetchone()
            if row is None:
                raise TransientError(f"collection {collection.name} is gone")
            _, generation, epsilon, second_look = row
            items = self._bury(connection, items)
            plan = _Plan(items, -1, generation, near_rule(epsilon, second_look), {}, set())
            self._find_vectors(connection, collection, plan)
            self._find_children(connection, collection, plan)
        self._find_candidates(collection, plan)
        return plan

    def _bury(self, connection: Connection, items: list[Judged]) -> list[Judged]:
        """Items that an erasure has marked become ``gone``, without facts."""
        if not self._salt:
            row = connection.execute(_SQL["salt"]).fetchone()
            assert row is not None  # noqa: S101 - a migration put it there
            self._salt = bytes(row[0])
        erased = self._erased(connection, items)
        return [
            Judged(item.version, "gone", "erased", sequencer=item.sequencer)
            if item.version in erased
            else item
            for item in items
        ]

    def _erased(self, connection: Connection, items: list[Judged]) -> set[Any]:
        marks: dict[bytes, Any] = {}
        contents: dict[bytes, list[Any]] = {}
        for item in items:
            marks[version_mark(self._salt, item.version)] = item.version
            if item.content_sha256 is not None:
                mark = content_mark(self._salt, item.content_sha256)
                contents.setdefault(mark, []).append(item.version)
        rows = connection.execute(
            _SQL["tombstones"],
            {"version_marks": list(marks), "content_marks": list(contents)},
        ).fetchall()
        found = {marks[bytes(mark)] for mark, _ in rows if bytes(mark) in marks}
        for _, mark in rows:
            if mark is not None:
                found.update(contents.get(bytes(mark), ()))
        return found

    def _find_vectors(self, connection: Connection, collection: Collection, plan: _Plan) -> None:
        """Stored vectors come before new ones: one vector per pixels, whoever was first."""
        embedded = [item for item in plan.items if item.finding == "embedded"]
        wanted = {pixels for item in embedded if (pixels := item.pixel_sha256)}
        names = {"space_id": collection.space_id, "pixel_sha256s": list(wanted)}
        if wanted:
            cursor = connection.cursor(binary=True).execute(_SQL["embeddings"], names)
            for pixels, vector, look in cursor.fetchall():
                plan.vectors[bytes(pixels)] = (vector, bytes(look))
        plan.stored = set(plan.vectors)
        for item in embedded:
            assert item.pixel_sha256 is not None and item.content_sha256 is not None  # noqa: S101
            if item.pixel_sha256 not in plan.vectors:
                if item.embedding is None:
                    raise TransientError(f"the embedding of {item.version.uri} is gone: again")
                plan.vectors[item.pixel_sha256] = (
                    np.asarray(item.embedding, np.float16),
                    item.look,
                )

    def _find_children(self, connection: Connection, collection: Collection, plan: _Plan) -> None:
        forgotten = [
            item.version
            for item in plan.items
            if item.finding == "gone" and _forgets(collection, item)
        ]
        if not forgotten:
            return
        names = {"collection_id": collection.collection_id, "generation": plan.generation}
        columns = {
            "buckets": [version.bucket for version in forgotten],
            "keys": [version.key for version in forgotten],
            "version_ids": [version.version_id for version in forgotten],
        }
        rows = connection.execute(_SQL["removable"], {**names, **columns}).fetchall()
        plan.removing = {object_id for _, object_id in rows}
        gone = {
            object_id for (object_id,) in connection.execute(_SQL["object_ids"], columns).fetchall()
        }
        if plan.removing:
            cursor = connection.cursor(binary=True).execute(
                _SQL["children"],
                {**names, "space_id": collection.space_id, "representatives": list(plan.removing)},
            )
            children = [_image(row[:5]) for row in cursor.fetchall()]
            plan.children = [child for child in children if child.object_id not in gone]

    def _find_candidates(self, collection: Collection, plan: _Plan) -> None:
        """Search, then keep what satisfies the rule by the exact distance on stored values."""
        queries = dict(plan.vectors)
        queries.update({c.pixel_sha256: (c.embedding, c.look) for c in plan.children})
        if not queries:
            # Nothing to compare: the tail is of no interest, however long.
            plan.watermark = np.iinfo(np.int64).max
            return
        found = self._search.within(
            collection.collection_id,
            np.stack([vector for vector, _ in queries.values()]),
            plan.rule.epsilon,
        )
        if found.generation != plan.generation:
            raise _StartAgainError
        plan.watermark = found.watermark
        wanted = {int(i) for ids in found.object_ids for i in ids} - plan.removing
        with self._database.connection() as connection:
            plan.candidates = _images(
                connection,
                "candidates",
                {
                    "collection_id": collection.collection_id,
                    "generation": plan.generation,
                    "object_ids": list(wanted),
                },
            )
        for (pixels, (vector, look)), ids in zip(queries.items(), found.object_ids, strict=True):
            plan.near[pixels] = [
                int(i)
                for i in ids
                if (other := plan.candidates.get(int(i))) is not None
                and plan.rule.verdict(cosine_distance(vector, other.embedding), look, other.look)
            ]

    # Phase 2: one transaction, short.

    def _settle(self, collection: Collection, plan: _Plan, within: Within | None) -> list[Decision]:
        with self._database.transaction() as connection:
            object_ids = _store_facts(connection, collection, plan)
            batch = _Batch(connection, collection, plan, object_ids)
            batch.lock()
            self._pause("lock_held")
            if self._erased(connection, [i for i in plan.items if i.reason != "erased"]):
                raise _StartAgainError
            decisions = batch.decide()
            if batch.changes:
                batch.write()
                if within is not None:
                    within(connection, batch.seq)
            self._pause("inserted")
        return decisions


class _Batch:
    """One batch under the lock."""

    def __init__(
        self,
        connection: Connection,
        collection: Collection,
        plan: _Plan,
        object_ids: list[int],
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._plan = plan
        self._object_ids = object_ids
        self._names = {
            "collection_id": collection.collection_id,
            "generation": plan.generation,
        }
        self.seq = 0
        self.changes: list[_Change] = []
        self._closing: set[int] = set()
        """Representatives that end in this transaction."""

    def lock(self) -> None:
        row = self._connection.execute(_SQL["lock_collection"], self._names).fetchone()
        if row is None:
            raise TransientError(f"collection {self._collection.name} is gone")
        seq, generation, isolation = row
        if isolation != "read committed":
            raise RuntimeError(f"the decision protocol needs read committed, not {isolation}")
        if generation != self._plan.generation:
            raise _StartAgainError
        self.seq = seq + 1

    def decide(self) -> list[Decision]:
        """One decision per item; ``changes`` are those that must be written."""
        plan = self._plan
        before = self._open_decisions()
        fresh: list[tuple[int, Judged]] = []
        decisions: dict[int, Decision] = {}
        for object_id, item in zip(self._object_ids, plan.items, strict=True):
            row = before.get(object_id)
            outcome, reason = (row[1], row[2]) if row else (None, None)
            if replaces(item.finding, item.reason, outcome, reason):
                fresh.append((object_id, item))
            else:
                assert row is not None  # noqa: S101
                decisions[object_id] = _decision(object_id, item, row[1:], is_new=False)
        self._check_removals(fresh)
        rulings = self._rule(fresh)
        for object_id, item in fresh:
            change = self._change(object_id, item, rulings, object_id in before)
            self.changes.append(change)
            decisions[object_id] = Decision(
                item.version, object_id, change.outcome, change.reason,
                change.representative, change.distance, self.seq, is_new=True,
            )  # fmt: skip
        return [decisions[object_id] for object_id in self._object_ids]

    def write(self) -> None:
        """Close what ends, add what begins, bump seq."""
        names = {**self._names, "seq": self.seq, "space_id": self._collection.space_id}
        execute = self._connection.execute
        closing = [change.object_id for change in self.changes if change.closes]
        if closing:
            execute(_SQL["close_decisions"], {**names, "object_ids": closing})
        if self._closing:
            execute(_SQL["close_representatives"], {**names, "object_ids": list(self._closing)})
        kept = [change for change in self.changes if change.outcome == "kept"]
        if kept:
            cursor = execute(
                _SQL["insert_representatives"],
                {
                    **names,
                    "object_ids": [change.object_id for change in kept],
                    "contents": [change.content_sha256 for change in kept],
                    "pixels": [change.pixel_sha256 for change in kept],
                },
            )
            if cursor.rowcount != len(kept):
                raise _StartAgainError
        execute(_SQL["insert_decisions"], {**names, **_decision_columns(self.changes)})
        self._write_attributes(names)
        if execute(_SQL["bump_seq"], names).rowcount != 1:
            raise RuntimeError("seq moved while the collection was locked")

    def _open_decisions(self) -> dict[int, tuple[Any, ...]]:
        rows = self._connection.execute(
            _SQL["open_decisions"], {**self._names, "object_ids": self._object_ids}
        ).fetchall()
        return {row[0]: row[1:] for row in rows}

    def _check_removals(self, fresh: list[tuple[int, Judged]]) -> None:
        """Every child of a representative that goes away must be in the plan."""
        leaving = {
            object_id
            for object_id, item in fresh
            if item.finding == "gone" and _forgets(self._collection, item)
        }
        if not leaving:
            self._plan.children = []
            return
        alive = _images_alive(self._connection, self._names, leaving)
        self._closing = set(alive)
        if not self._closing <= self._plan.removing:
            raise _StartAgainError
        rows = self._connection.execute(
            _SQL["child_ids"], {**self._names, "representatives": list(self._closing)}
        ).fetchall()
        children = {object_id for (object_id,) in rows} - leaving
        known = {child.object_id for child in self._plan.children}
        if not children <= known:
            raise _StartAgainError
        self._plan.children = [c for c in self._plan.children if c.object_id in children]

    def _rule(self, fresh: list[tuple[int, Judged]]) -> dict[int, Ruling]:
        """Children of removed representatives first, then the items, each seeing those before."""
        images = list(self._plan.children)
        for object_id, item in fresh:
            if item.finding == "embedded":
                images.append(_item_image(object_id, item, self._plan.vectors))
        if not images:
            return {}
        kept = self._live(images)
        near = {image.object_id: self._plan.near[image.pixel_sha256] for image in images}
        rulings = decide_batch(images, kept, self._plan.rule, near)
        by_id = {image.object_id: r for image, r in zip(images, rulings, strict=True)}
        for child in self._plan.children:
            self.changes.append(_child_change(child, by_id[child.object_id]))
        return by_id

    def _live(self, images: list[Image]) -> Kept:
        """Who represents now: proven candidates, the tail, and whoever has equal bytes."""
        plan = self._plan
        candidates = {i for image in images for i in plan.near[image.pixel_sha256]}
        rows = self._connection.execute(
            _SQL["alive"],
            {
                **self._names,
                "object_ids": list(candidates),
                "contents": [image.content_sha256 for image in images],
                "pixels": [image.pixel_sha256 for image in images],
            },
        ).fetchall()
        kept = Kept()
        for object_id, content, pixels in rows:
            if object_id in self._closing:
                continue
            kept.by_content[bytes(content)] = object_id
            kept.by_pixels[bytes(pixels)] = object_id
            if object_id in candidates:
                kept.candidates[object_id] = plan.candidates[object_id]
        tail = _images(self._connection, "tail", {**self._names, "watermark": plan.watermark})
        for object_id, image in tail.items():
            if object_id not in self._closing:
                kept.add(image)
        return kept

    def _change(
        self, object_id: int, item: Judged, rulings: Mapping[int, Ruling], closes: bool
    ) -> "_Change":
        if item.finding == "embedded":
            ruling = rulings[object_id]
            outcome: Outcome = ruling.outcome
            return _Change(
                object_id, outcome, ruling.reason, closes, item.detail,
                ruling.representative_object_id, ruling.distance,
                item.content_sha256, item.pixel_sha256, item,
            )  # fmt: skip
        return _Change(
            object_id, item.finding, item.reason or item.finding, closes, item.detail,
            None, None, item.content_sha256, item.pixel_sha256, item,
        )  # fmt: skip

    def _write_attributes(self, names: dict[str, Any]) -> None:
        rows = [
            (change.object_id, source, Jsonb(dict(values)))
            for change in self.changes
            if change.item is not None and change.outcome != "gone"
            for source, values in _attributes(self._collection, change.item).items()
            if values
        ]
        if not rows:
            return
        columns = {
            "object_ids": [row[0] for row in rows],
            "sources": [row[1] for row in rows],
            "attributes": [row[2] for row in rows],
        }
        if any(change.closes for change in self.changes):
            self._connection.execute(_SQL["close_attributes"], {**names, **columns})
        self._connection.execute(_SQL["insert_attributes"], {**names, **columns})


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """One decision to write."""

    object_id: int
    outcome: Outcome
    reason: str
    closes: bool
    """Whether an open decision ends with it."""
    detail: Mapping[str, Any]
    representative: int | None
    distance: float | None
    content_sha256: bytes | None
    pixel_sha256: bytes | None
    item: Judged | None


def near_rule(epsilon: float, second_look: Mapping[str, Any] | None) -> NearRule:
    """The rule of a generation from its stored parameters."""
    if second_look is None:
        return NearRule(epsilon)
    from pixsift.core.second_look import LookRule  # type: ignore[import-untyped, unused-ignore]

    return NearRule(epsilon, LookRule.from_json(dict(second_look)))


def _store_facts(connection: Connection, collection: Collection, plan: _Plan) -> list[int]:
    """Objects and vectors, before the lock; returns the object ids of the items."""
    columns = _object_columns(collection, plan.items)
    connection.execute(_SQL["upsert_objects"], columns)
    rows = connection.execute(_SQL["object_ids"], columns).fetchall()
    pixels = sorted({cast(bytes, i.pixel_sha256) for i in plan.items if i.finding == "embedded"})
    if pixels:
        cursor = connection.execute(
            _SQL["insert_embeddings"],
            {
                "space_id": collection.space_id,
                "pixels": pixels,
                "embeddings": [plan.vectors[p][0] for p in pixels],
                "looks": [plan.vectors[p][1] for p in pixels],
            },
        )
        if cursor.rowcount != len(set(pixels) - plan.stored):
            # Somebody stored one of these first (or erased one): measure on what is stored.
            raise _StartAgainError
    return [object_id for (object_id,) in rows]


def _object_columns(collection: Collection, items: list[Judged]) -> dict[str, list[Any]]:
    return {
        "buckets": [item.version.bucket for item in items],
        "keys": [item.version.key for item in items],
        "version_ids": [item.version.version_id for item in items],
        "etags": [item.etag for item in items],
        "sizes": [item.size_bytes for item in items],
        "sequencers": [item.sequencer for item in items],
        "contents": [item.content_sha256 for item in items],
        "pixels": [item.pixel_sha256 for item in items],
        "facts": [None if i.image_facts is None else Jsonb(dict(i.image_facts)) for i in items],
        "qualities": [None if i.quality is None else Jsonb(dict(i.quality)) for i in items],
        "captured_ats": [
            _key_facts(collection.key_pattern, i.version.key).captured_at or i.captured_at
            for i in items
        ],
        "thumbnails": [item.thumbnail_key for item in items],
    }


def _decision_columns(changes: list[_Change]) -> dict[str, list[Any]]:
    return {
        "object_ids": [change.object_id for change in changes],
        "outcomes": [change.outcome for change in changes],
        "reasons": [change.reason for change in changes],
        "details": [Jsonb(dict(change.detail)) for change in changes],
        "representatives": [change.representative for change in changes],
        "distances": [change.distance for change in changes],
        "pixels": [change.pixel_sha256 for change in changes],
    }


def _child_change(child: Image, ruling: Ruling) -> _Change:
    reason = "promoted" if ruling.outcome == "kept" else ruling.reason
    return _Change(
        child.object_id, ruling.outcome, reason, True, {}, ruling.representative_object_id,
        ruling.distance, child.content_sha256, child.pixel_sha256, None,
    )  # fmt: skip


def _decision(object_id: int, item: Judged, row: tuple[Any, ...], *, is_new: bool) -> Decision:
    outcome, reason, representative, distance, seq = row
    return Decision(item.version, object_id, outcome, reason, representative, distance, seq, is_new)


def _forgets(collection: Collection, item: Judged) -> bool:
    """Whether a ``gone`` image also stops filtering what comes after it."""
    return not (item.reason == "expired" and collection.expiry_policy == "remember")


def _item_image(
    object_id: int, item: Judged, vectors: Mapping[bytes, tuple[Halves, bytes]]
) -> Image:
    assert item.pixel_sha256 is not None and item.content_sha256 is not None  # noqa: S101
    vector, look = vectors[item.pixel_sha256]
    return Image(object_id, item.content_sha256, item.pixel_sha256, vector, look)


def _images(connection: Connection, name: str, names: dict[str, Any]) -> dict[int, Image]:
    cursor = connection.cursor(binary=True).execute(_SQL[name], names)
    return {row[0]: _image(row) for row in cursor.fetchall()}


def _image(row: Sequence[Any]) -> Image:
    object_id, content, pixels, vector, look = row
    return Image(object_id, bytes(content), bytes(pixels), vector, bytes(look))


def _images_alive(
    connection: Connection, names: dict[str, Any], object_ids: Iterable[int]
) -> set[int]:
    rows = connection.execute(
        _SQL["alive"], {**names, "object_ids": list(object_ids), "contents": [], "pixels": []}
    ).fetchall()
    return {row[0] for row in rows}


def _attributes(collection: Collection, item: Judged) -> dict[str, Mapping[str, str]]:
    from_key = _key_facts(collection.key_pattern, item.version.key).attributes
    return {**({"key": from_key} if from_key else {}), **item.attributes}


def _key_facts(key_pattern: str | None, key: str) -> Any:
    return read_key(_compiled(key_pattern), key)


@lru_cache(maxsize=64)
def _compiled(key_pattern: str | None) -> re.Pattern[str] | None:
    return compile_key_pattern(key_pattern)
