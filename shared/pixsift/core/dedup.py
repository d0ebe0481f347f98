"""Decides a batch: kept, or a duplicate of which representative. Pure; no database, no clock.

What people said about an image (``pixsift.core.rulings``) overrides every rule.

The invariant it upholds, together with the lock that the ledger takes around it: no two kept
images of one collection and generation satisfy the near rule or share bytes or pixels, and every
duplicate names a kept image for which the rule holds, except where a ruling says so. For that it
must be given *every* live representative that might satisfy the rule with an item (not the nearest
only, since the second look may refuse the nearest and accept the next), and the items must be
decided one after another, each compared also with those before it.

Distance has one definition, over the stored half-precision values, so that a decision can be
verified from the ledger alone. Screens in lower precision may only widen the set of candidates.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pixsift.core.rulings import NO_RULINGS, REASON, Rulings

Halves = NDArray[np.float16]
"""(D,) or (N, D) float16, as stored; close to unit length, not exactly."""

SCREEN_MARGIN = 1e-3
"""How far a float32 distance may be from the true one, with room: the worst case for the dot
product of 4,000 halves held in float32 is 4000 x 2^-24 = 2.4e-4."""

_CHUNK = 512
"""Items compared with each other at once: their products take a megabyte."""
_TAIL_BLOCK = 4096
_AHEAD = 64
"""Items that may have a pair judged before it is their turn."""
_MOST = 16
"""Pairs judged together at most: what the second look compares at once."""
_COMPANY = 8
"""Batches up to this size are filled with pairs of later items that may turn out not to be needed:
one pair judged alone costs as much as five judged together."""
_FIRST, _WIDER = 2, 4
"""Candidates of an item that are judged first: the nearest two usually decide it. If they do not,
most of the others are needed, so each further round takes four times as many."""


class Look(Protocol):
    """Compares two images that the embedding finds near; symmetric and pure."""

    @property
    def narrow(self) -> float:
        """Distance up to which a pair is judged without comparable signals on both sides."""

    def agree(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        """Whether each (distance, look, look) shows the same picture, independent of the other
        pairs."""


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
    keep_best: float | None = None
    """By how much a better image takes the place of its representative (``core.keep_best``); None:
    never."""

    def verdict(self, distance: float, look_a: bytes, look_b: bytes) -> str | None:
        """``near``, ``near_look`` (the second look agreed as well), or None.

        Where either image has no look signals, the embedding alone decides, up to the narrow
        epsilon.
        """
        return self.verdicts([(distance, look_a, look_b)])[0]

    def verdicts(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[str | None]:
        """``verdict`` of many pairs: the same answers, cheaper."""
        asked = [
            pair for pair in pairs if self.look and pair[0] <= self.epsilon and pair[1] and pair[2]
        ]
        agreed = iter(self.look.agree(asked) if self.look and asked else ())
        narrow = self.epsilon if self.look is None else min(self.epsilon, self.look.narrow)
        found: list[str | None] = []
        for distance, a, b in pairs:
            if self.look and distance <= self.epsilon and a and b:
                found.append("near_look" if next(agreed) else None)
            else:
                found.append("near" if distance <= narrow else None)
        return found


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
class Fate:
    """What became of one image."""

    outcome: Literal["kept", "duplicate", "rejected"]
    """``rejected``: by a ruling only."""
    reason: str
    """``new``, ``content``, ``pixels``, ``near``, ``near_look`` or ``ruled``."""
    representative_object_id: int | None = None
    distance: float | None = None
    near_miss: tuple[float, int] | None = field(default=None, compare=False)
    """Of one kept by the rule: distance and object id of the nearest kept image within epsilon,
    which the second look did not take for the same picture; None: none was within epsilon."""

    def detail(self) -> dict[str, Any]:
        """What is stored of the nearest kept image."""
        if self.near_miss is None:
            return {}
        distance, object_id = self.near_miss
        return {"nearest": {"object_id": object_id, "distance": distance}}


NEW = Fate("kept", "new")
RULED = Fate("kept", REASON)
USELESS = Fate("rejected", REASON)


@dataclass(slots=True, eq=False)
class Kept:
    """The live representatives that matter to a batch; grows as items are kept."""

    candidates: dict[int, Image] = field(default_factory=dict)
    """By object id: those that a search proposed for some item, proved alive."""
    tail: list[Image] = field(default_factory=list)
    """Those newer than the search: compared with every item."""
    by_content: dict[bytes, int] = field(default_factory=dict)
    by_pixels: dict[bytes, int] = field(default_factory=dict)
    named: dict[int, Image] = field(default_factory=dict)
    """By object that others are ruled to be the same as: who represents it; itself where kept."""

    def add(self, image: Image) -> None:
        """Make ``image`` a representative."""
        self.tail.append(image)
        self.by_content[image.content_sha256] = image.object_id
        self.by_pixels[image.pixel_sha256] = image.object_id


class Judge:
    """Verdicts under one rule, each pair judged once: pairs judged before the lock need not be
    judged again under it.

    A pair is known by its pixels, whose vector and look never change.
    """

    def __init__(self, rule: NearRule) -> None:
        self.rule = rule
        self._known: dict[tuple[bytes, bytes], str | None] = {}

    def knows(self, a: Image, b: Image) -> bool:
        """Whether the pair has a verdict already."""
        return _key(a, b) in self._known

    def verdicts(self, pairs: Sequence[tuple[float, Image, Image]]) -> list[str | None]:
        """``near``, ``near_look`` or None for each (distance, image, image)."""
        keys = [_key(a, b) for _, a, b in pairs]
        new = {
            key: (distance, a.look, b.look)
            for key, (distance, a, b) in zip(keys, pairs, strict=True)
            if key not in self._known
        }
        self._known.update(zip(new, self.rule.verdicts(list(new.values())), strict=True))
        return [self._known[key] for key in keys]


def decide_batch(
    items: Sequence[Image],
    kept: Kept,
    rule: NearRule,
    candidates: Mapping[int, Iterable[int]] | None = None,
    judge: Judge | None = None,
    *,
    rulings: Rulings = NO_RULINGS,
) -> list[Fate]:
    """Decide ``items`` in order, each against ``kept`` and the items kept before it.

    rulings: in force about the items and about those near them; the caller has brought the items
    into ``rulings.in_order``.

    candidates: item's object id -> ids in ``kept.candidates`` that may be near; ids that are not
    there are dead and are left out. The tail is compared with every item, and grows by the items
    that are kept. judge: what is known of the pairs already, under the same rule.
    """
    judge = judge or Judge(rule)
    parts = _parts(items, kept, judge, candidates or {}, rulings)
    return [fate for part in parts for fate in part.decide()]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The fate that an item would have, and the candidates that were not judged."""

    distance: float
    """To its representative; infinite where it is kept."""
    open: list[int]
    """Candidates that agreed, then those that were not judged, each nearest first: the others are
    known not to be near."""
    agreed: int
    """How many of ``open`` agreed."""
    near_miss: tuple[float, int] | None
    """The nearest that did not agree: distance and object id."""


def foresee_batch(
    items: Sequence[Image], kept: Kept, judge: Judge, candidates: Mapping[int, Iterable[int]]
) -> list[Foreseen]:
    """Like ``decide_batch``, before the lock: fills ``judge`` for the later decision, and says
    which pairs it left out."""
    parts = _parts(items, kept, judge, candidates, NO_RULINGS)
    return [foreseen for part in parts for foreseen in part.foresee()]


def _parts(
    items: Sequence[Image],
    kept: Kept,
    judge: Judge,
    candidates: Mapping[int, Iterable[int]],
    rulings: Rulings,
) -> Iterator["_Part"]:
    tail = _Tail(kept.tail)
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        units = _unit_rows(part)
        near = tail.near(units, judge.rule.epsilon)
        for found, item in zip(near, part, strict=True):
            ids = candidates.get(item.object_id, ())
            found += [kept.candidates[i] for i in ids if i in kept.candidates]
        yield _Part(part, units, near, kept, judge, rulings=rulings)


def may_be_near(items: Sequence[Image], others: Sequence[Image], epsilon: float) -> bool:
    """Whether any of ``items`` may lie within epsilon of any of ``others``."""
    if not items or not others:
        return False
    units = _unit_rows(others)
    return any(
        _may_be_near(_unit_rows(items[start : start + _TAIL_BLOCK]), units, epsilon).any()
        for start in range(0, len(items), _TAIL_BLOCK)
    )


class _Part:
    """Some items, decided in order; their pairs are judged many at a time, nearest first.

    An item waits with those that it may be near, nearest first. An item is decided when no waiting
    candidate could be nearer than the nearest one that agreed. Which pairs are judged together
    changes only the cost, never a fate: a verdict in a batch costs a fifth of a single one, but a
    verdict that is not needed costs too. So a batch holds the next few pairs of the item at hand,
    then pairs of later items that are needed in any case, and, if the batch is still small, some
    that may not be needed.
    """

    def __init__(
        self,
        items: Sequence[Image],
        units: NDArray[np.float32],
        near: Sequence[Sequence[Image]],
        kept: Kept,
        judge: Judge,
        *,
        rulings: Rulings,
    ) -> None:
        self._items, self._kept, self._judge, self._rulings = items, kept, judge, rulings
        self._among = _distances(units, units)
        others = list({image.object_id: image for found in near for image in found}.values())
        self._others = {image.object_id: image for image in others}
        place = {image.object_id: column for column, image in enumerate(others)}
        rows = _distances(units, _unit_rows(others)) if others else None
        self._waiting: list[list[tuple[float, int, Image]]] = []
        for i, found in enumerate(near):
            queue = [
                (float(rows[i, place[image.object_id]]), image.object_id, image)
                for image in {other.object_id: other for other in found}.values()
                if rows is not None and not self._are_apart(items[i], image)
            ]
            heapify(queue)
            self._waiting.append(queue)
        self._best: list[Fate | None] = [None] * len(items)
        self._agreed: list[list[tuple[float, int]]] = [[] for _ in items]
        self._aside: list[list[tuple[float, int]]] = [[] for _ in items]
        """Not nearer than the best, as it turned out: not judged."""
        self._refused: list[tuple[float, int] | None] = [None] * len(items)
        """The nearest that the second look did not take for the same picture."""

    def foresee(self) -> list[Foreseen]:
        """The fate that ``decide`` finds, and the pairs that it did not need to judge."""
        found = []
        for i, fate in enumerate(self.decide()):
            agreed = [other for _, other in sorted(self._agreed[i])]
            unjudged = sorted(self._aside[i] + [entry[:2] for entry in self._waiting[i]])
            distance = inf if fate.distance is None else fate.distance
            open_ = agreed + [k for _, k in unjudged]
            found.append(Foreseen(distance, open_, len(agreed), self._refused[i]))
        return found

    def decide(self) -> list[Fate]:
        """One fate per item."""
        return [self._decide(i) for i in range(len(self._items))]

    def _decide(self, i: int) -> Fate:
        fate = self._at_once(i) or self._by_rule(i)
        if self._rulings.followers.get(self._items[i].object_id):
            self._name(self._items[i], fate)
        return fate

    def _at_once(self, i: int) -> Fate | None:
        """The fate by a ruling or by equality, in this order: equal images are never both kept."""
        item, rulings = self._items[i], self._rulings
        kind = rulings.kind(item.object_id)
        if kind == "useless":
            return USELESS
        if (same := self._exact(item)) is not None:
            return same
        if kind in ("choose", "also_keep"):
            self._keep(i)
            return RULED
        named = self._kept.named.get(rulings.same_as(item.object_id) or -1)
        if named is None or named.object_id == item.object_id or self._are_apart(item, named):
            return None
        distance = cosine_distance(item.embedding, named.embedding)
        return Fate("duplicate", REASON, named.object_id, distance)

    def _name(self, item: Image, fate: Fate) -> None:
        """Say who represents an image that others are the same as."""
        self._kept.named.pop(item.object_id, None)
        if fate.outcome == "kept":
            self._kept.named[item.object_id] = item
        elif (of := fate.representative_object_id) is not None:
            # An equal image need not be among the compared ones; it has the same vector.
            there = self._others.get(of) or next(
                (image for image in self._kept.named.values() if image.object_id == of), None
            )
            self._kept.named[item.object_id] = there or replace(item, object_id=of)

    def _by_rule(self, i: int) -> Fate:
        few = _FIRST
        while (asked := self._next(i)) is not None:
            questions = [(i, asked)]
            # Known verdicts cost nothing: under the lock only the necessary pairs are judged.
            if not self._judge.knows(self._items[i], asked[1]):
                questions += [(i, more) for more in self._next_few(i, few - 1)]
                few = min(few * _WIDER, _MOST)
                self._add_later(i, questions)
            self._ask(questions)
        if (best := self._best[i]) is not None:
            return best
        self._keep(i)
        missed = self._refused[i]
        return NEW if missed is None else replace(NEW, near_miss=missed)

    def _keep(self, i: int) -> None:
        item = self._items[i]
        self._kept.add(item)
        self._others[item.object_id] = item
        epsilon = self._judge.rule.epsilon + SCREEN_MARGIN
        for k in range(i + 1, len(self._items)):
            if not self._among[i, k] > epsilon and not self._are_apart(self._items[k], item):
                heappush(self._waiting[k], (float(self._among[i, k]), item.object_id, item))

    def _are_apart(self, a: Image, b: Image) -> bool:
        return self._rulings.are_apart(a.object_id, b.object_id)

    def _exact(self, item: Image) -> Fate | None:
        if (same := self._kept.by_content.get(item.content_sha256)) is not None:
            return Fate("duplicate", "content", same, 0.0)
        if (same := self._kept.by_pixels.get(item.pixel_sha256)) is not None:
            return Fate("duplicate", "pixels", same, 0.0)
        return None

    def _next(self, i: int) -> tuple[float, Image] | None:
        """The nearest of those waiting that could still be nearer than the best of item ``i``."""
        queue, best = self._waiting[i], self._best[i]
        while queue:
            rough, _, other = queue[0]
            if best is not None and best.distance is not None and (
                rough > best.distance + SCREEN_MARGIN
            ):  # fmt: skip
                break
            heappop(queue)
            distance = cosine_distance(self._items[i].embedding, other.embedding)
            if distance > self._judge.rule.epsilon:
                continue
            if best is None or _closer(distance, other.object_id, best):
                return distance, other
            self._aside[i].append((distance, other.object_id))
        return None

    def _next_few(self, i: int, most: int) -> list[tuple[float, Image]]:
        found: list[tuple[float, Image]] = []
        while len(found) < most and (asked := self._next(i)) is not None:
            found.append(asked)
        return found

    def _add_later(self, i: int, questions: list[tuple[int, tuple[float, Image]]]) -> None:
        """Pairs of later items to fill the batch: first those that are needed in any case."""
        later = range(i + 1, min(i + _AHEAD, len(self._items)))
        for surely, most in ((True, _MOST), (False, _COMPANY)):
            for k in later:
                if len(questions) >= most:
                    break
                if self._exact(self._items[k]) is not None:
                    continue
                if surely and not self._is_surely_needed(i, k):
                    continue
                if (ahead := self._next(k)) is not None:
                    questions.append((k, ahead))

    def _is_surely_needed(self, i: int, k: int) -> bool:
        """Whether the nearest waiting pair of item ``k`` will be asked for, whatever becomes of the
        items from ``i`` on before it: none of them is nearer. It decides about cost only."""
        queue = self._waiting[k]
        return bool(queue) and bool(np.min(self._among[i:k, k]) > queue[0][0])

    def _ask(self, questions: Sequence[tuple[int, tuple[float, Image]]]) -> None:
        verdicts = self._judge.verdicts(
            [(distance, self._items[i], other) for i, (distance, other) in questions]
        )
        for (i, (distance, other)), reason in zip(questions, verdicts, strict=True):
            found = (distance, other.object_id)
            if reason is None:
                self._refused[i] = min(self._refused[i] or found, found)
                continue
            self._agreed[i].append(found)
            best = self._best[i]
            if best is None or _closer(distance, other.object_id, best):
                self._best[i] = Fate("duplicate", reason, other.object_id, distance)


def _key(a: Image, b: Image) -> tuple[bytes, bytes]:
    one, other = a.pixel_sha256, b.pixel_sha256
    return (one, other) if one < other else (other, one)


def _closer(distance: float, object_id: int, best: Fate) -> bool:
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
    """(M, N): whether a row may lie within epsilon of a query; NaN counts as near. A matrix instead
    of lists, because the duplicates of one image are all near each other.
    """
    near: NDArray[np.bool_] = ~(_distances(queries, rows) > epsilon + SCREEN_MARGIN)
    return near


def _distances(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, N) distances, true to ``SCREEN_MARGIN``."""
    distances: NDArray[np.float32] = 1.0 - queries @ rows.T
    return distances


def _unit_rows(images: Sequence[Image]) -> NDArray[np.float32]:
    """(N, D) float32 unit rows of the images' vectors."""
    wide = np.stack([image.embedding for image in images]).astype(np.float32)
    unit: NDArray[np.float32] = wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return unit
