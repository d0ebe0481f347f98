"""Phase 1 of the decision protocol: no lock, no transaction; the watermark is read first."""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import numpy as np

from pixsift.adapters.ledger.history import StartAgainError, check_space
from pixsift.adapters.ledger.keep_best import PlannedGroup, merit_of, planned_groups
from pixsift.adapters.ledger.protected_sets import ArrivalGuard
from pixsift.adapters.ledger.watch_rows import KnownWatches, token_asked, token_of
from pixsift.adapters.postgres.database import Connection, Cursor, Database
from pixsift.core.choosing.rows import ArrayRows
from pixsift.core.collection import Collection, HistoryPoint
from pixsift.core.dedup import (
    Fate,
    Halves,
    Image,
    Judge,
    Kept,
    NearRule,
    decide_batch,
    foresee_batch,
)
from pixsift.core.identity import ObjectVersion
from pixsift.core.keep_best import beats
from pixsift.core.outcomes import Judged, lasting
from pixsift.core.protection import NEAR_PROTECTED, within
from pixsift.core.second_look import LookRule
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.core.watching import Match
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("ledger")
_RULINGS = statements("rulings")


@dataclass(slots=True, eq=False)
class Plan:
    """What phase 1 found out."""

    items: list[Judged]
    generation: int
    rule: NearRule
    marks: "Marks"
    points: tuple[HistoryPoint, ...]
    """Where the history was when it was read and searched."""
    watermark: int = np.iinfo(np.int64).max
    """If there is nothing to compare, the tail does not matter, however long it is."""
    vectors: dict[bytes, tuple[Halves, bytes]] = field(default_factory=dict)
    """Pixel hash -> the vector and look that the decision is measured on."""
    stored: set[bytes] = field(default_factory=set)
    """Pixel hashes whose vector the ledger has."""
    removing: set[int] = field(default_factory=set)
    """Representatives that are removed."""
    children: list[Image] = field(default_factory=list)
    """Their duplicates, in the order in which they are decided again."""
    lasting: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The part of the detail of each of their duplicates that stays."""
    apart: set[ObjectVersion] = field(default_factory=set)
    """Items ruled not to be the same as another image: it may be the nearest."""
    lost: set[int] = field(default_factory=set)
    """Their duplicates that cannot be: the vector is gone."""
    near: dict[bytes, list[int]] = field(default_factory=dict)
    """Pixel hash -> candidates that satisfy the rule, or were not judged; nearest first."""
    settled_at: dict[bytes, float] = field(default_factory=dict)
    """Pixel hash -> the distance up to which ``near`` is complete, where it is not altogether."""
    near_miss: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    """Pixel hash -> distance and object id of the nearest candidate that was judged not near."""
    protected: tuple[UUID, ...] = ()
    """Evaluation sets in force: arrivals near them are flagged."""
    groups: dict[int, PlannedGroup] = field(default_factory=dict)
    """With keep-best: the candidates, as what an item could take the place of."""
    members: dict[int, dict[int, Image]] = field(default_factory=dict)
    """With keep-best: what those stand for that an item is better than."""
    judge: Judge = field(init=False)
    """Verdicts so far: no pair is judged again under the lock."""
    candidates: dict[int, Image] = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    """The fates of the duplicates, valid as long as nothing that matters to them changes."""
    seen: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """What the fates depend on: the living representatives with their content and pixel hashes."""
    watch_token: UUID | None = None
    """Of the watches that the items were compared with; None: there was never one."""
    matches: dict[bytes, list[Match]] = field(default_factory=dict)
    """Pixel hash -> the watches that an item matches, whatever becomes of it."""

    def __post_init__(self) -> None:
        self.judge = Judge(self.rule)

    def covers(self, item: Image, fate: Fate) -> bool:
        """Whether no image outside the plan could have been nearer."""
        complete_to = self.settled_at.get(item.pixel_sha256)
        if complete_to is None:
            return True
        return fate.distance is not None and fate.distance <= complete_to

    def matters(self, live: Mapping[int, tuple[bytes, bytes]]) -> dict[int, tuple[bytes, bytes]]:
        """Those of ``live`` that stay and that a child could be a duplicate of."""
        contents = {child.content_sha256 for child in self.children}
        pixels = {child.pixel_sha256 for child in self.children}
        return {
            i: hashes
            for i, hashes in live.items()
            if i not in self.removing
            and (i in self.candidates or hashes[0] in contents or hashes[1] in pixels)
        }


class Planner:
    """Makes plans. Thread-safe."""

    def __init__(self, database: Database, search: NeighborSearch) -> None:
        self._database = database
        self._search = search
        self._guard = ArrivalGuard(database)
        self._images: defaultdict[str, _Images] = defaultdict(_Images)
        """By space: the same pixels have different vectors in different spaces."""
        self._watches = KnownWatches()

    def plan(self, collection: Collection, items: list[Judged]) -> Plan:
        """Everything that can be found out about ``items`` without the lock."""
        with self._database.connection() as connection:
            plan = self._read(connection, collection, items)
            if plan.watch_token is not None and plan.vectors:
                self._match_watches(connection, collection, plan)
        if plan.protected:
            plan.items = self._flagged(collection, plan)
        self._find_candidates(collection, plan)
        if plan.children:
            self._settle_children(collection, plan)
        return plan

    def _read(self, connection: Connection, collection: Collection, items: list[Judged]) -> Plan:
        # Read each time: another ledger may answer under the same name by now.
        marks = Marks(read_salt(connection), items)
        names = {"collection_id": collection.collection_id}
        pixels = {i.pixel_sha256 for i in items if i.finding == "embedded" and i.pixel_sha256}
        with connection.pipeline():
            read = connection.execute(_SQL["read_watermark"], names)
            buried = marks.ask(connection)
            stored = connection.cursor(binary=True).execute(
                _SQL["embeddings"],
                {"space_id": collection.space_id, "pixel_sha256s": list(pixels)},
            )
            versions = version_columns([item.version for item in items])
            apart = connection.execute(_RULINGS["versions_apart"], names | versions)
            watching = token_asked(connection, collection.collection_id)
        row = read.fetchone()
        if row is None:
            raise TransientError(f"collection {collection.name} is gone")
        seq, token, generation, epsilon, second_look, keep_best, space_id, protected = row
        check_space(collection, space_id)
        items = _bury(items, marks.erased(buried))
        rule, marks = near_rule(epsilon, second_look, keep_best), Marks(marks.salt, items)
        plan = Plan(items, generation, rule, marks, (HistoryPoint(seq, token),))
        plan.protected = tuple(protected)
        plan.apart = {ObjectVersion(*row) for row in apart.fetchall()}
        plan.watch_token = token_of(watching)
        _choose_vectors(plan, stored)
        _find_children(connection, collection, plan)
        return plan

    def _flagged(self, collection: Collection, plan: Plan) -> list[Judged]:
        """The items; those near a picture of an evaluation set, and not in one, get its flag."""
        protection = self._guard.protection(collection, plan.protected)
        if not plan.vectors or not any(len(each.pixels) for each in protection.sets):
            return plan.items
        rows = ArrayRows(np.stack([vector for vector, _ in plan.vectors.values()]))
        near = {
            pixels for pixels, is_near in zip(
                plan.vectors, within(rows, protection).tolist(), strict=True
            ) if is_near
        }  # fmt: skip
        return [
            replace(item, detail={
                **item.detail, "flags": [*item.detail.get("flags", ()), NEAR_PROTECTED],
            })
            if item.finding == "embedded" and item.pixel_sha256 in near
            and not protection.of_key(item.version.bucket, item.version.key)
            else item
            for item in plan.items
        ]  # fmt: skip

    def _match_watches(self, connection: Connection, collection: Collection, plan: Plan) -> None:
        """All watches and all vectors in one product, before the lock."""
        matcher = self._watches.of(connection, collection, plan.watch_token)
        if matcher:
            found = matcher.match(np.stack([vector for vector, _ in plan.vectors.values()]))
            plan.matches = {p: m for p, m in zip(plan.vectors, found, strict=True) if m}

    def _find_candidates(self, collection: Collection, plan: Plan) -> None:
        """Search, then keep what satisfies the rule by the exact distance on stored values."""
        queries = dict(plan.vectors)
        queries.update({c.pixel_sha256: (c.embedding, c.look) for c in plan.children})
        if not queries:
            return
        found = self._search.within(
            collection.collection_id,
            np.stack([vector for vector, _ in queries.values()]),
            plan.rule.epsilon,
        )
        if found.generation != plan.generation:
            raise StartAgainError
        plan.watermark = found.watermark
        plan.points += (HistoryPoint(found.watermark, found.token),)
        wanted = {int(i) for ids in found.object_ids for i in ids} - plan.removing
        if wanted:
            plan.candidates = self._candidates(collection, plan, wanted)
        for pixels, ids in zip(queries, found.object_ids, strict=True):
            plan.near[pixels] = [int(i) for i in ids if int(i) in plan.candidates]
        if plan.rule.keep_best is not None:
            self._read_groups(collection, plan)  # all near candidates are needed
        elif not plan.children:
            _foresee(plan)

    def _read_groups(self, collection: Collection, plan: Plan) -> None:
        """Candidates that an item is better than, and all that they stand for."""
        names = {
            "collection_id": collection.collection_id, "generation": plan.generation,
            "space_id": collection.space_id,
        }  # fmt: skip
        with self._database.connection() as connection:
            plan.groups = planned_groups(connection, names, list(plan.candidates))
            wanted = {
                other
                for item in plan.items
                if item.finding == "embedded" and item.pixel_sha256 is not None
                for other in plan.near[item.pixel_sha256]
                if other in plan.groups and not plan.groups[other].is_held
                and other not in plan.removing
                and beats(merit_of(item), plan.groups[other].merit, plan.rule.keep_best or 0.0)
            }  # fmt: skip
            cursor = connection.cursor(binary=True).execute(
                _SQL["children"], {**names, "representatives": list(wanted)}
            )
            plan.members = {i: {} for i in wanted}
            for row in cursor.fetchall():
                plan.lasting[row[0]] = lasting(row[5])
                if any(value is None for value in row[1:4]):
                    plan.members.pop(row[6], None)  # one has no vector: it cannot be compared
                elif row[6] in plan.members:
                    plan.members[row[6]][row[0]] = image_of(row)
        plan.lasting |= {i: dict(group.detail) for i, group in plan.groups.items()}
        plan.groups = {
            i: group if i in plan.members or i not in wanted else replace(group, is_held=True)
            for i, group in plan.groups.items()
        }

    def _candidates(
        self, collection: Collection, plan: Plan, object_ids: set[int]
    ) -> dict[int, Image]:
        """Those of ``object_ids`` that are alive; vectors and signals from memory if held."""
        held = self._images[collection.space_id]
        known = held.find(object_ids)
        names = {"collection_id": collection.collection_id, "generation": plan.generation}
        with self._database.connection() as connection:
            alive = (
                living(
                    connection.execute(
                        _SQL["alive"],
                        {**names, "object_ids": list(known), "contents": [], "pixels": []},
                    )
                )
                if known
                else {}
            )
            same = {i for i, (_, pixels) in alive.items() if known[i].pixel_sha256 == pixels}
            held.forget(known.keys() - same)
            missing = object_ids - known.keys() | alive.keys() - same
            if missing:
                asked = {**names, "object_ids": list(missing)}
                cursor = connection.cursor(binary=True).execute(_SQL["candidates"], asked)
                read = images(cursor)
                held.remember(read)
                return {i: known[i] for i in same} | read
        return {i: known[i] for i in same}

    def _settle_children(self, collection: Collection, plan: Plan) -> None:
        """Decide the children before the lock: there may be a hundred thousand of them."""
        names = {
            "collection_id": collection.collection_id,
            "generation": plan.generation,
            "object_ids": list(plan.candidates),
            "contents": [child.content_sha256 for child in plan.children],
            "pixels": [child.pixel_sha256 for child in plan.children],
        }
        with self._database.connection() as connection:
            plan.seen = plan.matters(living(connection.execute(_SQL["alive"], names)))
        near = {child.object_id: plan.near[child.pixel_sha256] for child in plan.children}
        kept = who_is_kept(plan, plan.seen)
        plan.fates = decide_batch(plan.children, kept, plan.rule, near, plan.judge)


class Marks:
    """The tombstone marks of a batch: by version and by bytes."""

    def __init__(self, salt: bytes, items: Iterable[Judged]) -> None:
        self.salt = salt
        self._by_version: dict[bytes, ObjectVersion] = {}
        self._by_content: dict[bytes, list[ObjectVersion]] = {}
        for item in items:
            if item.finding == "gone" and item.reason == "erased":
                continue
            self._by_version[version_mark(salt, item.version)] = item.version
            if item.content_sha256 is not None:
                mark = content_mark(salt, item.content_sha256)
                self._by_content.setdefault(mark, []).append(item.version)

    def ask(self, connection: Connection) -> Cursor:
        """Send the question; ``erased`` reads the answer."""
        return connection.execute(
            _SQL["tombstones"],
            {"version_marks": list(self._by_version), "content_marks": list(self._by_content)},
        )

    def erased(self, answer: Cursor) -> set[ObjectVersion]:
        """Versions of the batch that an erasure has marked."""
        found: set[ObjectVersion] = set()
        for version, content in answer.fetchall():
            if (hit := self._by_version.get(bytes(version))) is not None:
                found.add(hit)
            if content is not None:
                found.update(self._by_content.get(bytes(content), ()))
        return found


def living(answer: Cursor) -> dict[int, tuple[bytes, bytes]]:
    """Rows of ``alive``: content and pixel hash by object id."""
    return {i: (bytes(content), bytes(pixels)) for i, content, pixels in answer.fetchall()}


def who_is_kept(plan: Plan, live: Mapping[int, tuple[bytes, bytes]]) -> Kept:
    """The representatives among ``live``: those with equal bytes, and the plan's candidates."""
    kept = Kept()
    for object_id, (content, pixels) in live.items():
        kept.by_content[content] = object_id
        kept.by_pixels[pixels] = object_id
        if object_id in plan.candidates:
            kept.candidates[object_id] = plan.candidates[object_id]
    return kept


def near_rule(
    epsilon: float, second_look: Mapping[str, Any] | None, keep_best: float | None = None
) -> NearRule:
    """The rule of a generation from its stored parameters."""
    look = None if second_look is None else LookRule.from_json(dict(second_look))
    return NearRule(epsilon, look, keep_best)


def read_salt(connection: Connection) -> bytes:
    """What tombstone marks are made with; one per ledger, never changes."""
    row = connection.execute(_SQL["salt"]).fetchone()
    assert row is not None  # noqa: S101 - the migration put it there
    return bytes(row[0])


def forgets(collection: Collection, item: Judged) -> bool:
    """Whether a ``gone`` image also stops filtering what comes after it."""
    return not (item.reason == "expired" and collection.expiry_policy == "remember")


def version_columns(versions: Sequence[ObjectVersion]) -> dict[str, list[str]]:
    """Versions as the column arrays that the statements take."""
    return {
        "buckets": [version.bucket for version in versions],
        "keys": [version.key for version in versions],
        "version_ids": [version.version_id for version in versions],
    }


def images(cursor: Cursor) -> dict[int, Image]:
    """Rows of a binary cursor that begin with an image's columns, by object id, in order."""
    return {row[0]: image_of(row) for row in cursor.fetchall()}


def image_of(row: Sequence[Any]) -> Image:
    """A row that begins with an image's columns."""
    return Image(row[0], bytes(row[1]), bytes(row[2]), row[3], bytes(row[4]))


def _bury(items: list[Judged], erased: set[ObjectVersion]) -> list[Judged]:
    """Erased items become ``gone``, and their facts are dropped."""
    if not erased:
        return items
    return [
        Judged(item.version, "gone", "erased", sequencer=item.sequencer)
        if item.version in erased
        else item
        for item in items
    ]


def _choose_vectors(plan: Plan, stored: Cursor) -> None:
    """Stored vectors come before new ones: one vector per pixels, the first one."""
    known = {bytes(pixels): (vector, bytes(look)) for pixels, vector, look in stored.fetchall()}
    for item in plan.items:
        if item.finding != "embedded":
            continue
        if item.pixel_sha256 is None or item.content_sha256 is None:
            raise ValueError(f"{item.version.uri}: embedded without content and pixel hash")
        if item.pixel_sha256 in known:
            plan.vectors[item.pixel_sha256] = known[item.pixel_sha256]
            plan.stored.add(item.pixel_sha256)
        elif item.embedding is not None:
            vector = np.asarray(item.embedding, np.float16)
            plan.vectors.setdefault(item.pixel_sha256, (vector, item.look))
    for item in plan.items:
        if item.finding == "embedded" and item.pixel_sha256 not in plan.vectors:
            raise TransientError(f"the ledger has no embedding of {item.version.uri} any more")


def _find_children(connection: Connection, collection: Collection, plan: Plan) -> None:
    forgotten = [i for i in plan.items if i.finding == "gone" and forgets(collection, i)]
    if not forgotten:
        return
    names = {
        "collection_id": collection.collection_id,
        "generation": plan.generation,
        "space_id": collection.space_id,
        "reasons": [item.reason for item in forgotten],
        **version_columns([item.version for item in forgotten]),
    }
    removable = connection.execute(_SQL["removable"], names).fetchall()
    plan.removing = {object_id for (object_id,) in removable}
    if not plan.removing:
        return
    leaving = {i for (i,) in connection.execute(_SQL["object_ids"], names).fetchall()}
    cursor = connection.cursor(binary=True).execute(
        _SQL["children"], {**names, "representatives": list(plan.removing)}
    )
    rows = [row for row in cursor.fetchall() if row[0] not in leaving]
    plan.lost = {row[0] for row in rows if any(value is None for value in row[1:4])}
    plan.children = [image_of(row) for row in rows if row[0] not in plan.lost]
    plan.lasting = {row[0]: lasting(row[5]) for row in rows}


_SPARE = 4
"""Candidates of an item that are read under the lock although they were not judged: they are needed
if a nearer one has been removed."""


def _foresee(plan: Plan) -> None:
    """Decide the items as if nothing changes until the lock, and keep the verdicts for it."""
    items = [
        Image(-1 - place, item.content_sha256, item.pixel_sha256, *plan.vectors[item.pixel_sha256])
        for place, item in enumerate(plan.items)
        if item.finding == "embedded" and item.pixel_sha256 and item.content_sha256
    ]
    kept = Kept(candidates=dict(plan.candidates))
    near = {item.object_id: plan.near.get(item.pixel_sha256, []) for item in items}
    needed: dict[bytes, list[int]] = {}
    complete_to: dict[bytes, float] = {}
    foreseen = foresee_batch(items, kept, plan.judge, near)
    for item, found in zip(items, foreseen, strict=True):
        ids = [i for i in found.open if i in plan.candidates]
        is_apart = plan.items[-1 - item.object_id].version in plan.apart
        count = len(ids) if is_apart else found.agreed + _SPARE
        known = needed.setdefault(item.pixel_sha256, [])
        known += [i for i in ids[:count] if i not in known]
        if found.near_miss is not None and found.near_miss[1] in plan.candidates:
            plan.near_miss[item.pixel_sha256] = found.near_miss
        reach = found.distance if len(ids) > count else np.inf
        complete_to[item.pixel_sha256] = max(reach, complete_to.get(item.pixel_sha256, 0.0))
    plan.near = needed
    plan.settled_at = {pixels: reach for pixels, reach in complete_to.items() if reach < np.inf}
    plan.candidates = {i: plan.candidates[i] for ids in needed.values() for i in ids}


class _Images:
    """The latest candidates with their vectors and signals. Thread-safe, bounded."""

    def __init__(self, most: int = 8192) -> None:
        """most: about 8 kB each at 1,280 dimensions."""
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Image] = OrderedDict()

    def find(self, object_ids: Iterable[int]) -> dict[int, Image]:
        with self._lock:
            found = {i: self._held[i] for i in object_ids if i in self._held}
            for object_id in found:
                self._held.move_to_end(object_id)
        return found

    def remember(self, images: Mapping[int, Image]) -> None:
        with self._lock:
            self._held.update(images)
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def forget(self, object_ids: Iterable[int]) -> None:
        with self._lock:
            for object_id in object_ids:
                self._held.pop(object_id, None)
