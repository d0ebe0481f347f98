"""Reads what keep-best asks of images, and keeps the groups of a batch while it is decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixsift.adapters.postgres.database import Connection, Cursor
from pixsift.core.choosing.pool import picture_flags
from pixsift.core.dedup import Image
from pixsift.core.keep_best import MOST_DUPLICATES, Merit, Step
from pixsift.core.outcomes import Judged, lasting
from pixsift.core.successor import Hold, Ranked, State
from pixsift.sql import statements

_SQL = statements("keep_best")


class UnknownGroupError(Exception):
    """What a representative stands for was not read: plan again."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedGroup:
    """A representative that an item may be better than, as phase 1 found it."""

    merit: Merit
    is_held: bool
    """It is only remembered, or stands for more than are compared."""
    detail: Mapping[str, Any]
    """What lasts of its decision's detail."""
    size: int


def rank(connection: Connection, collection_id: int, states: Sequence[State]) -> Ranked:
    """Merits and holds of objects whose decisions are known."""
    names = {"collection_id": collection_id, "object_ids": [state.object_id for state in states]}
    flags = {state.object_id: len(picture_flags(state.detail.get("flags", ()))) for state in states}
    merits = {
        row[0]: Merit(row[1], row[2], flags[row[0]])
        for row in connection.execute(_SQL["merits"], names).fetchall()
    }
    holds: dict[int, list[Hold]] = {}
    for object_id, after, to in connection.execute(_SQL["holds"], names).fetchall():
        holds.setdefault(object_id, []).append(Hold(after, to))
    return Ranked(merits, holds)


def planned_groups(
    connection: Connection, names: Mapping[str, Any], representatives: Sequence[int]
) -> dict[int, PlannedGroup]:
    """The representatives among the objects. names: collection_id and generation."""
    asked = {**names, "object_ids": list(representatives), "most": MOST_DUPLICATES}
    rows = connection.execute(_SQL["represent_now"], asked).fetchall()
    states = [State(row[0], row[1], detail=row[2]) for row in rows]
    merits = rank(connection, names["collection_id"], states).merits
    return {
        object_id: PlannedGroup(
            merits[object_id], outcome != "kept" or size > MOST_DUPLICATES, lasting(detail), size
        )
        for object_id, outcome, detail, size in rows
    }


def merit_of(item: Judged) -> Merit:
    """Of an arrival."""
    facts = item.image_facts or {}
    return Merit(
        (item.quality or {}).get("sharpness"),
        int(facts.get("width") or 0) * int(facts.get("height") or 0),
        len(picture_flags(item.detail.get("flags", ()))),
    )


def ask_held(connection: Connection, collection_id: int, object_ids: Sequence[int]) -> Cursor:
    """Ask which objects something rests on; ``held_by`` reads the answer."""
    names = {"collection_id": collection_id, "object_ids": list(object_ids)}
    return connection.execute(_SQL["holds"], names)


def held_by(answer: Cursor, seq: int) -> frozenset[int]:
    """Those that the turn of this seq finds held."""
    return frozenset(row[0] for row in answer.fetchall() if Hold(row[1], row[2]).holds(seq))


@dataclass(slots=True, eq=False)
class LiveGroups:
    """Groups under the lock: as they were read, and what the batch makes of them."""

    planned: Mapping[int, PlannedGroup]
    read: Mapping[int, Sequence[Image]]
    """Duplicates of representatives, as they are now; of others they were not read."""
    merits: Mapping[int, Merit]
    """Of the items."""
    held: frozenset[int]
    """Something rests on these."""
    made: dict[int, list[Image]] = field(default_factory=dict)
    """Of representatives of this batch."""
    joined: dict[int, list[Image]] = field(default_factory=dict)
    """What became a duplicate in this batch, by the others."""

    def merit(self, object_id: int) -> Merit:
        """Raises UnknownGroupError for one that phase 1 has not met."""
        if object_id in self.merits:
            return self.merits[object_id]
        if object_id not in self.planned:
            raise UnknownGroupError
        return self.planned[object_id].merit

    def is_held(self, representative: int) -> bool:
        """Whether it keeps its place whatever comes."""
        known = self.planned.get(representative)
        return representative in self.held or (known is not None and known.is_held)

    def duplicates(self, representative: int) -> Sequence[Image]:
        """Raises UnknownGroupError where they were not read."""
        if representative in self.made:
            return self.made[representative]
        if representative not in self.read:
            raise UnknownGroupError
        return [*self.read[representative], *self.joined.get(representative, ())]

    def follow(self, item: Image, step: Step) -> None:
        """An item was decided."""
        of = step.fate.representative_object_id
        if of is not None:
            self.made.get(of, self.joined.setdefault(of, [])).append(item)
        elif step.fate.outcome == "kept":
            self.made[item.object_id] = [image for image, _ in step.displaced.values()]
