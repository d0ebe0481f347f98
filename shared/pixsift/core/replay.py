"""Decides a whole collection again from stored facts: no pixels, no model, no database.

Used for a changed epsilon and for a what-if. The decision itself is the one made on arrival,
``pixsift.core.dedup.decide_batch``; this module adds a search over the kept images in memory
(``pixsift.core.screen``), with a margin wider than its error, so that every pair that could matter
is measured by the one definition of distance.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from pixsift.core.dedup import (
    SCREEN_MARGIN,
    Fate,
    Halves,
    Image,
    Judge,
    Kept,
    NearRule,
    decide_batch,
)
from pixsift.core.keep_best import Groups, Step, decide_one
from pixsift.core.rulings import NO_RULINGS, Rulings
from pixsift.core.screen import Rows, Screen

_T = TypeVar("_T")


class Replay:
    """The kept images of one collection under one rule, searchable and exact.

    Memory: 4 bytes per dimension and image ever kept; slots of removed ones are not reused.
    """

    def __init__(self, rule: NearRule, dimension: int, rulings: Rulings = NO_RULINGS) -> None:
        """rulings: in force during the whole replay."""
        self.rule = rule
        self._rulings = rulings
        self._images: list[Image] = []
        self._screen = Screen(dimension)
        self._alive = bytearray()
        """By slot: 1 while it is kept."""
        self._slots: dict[int, int] = {}
        self._by_content: dict[bytes, int] = {}
        self._by_pixels: dict[bytes, int] = {}
        self._named: dict[int, Image] = {}
        """The representatives of images that rulings name as the same."""

    def __len__(self) -> int:
        """How many images are kept."""
        return len(self._slots)

    def __contains__(self, object_id: int) -> bool:
        """Whether the object is kept."""
        return object_id in self._slots

    def decide(self, images: Sequence[Image]) -> list[Fate]:
        """Decide ``images`` in order, each seeing those before it; the kept ones are added."""
        if not images:
            return []
        kept, candidates = self._found(images)
        fates = decide_batch(images, kept, self.rule, candidates, rulings=self._rulings)
        self.keep([i for i, r in zip(images, fates, strict=True) if r.outcome == "kept"])
        return fates

    def decide_each(self, images: Sequence[Image], groups: Groups) -> Iterator[tuple[Image, Step]]:
        """The same where better images take places, one after the other: the caller sees to the
        groups before it asks for the next."""
        assert self.rule.keep_best is not None  # noqa: S101 - otherwise ``decide``
        if not images:
            return
        kept, candidates = self._found(images)
        judge = Judge(self.rule)
        for image in images:
            step = decide_one(
                image, kept, judge, candidates[image.object_id], groups,
                margin=self.rule.keep_best, rulings=self._rulings,
            )  # fmt: skip
            for object_id in list(step.displaced)[:1]:
                self.remove(object_id)
            if step.fate.outcome == "kept":
                self.keep([image])
            yield image, step

    def keep(self, images: Sequence[Image]) -> None:
        """Add ``images`` without applying the rule: the caller knows that they are kept."""
        if not images:
            return
        first = len(self._images)
        self._screen.add(unit_rows(np.stack([image.embedding for image in images])))
        self._alive += b"\1" * len(images)
        self._images += images
        for slot, image in enumerate(images, start=first):
            self._slots[image.object_id] = slot
            self._by_content[image.content_sha256] = image.object_id
            self._by_pixels[image.pixel_sha256] = image.object_id
            self.name(image.object_id, image.object_id)

    def name(self, object_id: int, representative: int) -> None:
        """Record who represents an object, without applying the rule: itself where it is kept."""
        if self._rulings.followers.get(object_id) and representative in self._slots:
            self._named[object_id] = self._images[self._slots[representative]]

    def remove(self, object_id: int) -> None:
        """Forget a kept image; one that is not kept is allowed."""
        self._named = {
            target: image
            for target, image in self._named.items()
            if object_id not in (target, image.object_id)
        }
        slot = self._slots.pop(object_id, None)
        if slot is not None:
            image = self._images[slot]
            self._alive[slot] = 0
            self._by_content.pop(image.content_sha256, None)
            self._by_pixels.pop(image.pixel_sha256, None)

    def _found(self, images: Sequence[Image]) -> tuple[Kept, dict[int, list[int]]]:
        """Who is kept and may be near, and for which of the images."""
        found = self._candidates(unit_rows(np.stack([image.embedding for image in images])))
        near = {self._images[slot].object_id: self._images[slot] for s in found for slot in s}
        kept = Kept(near, by_content=self._by_content, by_pixels=self._by_pixels, named=self._named)
        return kept, {
            image.object_id: [self._images[slot].object_id for slot in slots]
            for image, slots in zip(images, found, strict=True)
        }

    def _candidates(self, rows: Rows) -> list[list[int]]:
        """Per row, the slots of every living kept image that may lie within epsilon."""
        found: list[list[int]] = [[] for _ in rows]
        for row, slot in self._screen.near(rows, 1.0 - self.rule.epsilon - SCREEN_MARGIN):
            if self._alive[slot]:
                found[row].append(slot)
        return found


def unit_rows(embeddings: Halves) -> Rows:
    """(N, D) halves as float32 rows of unit length; rows of zeros stay zeros."""
    rows = embeddings.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def in_blocks(items: Sequence[_T], size: int = 512) -> Iterator[Sequence[_T]]:
    """``items`` in runs of ``size``: large enough for the product to pay, small to hold."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
