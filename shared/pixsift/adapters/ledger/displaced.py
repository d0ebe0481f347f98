"""Who loses its place when objects are decided again: to a chosen image, or in order of arrival.

Where a choice is taken back, its group is put back as its images arrived: a kept image that arrived
later than a subject gives its place back, and becomes a subject itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixsift.adapters.ledger.rejudge_plan import Plan, read_places
from pixsift.adapters.postgres.database import Connection
from pixsift.core.arrival_order import decide_as_arrived, first, takes_place
from pixsift.core.dedup import Image, Kept


def find_displaced(
    plan: Plan, kept: Kept, connection: Connection, names: Mapping[str, Any]
) -> set[int]:
    """Kept ones whose place a chosen subject takes, or one that arrived earlier."""
    if plan.as_arrived:
        places = read_places(connection, names, plan.subjects.keys() | ids_of(kept.tail))
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


def _late(plan: Plan, kept: Kept, places: Mapping[int, int]) -> set[int]:
    """Kept ones that arrived later than a subject that takes their place again."""
    subjects = list(plan.subjects.values())
    ending: list[int] = []
    while True:
        who = without(kept, ending)
        _, late = decide_as_arrived(
            subjects, who, plan.rule, plan.rulings, places=places, near=plan.near
        )
        # Remembered ones are no subjects: they end, one after the other, and others see it.
        remembered = late & plan.asked
        if not remembered:
            return late | set(ending)
        ending.append(first(remembered, places))


def ids_of(found: Iterable[Image]) -> set[int]:
    return {image.object_id for image in found}


def without(kept: Kept, ending: Sequence[int]) -> Kept:
    """The same without some."""
    found = Kept()
    for image in kept.tail:
        if image.object_id not in ending:
            found.add(image)
    return found
