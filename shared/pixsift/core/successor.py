"""Builds the next generation of a collection from the outcomes of the current one.

Objects are replayed in the order of their arrival under the new rule: embedded ones are decided
again, the others (rejected, failed, gone) are carried over. What happens meanwhile in the
generation in use is applied in the order of ``seq``, so the successor is always what the collection
would be if the new rule had been in force from the start. A removal re-decides what the removed
image represents *here*, which is not what it represents there. One thing cannot be restored: only
representatives are remembered after expiry, so an expired duplicate that the new rule would have
kept does not filter.

Pure: emits the rows to write; a what-if does not write them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pixsift.core.dedup import Fate, Image, NearRule
from pixsift.core.keep_best import Merit
from pixsift.core.outcomes import lasting
from pixsift.core.replay import Replay, in_blocks
from pixsift.core.rulings import NO_RULINGS, REASON, Rulings


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The outcome of an object in one generation; also a row to write for the successor."""

    object_id: int
    outcome: str | None
    """None: the decision was taken back, and none has replaced it yet."""
    reason: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    representative: int | None = None
    distance: float | None = None
    pixel_sha256: bytes | None = None
    seq: int = 0
    """Valid from this seq of the collection on."""
    represents: bool = False
    """Kept, or remembered: expired at S3, but its memory keeps filtering."""


@dataclass(frozen=True, slots=True)
class InSpace:
    """What is known of an object in another embedding space."""

    pixel_sha256: bytes | None
    """By that space's recipe; None: it has no vector there."""
    outcome: str | None = None
    """Then what became of it: rejected, failed or gone."""
    reason: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def in_other_space(state: State, found: InSpace | None) -> State:
    """What a state of one space's generation means to a generation of another space.

    An object that was judged there and has no vector here gets the outcome that it has here. An
    expired object that is unknown here cannot filter: it is gone.
    """
    pixels = None if found is None else found.pixel_sha256
    if found is None or found.outcome is None or state.outcome not in ("kept", "duplicate"):
        return replace(
            state, pixel_sha256=pixels, represents=state.represents and pixels is not None
        )
    return replace(
        state, outcome=found.outcome, reason=found.reason, detail=found.detail,
        representative=None, distance=None, pixel_sha256=None, represents=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Write a decision, and a representative where ``image`` is given."""

    state: State
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close the open decision of an object at a seq, and its representative where asked."""

    object_id: int
    seq: int
    representative: bool


Write = Add | Close
Fetch = Callable[[Sequence[State]], list[Image]]
"""Images of the objects, in the order in which duplicates are decided again (best first)."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Something rests on an image (a snapshot, an evaluation set) from one seq to another."""

    after: int
    """Turns after this one find it."""
    to: int | None = None
    """The last turn that finds it; None: all."""

    def holds(self, seq: int) -> bool:
        """Whether a turn finds it."""
        return self.after < seq and (self.to is None or seq <= self.to)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What keep-best asks of images."""

    merits: Mapping[int, Merit]
    holds: Mapping[int, Sequence[Hold]]


Rank = Callable[[Sequence[State]], Ranked]
"""Merits and holds of the objects."""


class Successor:
    """The next generation, in memory: the kept images and what they represent."""

    def __init__(
        self,
        rule: NearRule,
        dimension: int,
        fetch: Fetch,
        rulings: Rulings = NO_RULINGS,
        *,
        rank: Rank = lambda states: Ranked({}, {}),
    ) -> None:
        """rulings: in force while it is built. The switch handles rulings made in the meantime.

        rank: asked only where the rule keeps the best.
        """
        self._rank = rank
        self._merits: dict[int, Merit] = {}
        self._holds: dict[int, Sequence[Hold]] = {}
        self._seq = 0
        """Of the item being decided."""
        self._replay = Replay(rule, dimension, rulings)
        self._rulings = rulings
        self._fetch = fetch
        self.states: dict[int, State] = {}
        self._children: dict[int, set[int]] = {}

    def copy(self, states: Sequence[State]) -> Iterator[Write]:
        """Start from another generation as it is: nothing is decided again."""
        for block in in_blocks(states):
            images = self._images([state for state in block if state.represents])
            for state in block:
                if state.object_id in images:
                    self._replay.keep([images[state.object_id]])
                elif state.represents or state.outcome == "kept":
                    yield from self._without_vector(state)
                    continue
                yield self._add(state, images.get(state.object_id))
        for target in self._rulings.followers:
            state_of = self.states.get(target)
            if state_of is not None and state_of.outcome in ("kept", "duplicate"):
                self._replay.name(target, state_of.representative or target)

    def apply(self, states: Sequence[State]) -> Iterator[Write]:
        """Replay or catch up with ``states``, which come in order; rulings change that order."""
        states = self._rulings.in_order(states, lambda state: state.object_id)
        waiting: list[State] = []
        for state in states:
            if self._is_to_be_decided(state):
                waiting.append(state)
                continue
            yield from self._decide(waiting)
            waiting.clear()
            yield from self._follow(state)
        yield from self._decide(waiting)

    def _is_to_be_decided(self, state: State) -> bool:
        judged = state.outcome in ("kept", "duplicate") or state.represents
        return judged and not self._is_judged(state.object_id)

    def _is_judged(self, object_id: int) -> bool:
        known = self.states.get(object_id)
        return known is not None and (known.outcome in ("kept", "duplicate") or known.represents)

    def _decide(self, states: Sequence[State]) -> Iterator[Write]:
        for block in in_blocks(states):
            images = self._images(block)
            alive = [state for state in block if state.object_id in images]
            if self._replay.rule.keep_best is not None:
                yield from self._decide_best(alive, images)
                alive = []
            fates = self._replay.decide([images[state.object_id] for state in alive])
            for state, fate in zip(alive, fates, strict=True):
                yield from self._decided(state, fate, images[state.object_id])
            for state in block:
                if state.object_id not in images:
                    yield from self._without_vector(state)

    def _decided(self, state: State, fate: Fate, image: Image) -> Iterator[Write]:
        if state.object_id in self.states:
            yield Close(state.object_id, state.seq, representative=False)
        if state.outcome == "gone":  # remembered there
            new = replace(state, represents=fate.outcome == "kept")
        else:
            new = replace(
                state, outcome=fate.outcome, reason=fate.reason,
                detail=lasting(state.detail) | fate.detail(),
                representative=fate.representative_object_id, distance=fate.distance,
                represents=fate.outcome == "kept",
            )  # fmt: skip
        yield self._add(new, image if new.represents else None)

    def _decide_best(self, states: Sequence[State], images: Mapping[int, Image]) -> Iterator[Write]:
        """One after the other: a better image takes the place of its representative."""
        self._learn(states)
        steps = self._replay.decide_each([images[state.object_id] for state in states], self)
        self._seq = states[0].seq if states else 0
        for place, (state, (image, step)) in enumerate(zip(states, steps, strict=True), start=1):
            yield from self._decided(state, step.fate, image)
            for object_id, (_, fate) in step.displaced.items():
                old = self.states[object_id]
                yield Close(object_id, state.seq, representative=old.represents)
                self._forget(old)
                yield self._add(
                    replace(
                        old, outcome=fate.outcome, reason=fate.reason, detail=lasting(old.detail),
                        representative=fate.representative_object_id, distance=fate.distance,
                        seq=state.seq, represents=False,
                    ),
                    None,
                )  # fmt: skip
            if place < len(states):
                self._seq = states[place].seq

    def merit(self, object_id: int) -> Merit:
        """See ``pixsift.core.keep_best.Groups``."""
        if object_id not in self._merits:  # one that was copied
            self._learn([self.states[object_id]])
        return self._merits.get(object_id, Merit())

    def is_held(self, representative: int) -> bool:
        """See ``pixsift.core.keep_best.Groups``."""
        if self.states[representative].outcome == "gone":
            return True
        self.merit(representative)
        return any(hold.holds(self._seq) for hold in self._holds.get(representative, ()))

    def duplicates(self, representative: int) -> Sequence[Image]:
        """See ``pixsift.core.keep_best.Groups``."""
        children = [self.states[child] for child in self._children.get(representative, ())]
        return self._fetch(children) if children else []

    def _learn(self, states: Sequence[State]) -> None:
        ranked = self._rank(states)
        self._merits.update(ranked.merits)
        self._holds.update(ranked.holds)

    def _without_vector(self, state: State) -> Iterator[Write]:
        """Erased since the states were read (its ``gone`` is on its way), or lost: said so."""
        if state.object_id in self.states:
            yield Close(state.object_id, state.seq, representative=False)
        gone = state.outcome == "gone"
        yield self._add(
            replace(
                state, outcome="gone" if gone else "failed",
                reason=state.reason if gone else "vector_missing", pixel_sha256=None,
                representative=None, distance=None, represents=False,
            ),
            None,
        )  # fmt: skip

    def _follow(self, state: State) -> Iterator[Write]:
        """Take over what the generation in use decided: rejected, failed, gone, expired or taken
        back."""
        known = self.states.get(state.object_id)
        if state.outcome in ("kept", "duplicate") or (known and _same(known, state)):
            return
        remembered = state.represents and known is not None and known.represents
        if known is not None:
            ends = known.represents and not remembered
            yield Close(state.object_id, state.seq, representative=ends)
            self._forget(known)
        if state.outcome is not None:
            yield self._add(replace(state, represents=remembered, representative=None), None)
        if not remembered:
            self._replay.remove(state.object_id)
            yield from self._children_of(state.object_id, state.seq)

    def _children_of(self, object_id: int, seq: int) -> Iterator[Write]:
        children = [self.states[child] for child in self._children.pop(object_id, ())]
        images = self._fetch(children) if children else []
        images = self._rulings.in_order(images, lambda image: image.object_id)
        states = {state.object_id: state for state in children}
        for image, fate in zip(images, self._replay.decide(images), strict=True):
            old = states[image.object_id]
            yield Close(image.object_id, seq, representative=False)
            new = replace(
                old, outcome=fate.outcome,
                reason=promoted(fate),
                detail=lasting(old.detail) | fate.detail(),
                representative=fate.representative_object_id, distance=fate.distance,
                seq=seq, represents=fate.outcome == "kept",
            )  # fmt: skip
            yield self._add(new, image if new.represents else None)

    def _add(self, state: State, image: Image | None) -> Add:
        self.states[state.object_id] = state
        if state.representative is not None:
            self._children.setdefault(state.representative, set()).add(state.object_id)
        return Add(state, image)

    def _forget(self, state: State) -> None:
        del self.states[state.object_id]
        if state.representative is not None:
            self._children.get(state.representative, set()).discard(state.object_id)

    def _images(self, states: Sequence[State]) -> dict[int, Image]:
        return {image.object_id: image for image in self._fetch(states)} if states else {}


def promoted(fate: Fate) -> str:
    """The reason of a duplicate that is kept because its representative was removed."""
    return "promoted" if fate.outcome == "kept" and fate.reason != REASON else fate.reason


def _same(a: State, b: State) -> bool:
    return (a.outcome, a.reason, a.represents) == (b.outcome, b.reason, b.represents)
