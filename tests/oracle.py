"""The decision by brute force: the simplest program that could be right, to compare ours with.

It shares nothing with the product but the rule's verdict: every pair is measured, in the order of
arrival, with the textbook formula in float64 over the stored halves. What people said goes first.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Rule = Callable[[float], bool]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as the oracle sees it."""

    name: str
    content: bytes
    pixels: bytes
    vector: NDArray[np.float16]
    quality: float = 0.0


@dataclass
class Oracle:
    """One collection. ``outcome`` says what became of an object."""

    epsilon: float
    remembers: bool = False
    """What expires goes on filtering."""
    keep_best: float | None = None
    """A better one by this margin takes the place of the one that it is near to."""
    pictures: dict[str, Picture] = field(default_factory=dict)
    """In the order of arrival."""
    kept: list[str] = field(default_factory=list)
    """Who represents: a remembered one does although it is gone."""
    children: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)
    """Their decision was taken back."""
    useless: set[str] = field(default_factory=set)
    """Rejected, as people said."""
    said: dict[str, str] = field(default_factory=dict)
    """``choose``, ``also_keep`` or ``useless``."""
    same: dict[str, str] = field(default_factory=dict)
    apart: set[frozenset[str]] = field(default_factory=set)
    by_ruling: set[str] = field(default_factory=set)
    """Duplicates of the one that a ruling names."""
    gave_no_place: set[str] = field(default_factory=set)
    """They were duplicates by the rule when something was said of them, in this generation."""

    def put(self, picture: Picture) -> None:
        """A new object version arrives; one that is known changes nothing."""
        self.deliver([picture])

    def deliver(self, pictures: Iterable[Picture]) -> None:
        """Versions arrive in one batch; then what rulings tie to them is decided again."""
        fresh = []
        for picture in pictures:
            name = picture.name
            if name in self.gone or (name in self.pictures and name not in self.undecided):
                continue
            self.undecided.discard(name)
            self.pictures.setdefault(name, picture)
            fresh.append(name)
        for name in self._in_order(fresh):
            self._arrive(name)
        self._follow(fresh)

    def remove(self, name: str) -> None:
        """The version is gone; what it stood for is decided again, best quality first."""
        if name not in self.gone:
            self.remove_together({name})

    def expire(self, name: str) -> None:
        """Gone by a lifecycle rule."""
        if not self.remembers:
            self.remove(name)
            return
        self.gone.add(name)
        self._leave(name)
        self._follow([name])

    def take_back(self, names: set[str]) -> None:
        """Versions that were gone or failed are undecided again, and represent no image."""
        self.remove_together(names)
        self.gone -= names
        self.undecided |= names

    def remove_together(self, names: set[str]) -> None:
        """Several versions are gone at once."""
        self.gone |= names
        for name in names:
            self._leave(name)
        removed = names & set(self.kept)
        self.kept = [name for name in self.kept if name not in removed]
        children = [child for child, of in self.children.items() if of in removed]
        for child in children:
            del self.children[child]
            self.by_ruling.discard(child)
        for child in self._in_order(self._best_first(children)):
            self._decide(child)
        self._follow(names)

    def change_epsilon(self, epsilon: float) -> None:
        """Everything is decided again in the order of arrival, the remembered ones as well."""
        self.epsilon = epsilon
        self.begin_generation()
        self.kept, self.children, self.by_ruling = [], {}, set()
        for name in self._in_order(list(self.pictures)):
            if name in self.useless:
                continue
            self._arrive(name)
            if name in self.gone:
                self.children.pop(name, None)
        self.begin_generation()

    def begin_generation(self) -> None:
        """A new generation knows when those arrived that represent or are duplicates; the others
        arrive when they come back."""
        for name in (self.gone | self.undecided) - set(self.kept):
            self.pictures.pop(name, None)
        self.gave_no_place = set()

    # -- rulings ----------------------------------------------------------------------------

    def rule(self, kind: str, name: str, other: str | None = None) -> None:
        """Someone says it; what it touches is decided again."""
        if kind != "not_same":
            self.gave_no_place.discard(name)
            if name in self.children and name not in self.by_ruling and name not in self.gone:
                self.gave_no_place.add(name)
        if kind == "same" and other is not None:
            self.same[name] = other
        elif kind == "not_same" and other is not None:
            self.apart.add(frozenset((name, other)))
        else:
            self.said[name] = kind
        self.again({name} if other is None else {name, other})

    def unrule(self, name: str) -> None:
        """Everything that was said of the image is taken back."""
        touched = {name} | {n for pair in self.apart if name in pair for n in pair}
        touched |= {self.same[name]} if name in self.same else set()
        touched |= {n for n, of in self.same.items() if of == name}
        was = self.said.pop(name, None)
        ended = {n for n, of in self.same.items() if name in (n, of)}
        if was == "useless":
            ended.add(name)
        self.same = {n: of for n, of in self.same.items() if name not in (n, of)}
        self.apart = {pair for pair in self.apart if name not in pair}
        if was == "choose" or ended - self.gave_no_place:
            self.as_arrived(touched)
        else:
            self.again(touched, ended=True)

    def as_arrived(self, names: set[str]) -> None:
        """Decide these again in the order of arrival, each compared with those that arrived before
        it: who was kept only since then gives way, and is decided again as well."""
        asked, ending = set(names), set[str]()
        kept, children, by_ruling = list(self.kept), dict(self.children), set(self.by_ruling)
        while True:
            subjects = self._subjects(asked)
            more = self._with_followers(asked) | (self._with_followers(subjects) - subjects)
            if not more <= asked:
                asked |= more
                continue
            stay = [n for n in kept if n not in subjects and n not in ending]
            self.kept = []
            for name in subjects:
                self._leave(name)
            order = self._in_order(
                sorted({*subjects, *stay}, key=lambda n: list(self.pictures).index(n))
            )
            for name in order:
                if name in subjects:
                    self._decide(name)
                else:
                    self.kept.append(name)
            late = [
                n for n in order
                if n in stay and any(
                    other in subjects and self.within(n, other) and not self.allow_both(n, other)
                    for other in self.kept[: self.kept.index(n)]
                )
            ]  # fmt: skip
            if not late:
                self.kept = stay + [n for n in self.kept if n in subjects]
                return
            self.children, self.by_ruling = dict(children), set(by_ruling)
            if remembered := [n for n in late if n in asked]:
                ending.add(remembered[0])
            asked |= set(late)

    def again(self, names: set[str], *, ended: bool = False) -> None:
        """Decide these again, with all that rulings tie to them and all that they represent.

        ended: rulings about ``names`` were taken back.
        """
        asked, taken_back = set(names), set(names)
        while True:
            subjects = self._subjects(asked)
            more = self._with_followers(asked) | (self._with_followers(subjects) - subjects)
            more |= {
                other
                for name in subjects
                if self.said.get(name) == "choose"
                for other in self.kept
                if other not in subjects and other != name and self.within(name, other)
                and not self.allow_both(name, other)
            }  # fmt: skip
            if more <= asked:
                break
            asked |= more
        displaced = {
            other
            for name in subjects
            if self.said.get(name) == "choose"
            for other in self.kept
            if other in self.gone and self.within(name, other) and not self.allow_both(name, other)
        }
        kept_first = [n for n in self.kept if n in subjects]
        order = kept_first + self._best_first([n for n in subjects if n not in kept_first])
        if ended:
            stays = [n for n in order if n in asked and n not in taken_back]
            order = stays + [n for n in self.pictures if n in subjects - set(stays)]
        self.kept = [n for n in self.kept if n not in subjects and n not in displaced]
        for name in subjects:
            self._leave(name)
        for name in self._in_order(order):
            self._decide(name)

    def allow_both(self, a: str, b: str) -> bool:
        """Whether two that are near may both be kept."""
        kinds = (self.said.get(a), self.said.get(b))
        return (
            frozenset((a, b)) in self.apart or "also_keep" in kinds or kinds == ("choose", "choose")
        )

    # -- questions --------------------------------------------------------------------------

    def outcome(self, name: str) -> str | None:
        """``kept``, ``duplicate``, ``rejected`` or ``gone``; None: undecided."""
        if name in self.gone:
            return "gone"
        if name in self.undecided:
            return None
        if name in self.useless:
            return "rejected"
        return "kept" if name in self.kept else "duplicate"

    def within(self, a: str, b: str) -> bool:
        """Whether two pictures are duplicates of one another."""
        one, two = self.pictures[a], self.pictures[b]
        return self.equal(a, b) or distance(one.vector, two.vector) <= self.epsilon

    def equal(self, a: str, b: str) -> bool:
        """Whether two pictures share bytes or pixels."""
        one, two = self.pictures[a], self.pictures[b]
        return one.content == two.content or one.pixels == two.pixels

    # -- deciding ---------------------------------------------------------------------------

    def _arrive(self, name: str) -> None:
        """Decide; then let it take the place of the one that it is near to, if it is better."""
        before = list(self.kept)
        self._decide(name)
        near = [other for other in before if self.within(name, other)]
        if self.keep_best is None or len(near) != 1 or name not in self.children:
            return
        (old,) = near
        group = [old] + [child for child, of in self.children.items() if of == old]
        if (
            old not in self.gone
            and not any(self._is_ruled(each) for each in (name, *group))
            and not self.equal(name, old)
            and self.pictures[name].quality - self.pictures[old].quality >= self.keep_best
            and all(self.within(name, each) for each in group)
        ):
            del self.children[name]
            self.kept = [other for other in self.kept if other != old] + [name]
            self.children |= dict.fromkeys((each for each in group if each != name), name)

    def _is_ruled(self, name: str) -> bool:
        """Whether anything was said of it, as one or the other of a pair."""
        return (
            name in self.said or name in self.same or name in self.same.values()
            or any(name in pair for pair in self.apart)
        )  # fmt: skip

    def _decide(self, name: str) -> None:
        if self.said.get(name) == "useless":
            self.useless.add(name)
            return
        picture = self.pictures[name]
        equal = [other for other in self.kept if self.equal(name, other)]
        if equal:
            self.children[name] = min(
                equal, key=lambda other: self.pictures[other].content != picture.content
            )
            return
        if self.said.get(name) in ("choose", "also_keep"):
            self.kept.append(name)
            return
        named = self._represented(self.same.get(name))
        if named is not None and named != name and frozenset((name, named)) not in self.apart:
            self.children[name] = named
            self.by_ruling.add(name)
            return
        near = [
            other for other in self.kept
            if self.within(name, other) and frozenset((name, other)) not in self.apart
        ]  # fmt: skip
        if not near:
            self.kept.append(name)
            return
        self.children[name] = min(
            near, key=lambda other: distance(picture.vector, self.pictures[other].vector)
        )

    def _represented(self, name: str | None) -> str | None:
        if name is None or name in self.gone:
            return None
        return name if name in self.kept else self.children.get(name)

    def _leave(self, name: str) -> None:
        self.children.pop(name, None)
        self.by_ruling.discard(name)
        self.useless.discard(name)
        self.undecided.discard(name)

    def _subjects(self, asked: set[str]) -> set[str]:
        """Those that can be decided, with the children of all."""
        decided = {
            n for n in asked
            if n in self.pictures and n not in self.gone and n not in self.undecided
        }  # fmt: skip
        return decided | {child for child, of in self.children.items() if of in asked}

    def _follow(self, names: Iterable[str]) -> None:
        """A chosen one may displace others, and who is the same as one goes where it goes."""
        tied = {n for n in names if self.said.get(n) == "choose"}
        tied |= {n for n, of in self.same.items() if of in set(names)}
        if tied:
            self.again(tied)

    def _with_followers(self, names: Iterable[str]) -> set[str]:
        found = set(names)
        while more := {n for n, of in self.same.items() if of in found} - found:
            found |= more
        return found

    def _in_order(self, names: list[str]) -> list[str]:
        """The chosen first, then the others, then who is the same as another, after that one."""

        def rank(name: str) -> int:
            if self.said.get(name) == "choose":
                return -1
            steps, seen = 0, {name}
            while (name := self.same.get(name, name)) not in seen:
                seen.add(name)
                steps += 1
            return steps

        return sorted(names, key=rank)

    def _best_first(self, names: Iterable[str]) -> list[str]:
        arrival = {name: place for place, name in enumerate(self.pictures)}
        return sorted(names, key=lambda n: (-self.pictures[n].quality, arrival[n]))


def distance(a: NDArray[np.float16], b: NDArray[np.float16]) -> float:
    """1 - a.b / (|a||b|), one term after the other."""
    x, y = [float(v) for v in a], [float(v) for v in b]
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    return 1.0 - dot / (
        math.sqrt(math.fsum(p * p for p in x)) * math.sqrt(math.fsum(q * q for q in y))
    )
