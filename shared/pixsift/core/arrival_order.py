"""Decides images as if they had just arrived in their order, among kept ones that came in between.

Where a chosen image is chosen no longer, others were kept meanwhile only because it had taken the
place of an earlier one. Deciding next to them would make the earlier one their duplicate. So
each image is compared only with those before it, and one that is kept again takes the place of
those after it. Pure.
"""

from collections.abc import Mapping, Sequence, Set

from pixsift.core.dedup import Fate, Image, Kept, NearRule, cosine_distance, decide_batch
from pixsift.core.rulings import Ruling, Rulings


def decide_as_arrived(
    subjects: Sequence[Image],
    kept: Kept,
    rule: NearRule,
    rulings: Rulings,
    *,
    places: Mapping[int, int],
    near: Mapping[int, Sequence[int]],
) -> tuple[list[Fate], set[int]]:
    """A fate per subject, and which of ``kept`` give way to them.

    The fates hold once the latter is empty: the caller makes subjects of those, or ends them.
    kept: in its tail all that represent and may be near or equal to a subject. places: by object id
    in the order of arrival, of the subjects and of the tail. near: by subject who may be near; the
    others of the tail are compared with every subject.
    """
    living = {image.object_id: image for image in kept.tail}
    items = sorted([*subjects, *kept.tail], key=lambda image: places[image.object_id])
    items = rulings.in_order(items, lambda image: image.object_id)
    # Who is kept already stays so here: rulings may allow what the rule would not.
    stay = Rulings(
        {**rulings.about, **{i: Ruling("also_keep", i) for i in living}},
        rulings.apart, rulings.followers,
    )  # fmt: skip
    decided = decide_batch(items, Kept(named=dict(kept.named)), rule, rulings=stay)
    fates = {item.object_id: fate for item, fate in zip(items, decided, strict=True)}
    turn = {item.object_id: place for place, item in enumerate(items)}
    others = living.keys() - {i for ids in near.values() for i in ids}
    late: set[int] = set()
    for image in subjects:
        if fates[image.object_id].outcome != "kept":
            continue
        for i in others | (living.keys() & set(near.get(image.object_id, ()))):
            if turn[image.object_id] < turn[i] and takes_place(image, living[i], rule, rulings):
                late.add(i)
    return [fates[image.object_id] for image in subjects], late


def takes_place(image: Image, other: Image, rule: NearRule, rulings: Rulings) -> bool:
    """Whether the rule finds two images near or equal, and rulings do not keep both."""
    if rulings.allow_both(image.object_id, other.object_id):
        return False
    return (
        image.content_sha256 == other.content_sha256
        or image.pixel_sha256 == other.pixel_sha256
        or rule.verdict(cosine_distance(image.embedding, other.embedding), image.look, other.look)
        is not None
    )


def first(object_ids: Set[int], places: Mapping[int, int]) -> int:
    """The one that arrived first."""
    return min(object_ids, key=lambda object_id: places[object_id])
