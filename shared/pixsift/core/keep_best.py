"""Keep-best: a better image takes the place of the representative that it is near to. Pure.

Off by default. A new image N replaces a representative R only where nothing else changes hands: N
satisfies the rule with no other representative and with every duplicate of R, beats R by a margin
on one total order, and nothing rests on R (a snapshot, a ruling, an evaluation set). So N
represents all that R represented, and deciding again in the order of arrival gives the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pixsift.core.dedup import Fate, Image, Judge, Kept, cosine_distance, decide_batch
from pixsift.core.rulings import NO_RULINGS, Rulings

MOST_DUPLICATES: Final = 1_000
"""A representative of more stays: all of them would have to be compared under the lock."""
BETTER: Final = "better"
"""Reason of an image that took the place of a representative."""


@dataclass(frozen=True, slots=True)
class Merit:
    """What the order compares: sharpness, then pixels, then fewer flags."""

    sharpness: float | None = None
    """None: no texture to measure it by."""
    pixels: int = 0
    """Width times height; 0: not known."""
    flags: int = 0
    """Quality checks that flagged the picture."""


def beats(new: Merit, old: Merit, margin: float) -> bool:
    """Whether ``new`` is ahead of ``old`` by the margin where they first differ.

    margin: a difference of sharpness; of the pixels, a share. An image whose sharpness is not known
    neither beats one whose is, nor is beaten by it.
    """
    if (new.sharpness is None) != (old.sharpness is None):
        return False
    if new.sharpness != old.sharpness:
        return (new.sharpness or 0.0) - (old.sharpness or 0.0) >= margin
    if new.pixels != old.pixels:
        return old.pixels > 0 and new.pixels >= old.pixels * (1 + margin)
    return new.flags < old.flags


class Groups(Protocol):
    """What keep-best needs to know of representatives, as things stand before each item."""

    def merit(self, object_id: int) -> Merit:
        """Of an item or a representative."""

    def is_held(self, representative: int) -> bool:
        """Whether a snapshot or an evaluation set rests on it, or it is only remembered."""

    def duplicates(self, representative: int) -> Sequence[Image]:
        """All that it stands for."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What became of one item, and of those whose place it took."""

    fate: Fate
    displaced: Mapping[int, tuple[Image, Fate]] = field(default_factory=dict)
    """By object id the representative that was, first, and its duplicates: the item's now."""


def decide_one(
    item: Image,
    kept: Kept,
    judge: Judge,
    candidates: Sequence[int],
    groups: Groups,
    *,
    margin: float,
    rulings: Rulings = NO_RULINGS,
) -> Step:
    """Decide an item as ``decide_batch`` does, and whether it takes its representative's place.

    candidates: all that may be near. ``kept`` follows; the caller sees to the groups.
    """
    found = {item.object_id: candidates}
    (fate,) = decide_batch([item], kept, judge.rule, found, judge, rulings=rulings)
    of = fate.representative_object_id
    if of is None or fate.reason not in ("near", "near_look"):
        return Step(fate)
    if rulings.touches(item.object_id) or rulings.touches(of) or groups.is_held(of):
        return Step(fate)
    if not beats(groups.merit(item.object_id), groups.merit(of), margin):
        return Step(fate)
    living = [kept.candidates[i] for i in candidates if i in kept.candidates] + kept.tail
    others = {image.object_id: image for image in living}
    old = others.pop(of)
    if any(_under(item, other, judge) for other in others.values()):
        return Step(fate)
    displaced = _displaced(item, [old, *groups.duplicates(of)], judge, rulings)
    if not displaced:
        return Step(fate)
    _replace(item, old, kept)
    return Step(Fate("kept", BETTER), displaced)


def _displaced(
    item: Image, group: Sequence[Image], judge: Judge, rulings: Rulings
) -> dict[int, tuple[Image, Fate]]:
    """The fates of a whole group under ``item``; empty: it stays as it is."""
    if len(group) > MOST_DUPLICATES + 1:
        return {}
    displaced: dict[int, tuple[Image, Fate]] = {}
    for image in group:
        fate = None if rulings.touches(image.object_id) else _under(item, image, judge)
        if fate is None:
            return {}
        displaced[image.object_id] = (image, fate)
    return displaced


def _under(item: Image, other: Image, judge: Judge) -> Fate | None:
    """The other one's fate as a duplicate of ``item``; None: the rule finds it not near."""
    if other.content_sha256 == item.content_sha256:
        return Fate("duplicate", "content", item.object_id, 0.0)
    if other.pixel_sha256 == item.pixel_sha256:
        return Fate("duplicate", "pixels", item.object_id, 0.0)
    distance = cosine_distance(other.embedding, item.embedding)
    if distance > judge.rule.epsilon:
        return None
    (reason,) = judge.verdicts([(distance, other, item)])
    return None if reason is None else Fate("duplicate", reason, item.object_id, distance)


def _replace(item: Image, old: Image, kept: Kept) -> None:
    """``item`` represents from now on, and ``old`` no longer."""
    kept.candidates.pop(old.object_id, None)
    kept.tail[:] = [image for image in kept.tail if image.object_id != old.object_id]
    for known, key in ((kept.by_content, old.content_sha256), (kept.by_pixels, old.pixel_sha256)):
        if known.get(key) == old.object_id:
            del known[key]
    kept.add(item)
