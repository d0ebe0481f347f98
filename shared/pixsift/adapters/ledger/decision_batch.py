"""Phase 2 of the decision protocol: one batch in one transaction under the collection's lock."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger.decision_plan import (
    Plan,
    forgets,
    image_of,
    images,
    living,
    version_columns,
    who_is_kept,
)
from pixsift.adapters.ledger.history import AttributeRow, StartAgainError, Turn
from pixsift.adapters.ledger.keep_best import (
    LiveGroups,
    UnknownGroupError,
    ask_held,
    held_by,
    merit_of,
)
from pixsift.adapters.ledger.watch_rows import (
    matcher_asked,
    matcher_of,
    token_asked,
    token_of,
)
from pixsift.adapters.postgres.database import Connection, Cursor
from pixsift.core.collection import Collection
from pixsift.core.dedup import Fate, Image, Kept, decide_batch, may_be_near
from pixsift.core.keep_best import decide_one
from pixsift.core.outcomes import Decision, Ended, Judged, Outcome, comes_back, replaces
from pixsift.core.rulings import NO_RULINGS, Ruling, Rulings
from pixsift.core.second_look import SIGNAL_BYTES
from pixsift.core.sources import KeyFacts, compile_key_pattern, read_key
from pixsift.core.successor import promoted
from pixsift.core.watching import Match
from pixsift.sql import statements

_SQL = dict(statements("ledger"))
_RULINGS = statements("rulings")


@dataclass(slots=True, eq=False)
class Facts:
    """Objects and vectors on their way to the database, before the lock."""

    ids: Cursor
    vectors: Cursor | None
    """The insert; None where there is nothing to insert."""
    plan: Plan

    def object_ids(self) -> list[int]:
        """Object ids of the plan's items, in order."""
        return [object_id for (object_id,) in self.ids.fetchall()]

    def check(self, connection: Connection, space_id: str, *, sync: Callable[[], None]) -> None:
        """Start again where another process stored another vector for the same pixels first: the
        decision must be measured on what is stored."""
        vectors = self.plan.vectors
        if self.vectors is None:
            return
        if self.vectors.rowcount == len(vectors) - len(self.plan.stored):
            return
        names = {"space_id": space_id, "pixel_sha256s": list(vectors)}
        cursor = connection.cursor(binary=True).execute(_SQL["embeddings"], names)
        sync()
        for pixels, vector, look in cursor.fetchall():
            ours, our_look = vectors[bytes(pixels)]
            if not np.array_equal(vector, ours) or bytes(look) != our_look:
                raise StartAgainError


def store_facts(connection: Connection, collection: Collection, plan: Plan) -> Facts:
    """Send objects and vectors; sorted by their keys, so two consumers cannot deadlock."""
    columns = object_columns(collection, plan.items)
    connection.execute(_SQL["upsert_objects"], columns)
    ids = connection.execute(_SQL["object_ids"], columns)
    if not plan.vectors:
        return Facts(ids, None, plan)
    pixels = sorted(plan.vectors)
    vectors = connection.execute(
        _SQL["insert_embeddings"],
        {
            "space_id": collection.space_id,
            "pixels": pixels,
            "embeddings": [plan.vectors[p][0] for p in pixels],
            "looks": [plan.vectors[p][1][:SIGNAL_BYTES] for p in pixels],
            "changes": [plan.vectors[p][1][SIGNAL_BYTES:] for p in pixels],
        },
    )
    return Facts(ids, vectors, plan)


class Batch:
    """One batch in one turn: read, decide, write, in this order."""

    def __init__(
        self,
        turn: Turn,
        collection: Collection,
        plan: Plan,
        *,
        sync: Callable[[], None],
    ) -> None:
        """sync: sends what is pending and waits for all the answers, in one round trip."""
        self._turn = turn
        self._connection = turn.connection
        self._sync = sync
        self._collection = collection
        self._plan = plan
        self._names = {
            "collection_id": collection.collection_id,
            "generation": plan.generation,
            "space_id": collection.space_id,
        }
        self.changes: list[_Change] = []
        """What ``decide`` found that must be written."""
        self._object_ids: list[int] = []
        self._before: dict[int, tuple[Any, ...]] = {}
        self._live: dict[int, tuple[bytes, bytes]] = {}
        self._tail: dict[int, Image] = {}
        self._children: set[int] = set()
        self._closing: set[int] = set()
        """Representatives that end in this transaction."""
        self._groups = LiveGroups({}, {}, {}, frozenset())
        """With keep-best: what the representatives stand for."""
        self._rulings = NO_RULINGS
        """In force about the items and children."""
        self._named: dict[int, Image] = {}
        """Who represents those that items or children are ruled to be the same as."""
        self.tied: set[int] = set()
        """What ``decide`` found that rulings tie to the items: to be decided again afterwards."""

    def read(self, object_ids: list[int]) -> None:
        """The state under the lock, in one round trip."""
        plan, execute = self._plan, self._connection.execute
        self._object_ids = object_ids
        identities: list[tuple[bytes | None, bytes | None]] = [
            (c.content_sha256, c.pixel_sha256) for c in plan.children
        ] + [(i.content_sha256, i.pixel_sha256) for i in plan.items if i.finding == "embedded"]
        names = {
            **self._names,
            "object_ids": object_ids,
            "watermark": plan.watermark,
            "representatives": list(plan.removing),
        }
        buried = plan.marks.ask(self._connection)
        before = execute(_SQL["open_decisions"], names)
        missed = (object_id for _, object_id in plan.near_miss.values())
        alive = execute(
            _SQL["alive"],
            {
                **names,
                "object_ids": list({*plan.candidates, *object_ids, *missed}),
                "contents": [hashes[0] for hashes in identities],
                "pixels": [hashes[1] for hashes in identities],
            },
        )
        tail = self._connection.cursor(binary=True).execute(_SQL["tail"], names)
        vectors = execute(_SQL["count_vectors"], {**names, "pixel_sha256s": list(plan.vectors)})
        children = execute(_SQL["child_ids"], names) if plan.removing else None
        about = [*object_ids, *(child.object_id for child in plan.children), *plan.members]
        about += [i for group in plan.members.values() for i in group]
        held = members = None
        if plan.rule.keep_best is not None:
            asked = [*object_ids, *plan.members]
            held = ask_held(self._connection, self._collection.collection_id, asked)
            of = {**names, "representatives": list(plan.members)}
            members = execute(_SQL["child_ids"], of)
        said = execute(_RULINGS["rulings_touching"], {**names, "object_ids": about})
        watching = token_asked(self._connection, self._collection.collection_id)
        self._sync()
        if token_of(watching) != plan.watch_token and plan.vectors:
            self._match_again()
        if plan.marks.erased(buried) or vectors.fetchone() != (len(plan.vectors),):
            raise StartAgainError
        self._before = {row[0]: row[1:] for row in before.fetchall()}
        self._live = living(alive)
        self._tail = images(tail)
        self._children = {row[0] for row in children.fetchall()} if children is not None else set()
        self._rulings = Rulings.of(Ruling(*row) for row in said.fetchall())
        if held is not None and members is not None:
            self._groups = self._read_groups(held_by(held, self._turn.seq), members)
        if targets := {t for i in about if (t := self._rulings.same_as(i)) is not None}:
            found = self._connection.cursor(binary=True).execute(
                _RULINGS["represented_by"], {**names, "object_ids": list(targets)}
            )
            self._sync()
            self._named = {row[5]: image_of(row) for row in found.fetchall()}

    def _read_groups(self, held: frozenset[int], members: Cursor) -> LiveGroups:
        """Groups as they are now. Raises StartAgainError where the plan knows them otherwise."""
        plan = self._plan
        now: dict[int, set[int]] = {i: set() for i in plan.members}
        for object_id, of in members.fetchall():
            now[of].add(object_id)
        if any(now[i] != group.keys() for i, group in plan.members.items() if i in self._live):
            raise StartAgainError
        # Duplicates of a removed one are decided first: who is kept of them keeps its place.
        held |= {child.object_id for child in plan.children}
        return LiveGroups(
            plan.groups,
            {i: list(group.values()) for i, group in plan.members.items()},
            {i: merit_of(item) for i, item in zip(self._object_ids, plan.items, strict=True)},
            held,
        )  # fmt: skip

    def _match_again(self) -> None:
        """The watches changed since the plan: rare, and cheaper than to plan again."""
        collection = self._collection
        asked = matcher_asked(self._connection, collection.collection_id, collection.space_id)
        self._sync()
        vectors = self._plan.vectors
        found = matcher_of(asked).match(np.stack([vector for vector, _ in vectors.values()]))
        self._plan.matches = dict(zip(vectors, found, strict=True))

    def decide(self) -> list[Decision]:
        """One decision per item of the plan; fills ``changes``."""
        decisions: dict[int, Decision] = {}
        fresh: list[tuple[int, Judged]] = []
        for object_id, item in zip(self._object_ids, self._plan.items, strict=True):
            row = self._before.get(object_id)
            outcome, reason = (row[0], row[1]) if row else (None, None)
            if row is not None and not replaces(
                item.finding, item.reason, outcome, reason,
                came_back=self._came_back(object_id, item, row),
            ):  # fmt: skip
                decisions[object_id] = _standing(object_id, item, row)
            else:
                fresh.append((object_id, item))
        fates = self._settle(fresh, self._removed_children(fresh))
        stays = self._plan.lasting
        self.changes.extend(_lost(c, stays[c]) for c in self._plan.lost & self._children)
        for object_id, item in fresh:
            fate = self._with_near_miss(item, fates.get(object_id))
            change = _change(object_id, item, fate, object_id in self._before)
            self.changes.append(change)
            if self._rulings:
                self._tie(object_id)
            decisions[object_id] = Decision(
                item.version, object_id, change.outcome, change.reason,
                change.representative, change.distance, self._turn.seq, is_new=True,
            )  # fmt: skip
        return [decisions[object_id] for object_id in self._object_ids]

    def _with_near_miss(self, item: Judged, fate: Fate | None) -> Fate | None:
        """The fate with its near miss from phase 1, if that image still represents and is the
        nearest."""
        missed = self._plan.near_miss.get(item.pixel_sha256 or b"")
        if fate is None or fate.reason != "new" or missed is None:
            return fate
        if missed[1] not in self._live or missed[1] in self._closing:
            return fate
        return replace(fate, near_miss=min(missed, fate.near_miss or missed))

    def _came_back(self, object_id: int, item: Judged, row: tuple[Any, ...]) -> bool:
        """A remembered image still filters: an object that comes back is its duplicate, like
        others."""
        return object_id not in self._live and comes_back(item, Ended(row[5], row[6]))

    def write(self) -> None:
        """Close what ends, add what begins."""
        turn = self._turn
        turn.close([change.object_id for change in self.changes if change.closes])
        turn.stop_representing(list(self._closing))
        turn.represent([change for change in self.changes if change.outcome == "kept"])
        turn.add(self.changes)
        turn.describe(self._attributes(), replace=any(change.closes for change in self.changes))
        turn.note_hits(self._hits())

    def _removed_children(self, fresh: list[tuple[int, Judged]]) -> list[Image]:
        """Duplicates to decide again. Raises StartAgainError for one that the plan does not
        know."""
        leaving = {
            object_id
            for object_id, item in fresh
            if item.finding == "gone" and forgets(self._collection, item)
        }
        self._closing = leaving & self._live.keys()
        if self._closing != self._plan.removing:
            raise StartAgainError
        known = {child.object_id for child in self._plan.children} | self._plan.lost
        if not self._children - leaving <= known:
            raise StartAgainError
        return [c for c in self._plan.children if c.object_id in self._children]

    def _tie(self, object_id: int) -> None:
        """A chosen image may displace others; its followers move with it."""
        if self._rulings.kind(object_id) == "choose":
            self.tied.add(object_id)
        self.tied |= self._rulings.followers.get(object_id, frozenset())

    def _settle(self, fresh: list[tuple[int, Judged]], children: list[Image]) -> dict[int, Fate]:
        """Duplicates of removed representatives first, then the items, each compared with those
        before."""
        kept, rule, rulings = self._kept(), self._plan.rule, self._rulings
        children = rulings.in_order(children, _object_id)
        if not rulings and self._plan_holds(children):
            ruled = self._plan.fates
            for child, fate in zip(children, ruled, strict=True):
                if fate.outcome == "kept":
                    kept.add(child)
        else:
            ruled = decide_batch(
                children, kept, rule, self._near(children), self._plan.judge, rulings=rulings
            )
        stays = self._plan.lasting
        self.changes.extend(
            _child_change(child, fate, stays[child.object_id])
            for child, fate in zip(children, ruled, strict=True)
        )
        items = rulings.in_order(
            [self._image(i, item) for i, item in fresh if item.finding == "embedded"], _object_id
        )
        if rule.keep_best is not None:
            # What was given to them is decided already.
            self._groups.held |= {fate.representative_object_id or 0 for fate in ruled}
            return self._settle_best(items, kept, rule.keep_best)
        fates = decide_batch(
            items, kept, rule, self._near(items), self._plan.judge, rulings=rulings
        )
        if not all(map(self._plan.covers, items, fates)):
            raise StartAgainError
        return {image.object_id: fate for image, fate in zip(items, fates, strict=True)}

    def _settle_best(self, items: list[Image], kept: Kept, margin: float) -> dict[int, Fate]:
        """One item after the other: a better one takes the place of its representative."""
        near, fates = self._near(items), dict[int, Fate]()
        moved: dict[int, tuple[Image, Fate]] = {}
        for item in items:
            try:
                step = decide_one(
                    item, kept, self._plan.judge, near[item.object_id], self._groups,
                    margin=margin, rulings=self._rulings,
                )  # fmt: skip
            except UnknownGroupError:
                raise StartAgainError from None
            self._groups.follow(item, step)
            fates[item.object_id] = step.fate
            for object_id, (image, fate) in step.displaced.items():
                if object_id in fates:
                    fates[object_id] = fate
                else:
                    moved[object_id] = (image, fate)
        self._closing |= moved.keys() & self._live.keys()
        stays = self._plan.lasting
        self.changes.extend(
            _child_change(image, fate, stays.get(image.object_id, {}))
            for image, fate in moved.values()
        )
        return fates

    def _plan_holds(self, children: list[Image]) -> bool:
        """Whether everything that the children were decided from is as it was."""
        plan = self._plan
        if len(children) < len(plan.children) or plan.matters(self._live) != plan.seen:
            return False
        newer = [image for i, image in self._tail.items() if i not in self._closing]
        return not may_be_near(children, newer, plan.rule.epsilon)

    def _kept(self) -> Kept:
        """Who represents now: proven candidates, the tail, and images with equal bytes."""
        live = {i: hashes for i, hashes in self._live.items() if i not in self._closing}
        kept = who_is_kept(self._plan, live)
        for object_id, image in self._tail.items():
            if object_id not in self._closing:
                kept.add(image)
        kept.named = {
            target: image
            for target, image in self._named.items()
            if image.object_id not in self._closing
        }
        return kept

    def _near(self, images: list[Image]) -> dict[int, list[int]]:
        near = self._plan.near
        return {image.object_id: near.get(image.pixel_sha256, []) for image in images}

    def _image(self, object_id: int, item: Judged) -> Image:
        assert item.pixel_sha256 is not None and item.content_sha256 is not None  # noqa: S101
        vector, look = self._plan.vectors[item.pixel_sha256]
        return Image(object_id, item.content_sha256, item.pixel_sha256, vector, look)

    def _hits(self) -> list[tuple[int, Match]]:
        """What watches matched among the items that are kept or duplicates from now on."""
        matches = self._plan.matches
        return [
            (change.object_id, match)
            for change in self.changes
            if matches and change.item is not None and change.pixel_sha256 in matches
            for match in matches[change.pixel_sha256]
            if change.outcome == "kept" or (change.outcome == "duplicate" and match.duplicates)
        ]

    def _attributes(self) -> list[AttributeRow]:
        return [
            AttributeRow(change.object_id, source, values)
            for change in self.changes
            if change.item is not None and change.outcome != "gone"
            for source, values in _attributes(self._collection, change.item).items()
            if values
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """One decision to write."""

    object_id: int
    outcome: Outcome
    reason: str
    closes: bool
    """Whether an open decision ends with it."""
    content_sha256: bytes | None
    pixel_sha256: bytes | None
    representative: int | None = None
    distance: float | None = None
    item: Judged | None = None
    """What was found; None for a child of a removed representative."""
    detail: Mapping[str, Any] = field(default_factory=dict)


def _standing(object_id: int, item: Judged, row: tuple[Any, ...]) -> Decision:
    """The decision that was there already."""
    outcome, reason, representative, distance, seq = row[:5]
    return Decision(
        item.version, object_id, outcome, reason, representative, distance, seq, is_new=False
    )


def _change(object_id: int, item: Judged, fate: Fate | None, closes: bool) -> _Change:
    if item.finding == "embedded":
        assert fate is not None  # noqa: S101
        return _Change(
            object_id, fate.outcome, fate.reason, closes,
            item.content_sha256, item.pixel_sha256,
            fate.representative_object_id, fate.distance, item, {**item.detail, **fate.detail()},
        )  # fmt: skip
    return _Change(
        object_id, item.finding, item.reason or item.finding, closes,
        item.content_sha256, item.pixel_sha256, item=item, detail=item.detail,
    )  # fmt: skip


def _object_id(image: Image) -> int:
    return image.object_id


def _child_change(child: Image, fate: Fate, stays: Mapping[str, Any]) -> _Change:
    reason = promoted(fate)
    return _Change(
        child.object_id, fate.outcome, reason, True, child.content_sha256, child.pixel_sha256,
        fate.representative_object_id, fate.distance, detail={**stays, **fate.detail()},
    )  # fmt: skip


def _lost(child: int, stays: Mapping[str, Any]) -> _Change:
    """Without a vector it can only be this outcome; when it is sent again, it is embedded again."""
    return _Change(child, "failed", "vector_missing", True, None, None, detail=stays)


def object_columns(collection: Collection, items: Sequence[Judged]) -> dict[str, list[Any]]:
    """Facts of objects as the column arrays that ``upsert_objects`` takes."""
    return {
        **version_columns([item.version for item in items]),
        "etags": [item.etag for item in items],
        "sizes": [item.size_bytes for item in items],
        "sequencers": [item.sequencer for item in items],
        "contents": [item.content_sha256 for item in items],
        "pixels": [item.pixel_sha256 for item in items],
        "facts": [None if i.image_facts is None else Jsonb(dict(i.image_facts)) for i in items],
        "qualities": [None if i.quality is None else Jsonb(dict(i.quality)) for i in items],
        "captured_ats": [_key_facts(collection, i).captured_at or i.captured_at for i in items],
        "stored_ats": [item.stored_at for item in items],
        "thumbnails": [item.thumbnail_key for item in items],
    }


def _attributes(collection: Collection, item: Judged) -> dict[str, Mapping[str, str]]:
    return {"key": _key_facts(collection, item).attributes, **item.attributes}


def _key_facts(collection: Collection, item: Judged) -> KeyFacts:
    return read_key(_compiled(collection.key_pattern), item.version.key)


@lru_cache(maxsize=64)
def _compiled(key_pattern: str | None) -> re.Pattern[str] | None:
    return compile_key_pattern(key_pattern)
