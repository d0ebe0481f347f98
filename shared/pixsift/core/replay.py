"""Decides a whole collection again from stored facts: no pixels, no model, no database.

This is what a changed epsilon and a what-if share. The decision itself is the one of arrival,
``pixsift.core.dedup.decide_batch``; what is added here is a search over the kept images in memory.
It screens with a float32 product over unit rows and a margin wider than its error, so every pair
that could matter is measured by the one definition of distance.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixsift.core.dedup import SCREEN_MARGIN, Halves, Image, Kept, NearRule, Ruling, decide_batch

_T = TypeVar("_T")

Rows = NDArray[np.float32]
"""(N, D) float32, rows of unit length."""

_ROWS_AT_ONCE = 8192
"""Kept rows per product: 512 x 8192 float32 similarities are 16 MiB."""


class Replay:
    """The kept images of one collection under one rule, searchable and exact.

    Memory: 4 bytes per dimension and image ever kept; slots of removed ones are not reused.
    """

    def __init__(self, rule: NearRule, dimension: int) -> None:
        self.rule = rule
        self._images: list[Image] = []
        self._rows: Rows = np.empty((64, dimension), dtype=np.float32)
        self._alive = np.zeros(64, dtype=bool)
        self._slots: dict[int, int] = {}
        self._by_content: dict[bytes, int] = {}
        self._by_pixels: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many images are kept."""
        return len(self._slots)

    def __contains__(self, object_id: int) -> bool:
        """Whether the object is kept."""
        return object_id in self._slots

    def decide(self, images: Sequence[Image]) -> list[Ruling]:
        """Decide ``images`` in order, each seeing those before it; the kept ones are added."""
        if not images:
            return []
        found = self._candidates(unit_rows(np.stack([image.embedding for image in images])))
        near = {self._images[slot].object_id: self._images[slot] for s in found for slot in s}
        kept = Kept(near, by_content=self._by_content, by_pixels=self._by_pixels)
        candidates = {
            image.object_id: [self._images[slot].object_id for slot in slots]
            for image, slots in zip(images, found, strict=True)
        }
        rulings = decide_batch(images, kept, self.rule, candidates)
        self.keep([i for i, r in zip(images, rulings, strict=True) if r.outcome == "kept"])
        return rulings

    def keep(self, images: Sequence[Image]) -> None:
        """Add ``images`` without asking the rule: the caller knows that they are kept."""
        if not images:
            return
        first, last = len(self._images), len(self._images) + len(images)
        while last > len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._alive = np.concatenate([self._alive, np.zeros_like(self._alive)])
        self._rows[first:last] = unit_rows(np.stack([image.embedding for image in images]))
        self._alive[first:last] = True
        self._images += images
        for slot, image in enumerate(images, start=first):
            self._slots[image.object_id] = slot
            self._by_content[image.content_sha256] = image.object_id
            self._by_pixels[image.pixel_sha256] = image.object_id

    def remove(self, object_id: int) -> None:
        """Forget a kept image; one that is not kept is no mistake."""
        slot = self._slots.pop(object_id, None)
        if slot is not None:
            image = self._images[slot]
            self._alive[slot] = False
            self._by_content.pop(image.content_sha256, None)
            self._by_pixels.pop(image.pixel_sha256, None)

    def _candidates(self, rows: Rows) -> list[list[int]]:
        """Per row, the slots of every living kept image that may lie within epsilon."""
        found: list[list[int]] = [[] for _ in rows]
        threshold = 1.0 - self.rule.epsilon - SCREEN_MARGIN
        for start in range(0, len(self._images), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(self._images))
            for row, column in where_true(rows @ self._rows[start:stop].T >= threshold):
                if self._alive[start + column]:
                    found[row].append(start + column)
        return found


def unit_rows(embeddings: Halves) -> Rows:
    """(N, D) halves as float32 rows of unit length; rows of zeros stay zeros."""
    rows = embeddings.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def where_true(hits: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Row and column of every True of a matrix: several times as fast as ``np.nonzero``."""
    flat = np.flatnonzero(hits)
    rows, columns = np.divmod(flat, hits.shape[1])
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def in_blocks(items: Sequence[_T], size: int = 512) -> Iterator[Sequence[_T]]:
    """``items`` in runs of ``size``: large enough for the product to pay, small to hold."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
