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
from pixsift.adapters.ledger.history import StartAgainError, Turn
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.collection import Collection, HistoryPoint
from pixsift.core.dedup import Image, Kept, NearRule, Ruling, decide_batch
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import lasting
from pixsift.core.successor import State
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("rejudge")
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


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    generation: int
    rule: NearRule
    watermark: int
    points: tuple[HistoryPoint, ...]
    subjects: dict[int, Image]
    near: dict[int, list[int]]


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
        self, collection: Collection, object_ids: Sequence[int], *, why: str
    ) -> list[Rejudged]:
        """Decide the kept and duplicate ones of ``object_ids`` again, and what they represent.

        why: the turn's reason, and part of every new decision's detail.
        Returns those whose outcome changed. Raises TransientError when the collection changes
        faster than this can be planned.
        """
        for _ in range(_ATTEMPTS):
            plan = self._plan(collection, object_ids)
            if not plan.subjects:
                return []
            self._pause()
            try:
                return self._settle(collection, plan, object_ids, why)
            except StartAgainError:
                continue
        raise TransientError(f"collection {collection.name!r} changes too fast to be repaired now")

    def take_back(
        self, collection: Collection, object_ids: Sequence[int], *, why: str = "undo"
    ) -> list[int]:
        """Close the rejected, failed and gone decisions of ``object_ids``: undecided again.

        Returns those that were. The caller sends them through the queue once more.
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
                if row[1] in ("rejected", "failed", "gone") and row[2] != "erased"
            ]  # fmt: skip
            turn.close(undone)
            # A remembered one represents although it is gone; it ends where it is taken back.
            turn.stop_representing(undone)
        return undone

    def _plan(self, collection: Collection, object_ids: Sequence[int]) -> _Plan:
        names: dict[str, Any] = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            row = connection.execute(_SQL["rule_in_use"], names).fetchone()
            assert row is not None  # noqa: S101 - collections are never deleted
            seq, token, generation, epsilon, second_look, space_id = row
            history.check_space(collection, space_id)
            point = HistoryPoint(seq, token)
            rule = near_rule(epsilon, second_look)
            names |= {
                "generation": generation, "space_id": collection.space_id,
                "object_ids": list(object_ids),
            }  # fmt: skip
            subjects = images(connection.cursor(binary=True).execute(_SQL["subjects"], names))
        if not subjects:
            return _Plan(generation, rule, 0, (point,), {}, {})
        found = self._search.within(
            collection.collection_id,
            np.stack([image.embedding for image in subjects.values()]),
            epsilon,
        )
        near = {
            subject: [int(i) for i in ids]
            for subject, ids in zip(subjects, found.object_ids, strict=True)
        }
        # A switch between the two reads: no generation has this number, so the lock says so.
        same = found.generation == generation
        points = (point, HistoryPoint(found.watermark, found.token))
        return _Plan(generation if same else -1, rule, found.watermark, points, subjects, near)

    def _settle(
        self, collection: Collection, plan: _Plan, object_ids: Sequence[int], why: str
    ) -> list[Rejudged]:
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
                reason=why,
            ) as turn,
        ):
            names: dict[str, Any] = {
                "collection_id": collection.collection_id, "generation": plan.generation,
                "space_id": collection.space_id, "object_ids": list(object_ids),
            }  # fmt: skip
            cursor = connection.cursor(binary=True)
            if images(cursor.execute(_SQL["subjects"], names)).keys() != plan.subjects.keys():
                raise StartAgainError
            names["object_ids"] = list(plan.subjects)
            rows = connection.execute(_SQL["standing"], names).fetchall()
            standing: dict[int, Standing] = {row[0]: row[1:] for row in rows}
            kept = self._kept(connection, names, plan)
            subjects = list(plan.subjects.values())
            rulings = decide_batch(subjects, kept, plan.rule, plan.near)
            changed = {
                image.object_id: (image, ruling)
                for image, ruling in zip(subjects, rulings, strict=True)
                if _differs(standing[image.object_id], ruling)
            }
            _write(turn, changed, standing, why)
        return [
            Rejudged(
                object_id, standing[object_id][0], ruling.outcome, ruling.reason,
                ruling.representative_object_id, ruling.distance,
            )
            for object_id, (_, ruling) in changed.items()
        ]  # fmt: skip

    def _kept(self, connection: Connection, names: Mapping[str, Any], plan: _Plan) -> Kept:
        """Who represents now, without the subjects themselves."""
        cursor = connection.cursor(binary=True).execute(
            _SQL["living"],
            {
                **names,
                "object_ids": [i for ids in plan.near.values() for i in ids],
                "contents": [image.content_sha256 for image in plan.subjects.values()],
                "pixels": [image.pixel_sha256 for image in plan.subjects.values()],
                "watermark": plan.watermark,
            },
        )
        kept = Kept()
        for object_id, image in images(cursor).items():
            if object_id not in plan.subjects:
                kept.add(image)
        return kept


def _write(
    turn: Turn,
    changed: Mapping[int, tuple[Image, Ruling]],
    standing: Mapping[int, Standing],
    why: str,
) -> None:
    turn.close(list(changed))
    turn.stop_representing([i for i in changed if standing[i][0] == "kept"])
    turn.represent(
        [
            image
            for i, (image, ruling) in changed.items()
            if ruling.outcome == "kept" and standing[i][0] != "kept"
        ]
    )
    turn.add(
        [
            _state(image, ruling, {"rejudged": why} | lasting(standing[i][4]))
            for i, (image, ruling) in changed.items()
        ]
    )


def _state(image: Image, ruling: Ruling, detail: dict[str, Any]) -> State:
    return State(
        image.object_id, ruling.outcome,
        "promoted" if ruling.outcome == "kept" else ruling.reason, detail,
        ruling.representative_object_id, ruling.distance, image.pixel_sha256,
    )  # fmt: skip


def _differs(standing: Standing, ruling: Ruling) -> bool:
    outcome, reason, representative, distance, _ = standing
    if ruling.outcome == "kept":
        return outcome != "kept"
    return (outcome, reason, representative, distance) != (
        ruling.outcome, ruling.reason, ruling.representative_object_id, ruling.distance,
    )  # fmt: skip
