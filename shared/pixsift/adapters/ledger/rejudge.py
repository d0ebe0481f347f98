"""Decides single objects of a collection again, or takes their decisions back.

An audit repairs with it, and ``pixsift undo`` uses it. The protocol is the one of arrival: search
first, up to a watermark; then, under the collection's lock, prove the candidates alive, look at
what is newer, decide and write. Objects whose verdict stays as it was get no new row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg.rows import class_row

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.decision_plan import images, near_rule
from pixsift.adapters.ledger.displaced import find_displaced, ids_of, without
from pixsift.adapters.ledger.history import StartAgainError, Turn
from pixsift.adapters.ledger.rejudge_plan import (
    NO_CHANGE,
    Change,
    Plan,
    read_kept,
    read_places,
    read_represented,
    read_said,
    read_subjects,
)
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.answers.decisions import ChangedOutcome
from pixsift.core.arrival_order import decide_as_arrived
from pixsift.core.collection import Collection, HistoryPoint
from pixsift.core.dedup import Fate, Image, decide_batch
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import lasting
from pixsift.core.rulings import REASON
from pixsift.core.successor import State, promoted
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("rejudge")
_ATTEMPTS = 20

Standing = tuple[str, str, int | None, float | None, dict[str, Any]]
"""Outcome, reason, representative, distance, detail."""


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
class _Order:
    """What to decide again, and why."""

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
    ) -> list[ChangedOutcome]:
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
    ) -> list[ChangedOutcome]:
        """Change the rulings in force, and decide again what they touch, in one turn.

        check: called under the lock before anything is written; it raises an error to refuse the
        change. dry_run: roll back. Returns and raises as ``again`` does.
        """
        order = _Order(frozenset(change.touches()), change, why, check, dry_run)
        return self._run(collection, order)

    def take_back(
        self, collection: Collection, object_ids: Sequence[int], *, why: str = "undo"
    ) -> list[int]:
        """Close the rejected, failed and gone decisions of ``object_ids``: undecided again.

        Returns those that were. The caller sends them through the queue once more. An image that a
        ruling rejected stays rejected until the ruling is taken back.
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
            # A remembered image represents although it is gone; that ends when it is taken back.
            turn.stop_representing(undone)
        return undone

    def _run(self, collection: Collection, order: _Order) -> list[ChangedOutcome]:
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

    def _plan(self, collection: Collection, order: _Order) -> Plan:
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
            asked, subjects = read_subjects(connection, names, order.object_ids, change)
        if not subjects:
            with self._database.connection() as connection:
                said = read_said(connection, names, {}, {}, change)
            return Plan(
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
                said = read_said(connection, names, subjects, near, change)
                kept = read_kept(connection, names, subjects, near, found.watermark)
                plan = Plan(
                    # A switch happened between the two reads. No generation has this number, so the
                    # check under the lock fails.
                    generation if found.generation == generation else -1,
                    rule, found.watermark, (point, HistoryPoint(found.watermark, found.token)),
                    asked, subjects, near, change.after(said), frozenset(said),
                    order.is_as_arrived,
                )  # fmt: skip
                displaced = find_displaced(plan, kept, connection, names)
                if displaced <= asked:
                    return plan
                asked, subjects = read_subjects(connection, names, asked | displaced, change)

    def _settle(self, collection: Collection, plan: Plan, order: _Order) -> list[ChangedOutcome]:
        """Decide and write, in one turn. Raises StartAgainError when something changed that the
        plan does not include."""
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
            said = read_said(connection, names, plan.subjects, plan.near, order.change)
            if frozenset(said) != plan.said:
                raise StartAgainError
            order.check(connection)
            turn.say(order.change.say)
            turn.take_rulings_back(list(order.change.take_back))
            changed, standing = self._decide(turn, plan, names)
            _write(turn, changed, standing, order.why)
            done = [
                ChangedOutcome(
                    object_id=object_id, was=standing[object_id][0], outcome=fate.outcome,
                    reason=fate.reason, representative=fate.representative_object_id,
                    distance=fate.distance,
                )
                for object_id, (_, fate) in changed.items()
            ]  # fmt: skip
            if order.dry_run:
                raise _DryRunError(done)
        return done

    def _decide(
        self, turn: Turn, plan: Plan, names: dict[str, Any]
    ) -> tuple[dict[int, tuple[Image, Fate]], dict[int, Standing]]:
        """Under the lock: the objects with another fate than before, and the present outcome of
        all."""
        connection = turn.connection
        cursor = connection.cursor(binary=True)
        rows = cursor.execute(_SQL["subjects"], names | {"object_ids": list(plan.asked)})
        if images(rows).keys() != plan.subjects.keys():
            raise StartAgainError
        kept = read_kept(connection, names, plan.subjects, plan.near, plan.watermark)
        displaced = find_displaced(plan, kept, connection, names)
        if not displaced <= plan.asked:
            raise StartAgainError
        # Remembered images that a chosen image displaces only end: nothing is decided about them.
        ending = sorted(displaced - plan.subjects.keys())
        turn.stop_representing(ending)
        rows = connection.execute(_SQL["standing"], names | {"object_ids": list(plan.subjects)})
        standing: dict[int, Standing] = {row[0]: row[1:] for row in rows.fetchall()}
        subjects = plan.rulings.in_order(list(plan.subjects.values()), _object_id)
        who = without(kept, ending)
        targets = {t for i in plan.subjects if (t := plan.rulings.same_as(i)) is not None}
        who.named.update(
            read_represented(connection, names, targets - plan.subjects.keys(), set(ending))
        )
        if plan.as_arrived:
            places = read_places(connection, names, ids_of(subjects) | ids_of(who.tail))
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


class _DryRunError(Exception):
    """Ends the transaction of a dry run."""

    def __init__(self, changed: list[ChangedOutcome]) -> None:
        super().__init__()
        self.changed = changed


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
