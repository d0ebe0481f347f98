"""The plan of a rejudgement, and what it reads from the ledger.

Values and reads only; ``pixsift.adapters.ledger.rejudge`` plans and writes.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pixsift.adapters.ledger.decision_plan import image_of, images
from pixsift.adapters.ledger.history import NewRuling
from pixsift.adapters.postgres.database import Connection
from pixsift.core.collection import HistoryPoint
from pixsift.core.dedup import Image, Kept, NearRule
from pixsift.core.rulings import Ruling, Rulings
from pixsift.sql import statements

_SQL = statements("rejudge")
_RULINGS = statements("rulings")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the rulings in force."""

    say: tuple[NewRuling, ...] = ()
    take_back: Mapping[UUID, Ruling] = field(default_factory=dict)
    frees: bool = False
    """Whether a ruling taken back had put another image in the place of one: who was kept or not
    because of it is decided as they arrived."""

    def __bool__(self) -> bool:
        return bool(self.say or self.take_back)

    def touches(self) -> set[int]:
        """The objects that the change concerns."""
        rulings = [*(new.ruling for new in self.say), *self.take_back.values()]
        return {i for ruling in rulings for i in ruling.touches()}

    def after(self, in_force: Sequence[Ruling]) -> Rulings:
        """The rulings in force after the change."""
        ended = set(self.take_back.values())
        stays = [ruling for ruling in in_force if ruling not in ended]
        return Rulings.of([*stays, *(new.ruling for new in self.say)])


NO_CHANGE = Change()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was read and searched before the lock."""

    generation: int
    rule: NearRule
    watermark: int
    points: tuple[HistoryPoint, ...]
    asked: frozenset[int]
    """The objects to decide again, with those that rulings tie to them; their duplicates follow."""
    subjects: dict[int, Image]
    """The images of the objects that can be decided, in the order of the decision."""
    near: dict[int, list[int]]
    rulings: Rulings
    """The rulings about the subjects and the images near them, after the change."""
    said: frozenset[Ruling]
    """The same rulings before the change: they must be unchanged under the lock."""
    as_arrived: bool = False
    """Each subject is compared only with kept images that arrived before it."""


def read_rulings(
    connection: Connection, names: Mapping[str, Any], object_ids: Sequence[int]
) -> list[Ruling]:
    """The rulings in force about any of these objects."""
    rows = connection.execute(
        _RULINGS["rulings_touching"], {**names, "object_ids": list(object_ids)}
    )
    return [Ruling(*row) for row in rows.fetchall()]


def read_represented(
    connection: Connection, names: Mapping[str, Any], object_ids: Set[int], ending: Set[int]
) -> dict[int, Image]:
    """The representative of each of these objects, itself where it is kept; without those in
    ``ending``."""
    if not object_ids:
        return {}
    rows = (
        connection.cursor(binary=True)
        .execute(_RULINGS["represented_by"], {**names, "object_ids": list(object_ids)})
        .fetchall()
    )
    return {row[5]: image_of(row) for row in rows if row[0] not in ending}


def read_places(
    connection: Connection, names: Mapping[str, Any], object_ids: Iterable[int]
) -> dict[int, int]:
    """The place of each object in the order of arrival."""
    rows = connection.execute(_SQL["arrived"], {**names, "object_ids": list(object_ids)})
    return {row[0]: place for place, row in enumerate(rows.fetchall())}


def read_subjects(
    connection: Connection, names: dict[str, Any], object_ids: Set[int], change: Change
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
        # A duplicate that gets another representative takes its followers with it.
        object_ids |= change.after(said).with_followers(subjects) - subjects.keys()
        if object_ids == asked:
            break
    if ended:
        stays = [i for i in subjects if i not in ended and i in asked]
        places = read_places(connection, names, subjects)
        rest = sorted(subjects.keys() - set(stays), key=lambda i: places[i])
        subjects = {i: subjects[i] for i in [*stays, *rest]}
    return asked, subjects


def read_said(
    connection: Connection, names: dict[str, Any], subjects: Mapping[int, Image],
    near: Mapping[int, Sequence[int]], change: Change,
) -> list[Ruling]:  # fmt: skip
    """The rulings in force before the change, about the subjects and the images near them."""
    ids = set(subjects) | change.touches()
    ids |= {other for others in near.values() for other in others}
    return read_rulings(connection, names, list(ids))


def read_kept(
    connection: Connection, names: Mapping[str, Any], subjects: Mapping[int, Image],
    near: Mapping[int, Sequence[int]], watermark: int,
) -> Kept:  # fmt: skip
    """The present representatives that may matter, without the subjects themselves."""
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
