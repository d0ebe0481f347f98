"""Decides single objects of a collection again, or takes their decisions back.

An audit repairs with it, and ``pixsift undo`` uses it. The protocol is the one of arrival: search
first, up to a watermark; then, under the collection's lock, prove the candidates alive, look at
what is newer, decide and write. Objects whose verdict stays as it was get no new row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.rows import class_row

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.decision_plan import image_of, images, near_rule
from pixsift.adapters.ledger.history import NewRuling, StartAgainError, Turn
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.arrival_order import decide_as_arrived, first, takes_place
from pixsift.core.collection import Collection, HistoryPoint
from pixsift.core.dedup import Fate, Image, Kept, NearRule, decide_batch
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import lasting
from pixsift.core.rulings import REASON, Ruling, Rulings
from pixsift.core.successor import State, promoted
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("rejudge")
_RULINGS = statements("rulings")
_ATTEMPTS = 20

Standing = tuple[str, str, int | None, float | None, dict[str, Any]]
"""Outcome, reason, representative, distance, detail."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """One object whose outcome is another one now."""

    object_id: int
    was: str
    outcome: str
    reason: str
    representative: int | None
    distance: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """An object version of the ledger."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    etag: str | None
    size_bytes: int | None

    @property
    def version(self) -> ObjectVersion:
        """Its identity."""
        return ObjectVersion(self.bucket, self.key, self.version_id)


@dataclass(frozen=True, slots=True)
class Change:
    """What a turn does to the rulings in force."""

    say: tuple[NewRuling, ...] = ()
    take_back: Mapping[UUID, Ruling] = field(default_factory=dict)
    frees: bool = False
    """Whether a ruling taken back had put another image in the place of one: who was kept or not
    because of it is decided as they arrived."""

    def __bool__(self) -> bool:
        return bool(self.say or self.take_back)

    def touches(self) -> set[int]:
        """The objects that it is about."""
        rulings = [*(new.ruling for new in self.say), *self.take_back.values()]
        return {i for ruling in rulings for i in ruling.touches()}

    def after(self, in_force: Sequence[Ruling]) -> Rulings:
        """What is in force with it."""
        ended = set(self.take_back.values())
        stays = [ruling for ruling in in_force if ruling not in ended]
        return Rulings.of([*stays, *(new.ruling for new in self.say)])


NO_CHANGE = Change()


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be done."""

    object_ids: frozenset[int]
    change: Change
    why: str
    check: Callable[[Connection], None] = lambda connection: None
    dry_run: bool = False
    as_arrived: bool = False

    @property
    def is_as_arrived(self) -> bool:
        """Whether it is decided in the order of arrival."""
        return self.as_arrived or self.change.frees


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    generation: int
    rule: NearRule
    watermark: int
    points: tuple[HistoryPoint, ...]
    asked: frozenset[int]
    """What is decided again, with what the rulings tie to it; children come with them."""
    subjects: dict[int, Image]
    """Those of them that can be decided, in the order of the decision."""
    near: dict[int, list[int]]
    rulings: Rulings
    """In force about the subjects and those near the chosen, with the change."""
    said: frozenset[Ruling]
    """The same before the change: what must still hold under the lock."""
    as_arrived: bool = False
    """Each subject is compared only with kept images that arrived before it."""


class Rejudge:
    """Re-decides objects. The search is exact: a repair must not miss what an index missed."""

    def __init__(
        self,
        database: Database,
        *,
        search: NeighborSearch | None = None,
        actor: str = "pixsift",
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """actor: who the turns say made them. pause: called between search and lock; tests change
        the collection there."""
        self._database = database
        self._actor = actor
        self._search = search or ResidentSearch(database)
        self._pause = pause

    def find(self, bucket: str, key: str, version_id: str | None) -> list[Known]:
        """The versions of a key that the ledger knows and has not erased."""
        names = {"bucket": bucket, "key": key, "version_id": version_id}
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Known))
            return cursor.execute(_SQL["versions_under_key"], names).fetchall()

    def again(
        self,
        collection: Collection,
        object_ids: Sequence[int],
        *,
        why: str,
        as_arrived: bool = False,
    ) -> list[Rejudged]:
        """Decide the kept and duplicate ones of ``object_ids`` again, and what they represent.

        why: the turn's reason, and part of every new decision's detail. as_arrived: in the order of
        arrival, each only next to those that arrived before it; otherwise what is kept stays.
        Returns those whose outcome changed. Raises TransientError when the collection changes
        faster than this can be planned.
        """
        order = _Order(frozenset(object_ids), NO_CHANGE, why, as_arrived=as_arrived)
        return self._run(collection, order)

    def obey(
        self,
        collection: Collection,
        change: Change,
        *,
        why: str,
        check: Callable[[Connection], None] = lambda connection: None,
        dry_run: bool = False,
    ) -> list[Rejudged]:
        """Change the rulings in force, and decide again what they touch, in one turn.

        check: called under the lock before anything is written; it raises what refuses the change.
        dry_run: roll back. Returns and raises as ``again`` does.
        """
        order = _Order(frozenset(change.touches()), change, why, check, dry_run)
        return self._run(collection, order)

    def take_back(
        self, collection: Collection, object_ids: Sequence[int], *, why: str = "undo"
    ) -> list[int]:
        """Close the rejected, failed and gone decisions of ``object_ids``: undecided again.

        Returns those that were. The caller sends them through the queue once more. What a ruling
        rejected stays so until the ruling is taken back.
        """
        with (
            self._database.transaction() as connection,
            history.turn(connection, collection, actor=self._actor, reason=why) as turn,
        ):
            names = {
                "collection_id": collection.collection_id, "generation": turn.generation,
                "object_ids": list(object_ids),
            }  # fmt: skip
            rows = connection.execute(_SQL["standing"], names).fetchall()
            undone = [
                row[0] for row in rows
                if row[1] in ("rejected", "failed", "gone") and row[2] not in ("erased", REASON)
            ]  # fmt: skip
            turn.close(undone)
            # A remembered one represents although it is gone; it ends where it is taken back.
            turn.stop_representing(undone)
        return undone

    def _run(self, collection: Collection, order: _Order) -> list[Rejudged]:
        for _ in range(_ATTEMPTS):
            plan = self._plan(collection, order)
            if not plan.subjects and not order.change:
                return []
            self._pause()
            try:
                return self._settle(collection, plan, order)
            except StartAgainError:
                continue
            except _DryRunError as done:
                return done.changed
        raise TransientError(f"collection {collection.name!r} changes too fast to be repaired now")

    def _plan(self, collection: Collection, order: _Order) -> _Plan:
        change = order.change
        names: dict[str, Any] = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            row = connection.execute(_SQL["rule_in_use"], names).fetchone()
            assert row is not None  # noqa: S101 - collections are never deleted
            seq, token, generation, epsilon, second_look, space_id = row
            history.check_space(collection, space_id)
            point = HistoryPoint(seq, token)
            rule = near_rule(epsilon, second_look)
            names |= {"generation": generation, "space_id": collection.space_id}
            asked, subjects = self._subjects(connection, names, order.object_ids, change)
        if not subjects:
            with self._database.connection() as connection:
                said = self._said(connection, names, {}, {}, change)
            return _Plan(
                generation, rule, 0, (point,), asked, {}, {}, change.after(said), frozenset(said)
            )
        while True:
            found = self._search.within(
                collection.collection_id,
                np.stack([image.embedding for image in subjects.values()]),
                epsilon,
            )
            near = {
                subject: [int(i) for i in ids]
                for subject, ids in zip(subjects, found.object_ids, strict=True)
            }
            with self._database.connection() as connection:
                said = self._said(connection, names, subjects, near, change)
                kept = self._kept(connection, names, subjects, near, found.watermark)
                plan = _Plan(
                    # A switch between the two reads: no generation has this number, so the lock
                    # says so.
                    generation if found.generation == generation else -1,
                    rule, found.watermark, (point, HistoryPoint(found.watermark, found.token)),
                    asked, subjects, near, change.after(said), frozenset(said),
                    order.is_as_arrived,
                )  # fmt: skip
                displaced = _displaced(plan, kept, connection, names)
                if displaced <= asked:
                    return plan
                asked, subjects = self._subjects(connection, names, asked | displaced, change)

    def _subjects(
        self, connection: Connection, names: dict[str, Any], object_ids: Set[int], change: Change
    ) -> tuple[frozenset[int], dict[int, Image]]:
        """The objects with their followers, and the images of both and of what they represent.

        In the order of the decision but for what rulings say: kept ones first, and where a ruling
        is taken back, its images in the order of arrival among the others.
        """
        ended = {i for ruling in change.take_back.values() for i in ruling.touches()}
        while True:
            asked = frozenset(object_ids)
            cursor = connection.cursor(binary=True)
            rows = cursor.execute(_SQL["subjects"], names | {"object_ids": list(asked)})
            subjects = images(rows)
            touched = list(asked | subjects.keys())
            said = read_rulings(connection, names, touched)
            object_ids = change.after(said).with_followers(asked)
            # A child that changes hands takes its followers with it.
            object_ids |= change.after(said).with_followers(subjects) - subjects.keys()
            if object_ids == asked:
                break
        if ended:
            stays = [i for i in subjects if i not in ended and i in asked]
            places = _places(connection, names, subjects)
            rest = sorted(subjects.keys() - set(stays), key=lambda i: places[i])
            subjects = {i: subjects[i] for i in [*stays, *rest]}
        return asked, subjects

    def _said(
        self, connection: Connection, names: dict[str, Any], subjects: Mapping[int, Image],
        near: Mapping[int, Sequence[int]], change: Change,
    ) -> list[Ruling]:  # fmt: skip
        """In force before the change, about the subjects and those near the chosen."""
        ids = set(subjects) | change.touches()
        ids |= {other for others in near.values() for other in others}
        return read_rulings(connection, names, list(ids))

    def _settle(self, collection: Collection, plan: _Plan, order: _Order) -> list[Rejudged]:
        """Decide and write, in one turn. Raises StartAgainError when what the plan did not know has
        happened."""
        with (
            self._database.transaction() as connection,
            history.turn(
                connection,
                collection,
                generation=plan.generation,
                points=plan.points,
                actor=self._actor,
                reason=order.why,
            ) as turn,
        ):
            names: dict[str, Any] = {
                "collection_id": collection.collection_id, "generation": plan.generation,
                "space_id": collection.space_id,
            }  # fmt: skip
            said = self._said(connection, names, plan.subjects, plan.near, order.change)
            if frozenset(said) != plan.said:
                raise StartAgainError
            order.check(connection)
            turn.say(order.change.say)
            turn.take_rulings_back(list(order.change.take_back))
            changed, standing = self._decide(turn, plan, names)
            _write(turn, changed, standing, order.why)
            told = [
                Rejudged(
                    object_id, standing[object_id][0], fate.outcome, fate.reason,
                    fate.representative_object_id, fate.distance,
                )
                for object_id, (_, fate) in changed.items()
            ]  # fmt: skip
            if order.dry_run:
                raise _DryRunError(told)
        return told

    def _decide(
        self, turn: Turn, plan: _Plan, names: dict[str, Any]
    ) -> tuple[dict[int, tuple[Image, Fate]], dict[int, Standing]]:
        """Under the lock: whose fate is another one, and what everybody's was."""
        connection = turn.connection
        cursor = connection.cursor(binary=True)
        rows = cursor.execute(_SQL["subjects"], names | {"object_ids": list(plan.asked)})
        if images(rows).keys() != plan.subjects.keys():
            raise StartAgainError
        kept = self._kept(connection, names, plan.subjects, plan.near, plan.watermark)
        displaced = _displaced(plan, kept, connection, names)
        if not displaced <= plan.asked:
            raise StartAgainError
        # Remembered ones that a chosen image displaces: their memory ends, nothing is decided.
        ending = sorted(displaced - plan.subjects.keys())
        turn.stop_representing(ending)
        rows = connection.execute(_SQL["standing"], names | {"object_ids": list(plan.subjects)})
        standing: dict[int, Standing] = {row[0]: row[1:] for row in rows.fetchall()}
        subjects = plan.rulings.in_order(list(plan.subjects.values()), _object_id)
        who = _without(kept, ending)
        targets = {t for i in plan.subjects if (t := plan.rulings.same_as(i)) is not None}
        who.named.update(
            read_represented(connection, names, targets - plan.subjects.keys(), set(ending))
        )
        if plan.as_arrived:
            places = _places(connection, names, _ids(subjects) | _ids(who.tail))
            fates, _ = decide_as_arrived(
                subjects, who, plan.rule, plan.rulings, places=places, near=plan.near
            )
        else:
            fates = decide_batch(subjects, who, plan.rule, plan.near, rulings=plan.rulings)
        return {
            image.object_id: (image, fate)
            for image, fate in zip(subjects, fates, strict=True)
            if _differs(standing[image.object_id], fate)
        }, standing

    def _kept(
        self, connection: Connection, names: Mapping[str, Any], subjects: Mapping[int, Image],
        near: Mapping[int, Sequence[int]], watermark: int,
    ) -> Kept:  # fmt: skip
        """Who represents now, without the subjects themselves."""
        cursor = connection.cursor(binary=True).execute(
            _SQL["living"],
            {
                **names,
                "object_ids": [i for ids in near.values() for i in ids],
                "contents": [image.content_sha256 for image in subjects.values()],
                "pixels": [image.pixel_sha256 for image in subjects.values()],
                "watermark": watermark,
            },
        )
        kept = Kept()
        for object_id, image in images(cursor).items():
            if object_id not in subjects:
                kept.add(image)
        return kept


class _DryRunError(Exception):
    """Ends the transaction of a dry run."""

    def __init__(self, changed: list[Rejudged]) -> None:
        super().__init__()
        self.changed = changed


def read_rulings(
    connection: Connection, names: Mapping[str, Any], object_ids: Sequence[int]
) -> list[Ruling]:
    """Those in force about any of these objects."""
    rows = connection.execute(
        _RULINGS["rulings_touching"], {**names, "object_ids": list(object_ids)}
    )
    return [Ruling(*row) for row in rows.fetchall()]


def read_represented(
    connection: Connection, names: Mapping[str, Any], object_ids: Set[int], ending: Set[int]
) -> dict[int, Image]:
    """Who represents each of these objects, itself where it is kept; without those that end now."""
    if not object_ids:
        return {}
    rows = (
        connection.cursor(binary=True)
        .execute(_RULINGS["represented_by"], {**names, "object_ids": list(object_ids)})
        .fetchall()
    )
    return {row[5]: image_of(row) for row in rows if row[0] not in ending}


def _displaced(
    plan: _Plan, kept: Kept, connection: Connection, names: Mapping[str, Any]
) -> set[int]:
    """Kept ones whose place a chosen subject takes, or one that arrived earlier."""
    if plan.as_arrived:
        places = _places(connection, names, plan.subjects.keys() | _ids(kept.tail))
        return _late(plan, kept, places)
    living = {image.object_id: image for image in kept.tail}
    # Newer than the search, or equal to a subject: near to nobody that it found.
    others = living.keys() - {i for ids in plan.near.values() for i in ids}
    return {
        i
        for image in plan.subjects.values()
        if plan.rulings.kind(image.object_id) == "choose"
        for i in others | (living.keys() & set(plan.near[image.object_id]))
        if takes_place(image, living[i], plan.rule, plan.rulings)
    }


def _late(plan: _Plan, kept: Kept, places: Mapping[int, int]) -> set[int]:
    """Kept ones that arrived later than a subject that takes their place again."""
    subjects = list(plan.subjects.values())
    ending: list[int] = []
    while True:
        who = _without(kept, ending)
        _, late = decide_as_arrived(
            subjects, who, plan.rule, plan.rulings, places=places, near=plan.near
        )
        # Remembered ones are no subjects: they end, one after the other, and others see it.
        remembered = late & plan.asked
        if not remembered:
            return late | set(ending)
        ending.append(first(remembered, places))


def _places(
    connection: Connection, names: Mapping[str, Any], object_ids: Iterable[int]
) -> dict[int, int]:
    """By object its place in the order of arrival."""
    rows = connection.execute(_SQL["arrived"], {**names, "object_ids": list(object_ids)})
    return {row[0]: place for place, row in enumerate(rows.fetchall())}


def _ids(found: Iterable[Image]) -> set[int]:
    return {image.object_id for image in found}


def _without(kept: Kept, ending: Sequence[int]) -> Kept:
    """The same without some."""
    found = Kept()
    for image in kept.tail:
        if image.object_id not in ending:
            found.add(image)
    return found


def _object_id(image: Image) -> int:
    return image.object_id


def _write(
    turn: Turn,
    changed: Mapping[int, tuple[Image, Fate]],
    standing: Mapping[int, Standing],
    why: str,
) -> None:
    turn.close(list(changed))
    turn.stop_representing(
        [
            i
            for i, (_, fate) in changed.items()
            if standing[i][0] == "kept" and fate.outcome != "kept"
        ]
    )
    turn.represent(
        [
            image
            for i, (image, fate) in changed.items()
            if fate.outcome == "kept" and standing[i][0] != "kept"
        ]
    )
    turn.add(
        [
            _state(image, fate, {"rejudged": why} | lasting(standing[i][4]) | fate.detail())
            for i, (image, fate) in changed.items()
        ]
    )


def _state(image: Image, fate: Fate, detail: dict[str, Any]) -> State:
    return State(
        image.object_id, fate.outcome, promoted(fate), detail,
        fate.representative_object_id, fate.distance, image.pixel_sha256,
    )  # fmt: skip


def _differs(standing: Standing, fate: Fate) -> bool:
    outcome, reason, representative, distance, _ = standing
    if fate.outcome == "kept":
        return outcome != "kept" or (reason == REASON) != (fate.reason == REASON)
    return (outcome, reason, representative, distance) != (
        fate.outcome, fate.reason, fate.representative_object_id, fate.distance,
    )  # fmt: skip
