"""Decides images in their order of arrival, among kept images that arrived in between.

When a ruling ``choose`` is taken back, some images were kept only because the chosen image had
displaced an earlier one. Compared with all of them, the earlier image would become their duplicate.
So each image is compared only with images that arrived before it, and an image that is kept again
displaces those that arrived later. Pure.
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
    """A fate per subject, and the images of ``kept`` that are displaced by a subject. The fates are
    final only if there are none: otherwise the caller makes those images subjects too, or ends
    them. kept: its tail holds every representative that may be near or equal to a subject. places:
    place in the order of arrival by object id, for the subjects and the tail. near: by subject, the
    ids that may be near; the rest of the tail is compared with every subject.
    """
    living = {image.object_id: image for image in kept.tail}
    items = sorted([*subjects, *kept.tail], key=lambda image: places[image.object_id])
    items = rulings.in_order(items, lambda image: image.object_id)
    # Kept images stay kept among each other: rulings may allow what the rule would not.
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
