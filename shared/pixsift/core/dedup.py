"""Decides a batch: kept, or a duplicate of which representative. Pure; no database, no clock.

The invariant it upholds, together with the lock that the ledger takes around it: no two kept
images of one collection and generation satisfy the near rule or share bytes or pixels, and every
duplicate names a kept image for which the rule holds. For that it must be given *every* live
representative that might satisfy the rule with an item (not the nearest only, since the second
look may refuse the nearest and accept the next), and the items must be decided one after the
other, each seeing those before it.

Distance has one definition, over the stored half-precision values, so that a decision can be
verified from the ledger alone. Screens in lower precision may only widen the set of candidates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Halves = NDArray[np.float16]
"""(D,) or (N, D) float16, as stored; close to unit length, not exactly."""

SCREEN_MARGIN = 1e-3
"""How far a float32 distance may be from the true one, with room: the worst case for the dot
product of 4,000 halves held in float32 is 4000 x 2^-24 = 2.4e-4."""

_CHUNK = 512
"""Items compared with each other at once: their products take a megabyte."""
_TAIL_BLOCK = 4096


class Look(Protocol):
    """A second look at two images that the embedding finds near; symmetric and pure."""

    def agrees(self, distance: float, a: bytes, b: bytes) -> bool: ...


def cosine_distance(a: Halves, b: Halves) -> float:
    """1 - a.b/(|a||b|) in float64 over the stored halves: the one definition of distance."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(1.0 - (x @ y) / np.sqrt((x @ x) * (y @ y)))


@dataclass(frozen=True, slots=True)
class NearRule:
    """When two images are near-duplicates. The boundary belongs to the duplicates."""

    epsilon: float
    """Cosine distance."""
    look: Look | None = None

    def verdict(self, distance: float, look_a: bytes, look_b: bytes) -> str | None:
        """``near``, ``near_look`` (the second look agreed as well), or None.

        Where either image has no look signals, the embedding alone decides.
        """
        if distance > self.epsilon:
            return None
        if self.look is None or not look_a or not look_b:
            return "near"
        return "near_look" if self.look.agrees(distance, look_a, look_b) else None


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """What a decision needs to know of one image."""

    object_id: int
    content_sha256: bytes
    pixel_sha256: bytes
    embedding: Halves
    """(D,) float16 as stored."""
    look: bytes = b""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of one image."""

    outcome: Literal["kept", "duplicate"]
    reason: str
    """``new``, ``content``, ``pixels``, ``near`` or ``near_look``."""
    representative_object_id: int | None = None
    distance: float | None = None


NEW = Ruling("kept", "new")


@dataclass(slots=True, eq=False)
class Kept:
    """The live representatives that matter to a batch; grows as items are kept."""

    candidates: dict[int, Image] = field(default_factory=dict)
    """By object id: those that a search proposed for some item, proved alive."""
    tail: list[Image] = field(default_factory=list)
    """Those newer than the search: compared with every item."""
    by_content: dict[bytes, int] = field(default_factory=dict)
    by_pixels: dict[bytes, int] = field(default_factory=dict)

    def add(self, image: Image) -> None:
        """Make ``image`` a representative."""
        self.tail.append(image)
        self.by_content[image.content_sha256] = image.object_id
        self.by_pixels[image.pixel_sha256] = image.object_id


def decide_batch(
    items: Sequence[Image],
    kept: Kept,
    rule: NearRule,
    candidates: Mapping[int, Iterable[int]] | None = None,
) -> list[Ruling]:
    """Decide ``items`` in order, each against ``kept`` and the items kept before it.

    candidates: item's object id -> ids in ``kept.candidates`` that may be near; ids that are not
    there are dead and are left out. The tail is compared with every item, and grows by the items
    that are kept.
    """
    tail = _Tail(kept.tail)
    rulings: list[Ruling] = []
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        units = _unit_rows(part)
        from_tail = tail.near(units, rule.epsilon)
        among = _may_be_near(units, units, rule.epsilon)
        added = np.zeros(len(part), bool)
        for i, item in enumerate(part):
            own = candidates.get(item.object_id, ()) if candidates else ()
            near = [kept.candidates[c] for c in own if c in kept.candidates]
            earlier = [part[j] for j in np.flatnonzero(among[i] & added).tolist()]
            ruling = _decide(item, kept, [*near, *from_tail[i], *earlier], rule)
            if ruling.outcome == "kept":
                kept.add(item)
                added[i] = True
            rulings.append(ruling)
    return rulings


def may_be_near(items: Sequence[Image], others: Sequence[Image], epsilon: float) -> bool:
    """Whether any of ``items`` may lie within epsilon of any of ``others``."""
    if not items or not others:
        return False
    units = _unit_rows(others)
    return any(
        _may_be_near(_unit_rows(items[start : start + _TAIL_BLOCK]), units, epsilon).any()
        for start in range(0, len(items), _TAIL_BLOCK)
    )


def _decide(item: Image, kept: Kept, near: Iterable[Image], rule: NearRule) -> Ruling:
    if (same := kept.by_content.get(item.content_sha256)) is not None:
        return Ruling("duplicate", "content", same, 0.0)
    if (same := kept.by_pixels.get(item.pixel_sha256)) is not None:
        return Ruling("duplicate", "pixels", same, 0.0)
    best: Ruling | None = None
    for other in near:
        distance = cosine_distance(item.embedding, other.embedding)
        reason = rule.verdict(distance, item.look, other.look)
        if reason is not None and (best is None or _closer(distance, other.object_id, best)):
            best = Ruling("duplicate", reason, other.object_id, distance)
    return best or NEW


def _closer(distance: float, object_id: int, best: Ruling) -> bool:
    """The nearest representative wins; of equals, the oldest."""
    assert best.distance is not None and best.representative_object_id is not None  # noqa: S101
    return (distance, object_id) < (best.distance, best.representative_object_id)


class _Tail:
    """The tail as unit rows in float32, screened before the exact distance."""

    def __init__(self, images: list[Image]) -> None:
        """images: may grow while this is in use."""
        self._images = images
        self._blocks: list[tuple[int, NDArray[np.float32]]] = []
        self._filled = 0

    def near(self, units: NDArray[np.float32], epsilon: float) -> list[list[Image]]:
        """Per query every image that may lie within epsilon. units: (M, D) unit rows."""
        self._fill()
        found: list[list[Image]] = [[] for _ in units]
        for start, block in self._blocks:
            for query, row in np.argwhere(_may_be_near(units, block, epsilon)).tolist():
                found[query].append(self._images[start + row])
        return found

    def _fill(self) -> None:
        for start in range(self._filled, len(self._images), _TAIL_BLOCK):
            rows = self._images[start : start + _TAIL_BLOCK]
            self._blocks.append((start, _unit_rows(rows)))
        self._filled = len(self._images)


def _may_be_near(
    queries: NDArray[np.float32], rows: NDArray[np.float32], epsilon: float
) -> NDArray[np.bool_]:
    """(M, N): whether a row may lie within epsilon of a query; what is not a number counts as near.

    A matrix and no lists: the duplicates of one image are all near one another.
    """
    near: NDArray[np.bool_] = ~(1.0 - queries @ rows.T > epsilon + SCREEN_MARGIN)
    return near


def _unit_rows(images: Sequence[Image]) -> NDArray[np.float32]:
    """(N, D) float32 unit rows of the images' vectors."""
    wide = np.stack([image.embedding for image in images]).astype(np.float32)
    unit: NDArray[np.float32] = wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return unit
