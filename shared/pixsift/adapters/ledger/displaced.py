"""Finds which images are displaced when objects are decided again.

A kept image is displaced by a chosen image. When a ruling ``choose`` is taken back, its group
returns to the order of arrival: a kept image is then displaced by a subject that arrived earlier,
and becomes a subject itself.
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
    """Ids of kept images that are displaced by a chosen subject, or by one that arrived earlier."""
    if plan.as_arrived:
        places = read_places(connection, names, plan.subjects.keys() | ids_of(kept.tail))
        return _late(plan, kept, places)
    living = {image.object_id: image for image in kept.tail}
    # Newer than the search, or equal to a subject: the search did not find these.
    others = living.keys() - {i for ids in plan.near.values() for i in ids}
    return {
        i
        for image in plan.subjects.values()
        if plan.rulings.kind(image.object_id) == "choose"
        for i in others | (living.keys() & set(plan.near[image.object_id]))
        if takes_place(image, living[i], plan.rule, plan.rulings)
    }


def _late(plan: Plan, kept: Kept, places: Mapping[int, int]) -> set[int]:
    """Kept images that arrived later than the subject that displaces them."""
    subjects = list(plan.subjects.values())
    ending: list[int] = []
    while True:
        who = without(kept, ending)
        _, late = decide_as_arrived(
            subjects, who, plan.rule, plan.rulings, places=places, near=plan.near
        )
        # Remembered images cannot be subjects: they end one after another, and the rest is decided
        # again without them.
        remembered = late & plan.asked
        if not remembered:
            return late | set(ending)
        ending.append(first(remembered, places))


def ids_of(found: Iterable[Image]) -> set[int]:
    return {image.object_id for image in found}


def without(kept: Kept, ending: Sequence[int]) -> Kept:
    """``kept`` without the images in ``ending``."""
    found = Kept()
    for image in kept.tail:
        if image.object_id not in ending:
            found.add(image)
    return found
