"""The decision by brute force: the simplest program that could be right, to compare ours with.

It shares nothing with the product but the rule's verdict: every pair is measured, in the order of
arrival, with the textbook formula in float64 over the stored halves.
"""

import math
from collections.abc import Callable
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
    pictures: dict[str, Picture] = field(default_factory=dict)
    """In the order of arrival."""
    kept: list[str] = field(default_factory=list)
    """Who represents: a remembered one does although it is gone."""
    children: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)
    """Their decision was taken back."""

    def put(self, picture: Picture) -> None:
        """A new object version arrives; one that is known changes nothing."""
        name = picture.name
        if name in self.gone or (name in self.pictures and name not in self.undecided):
            return
        self.undecided.discard(name)
        self.pictures.setdefault(name, picture)
        self._decide(name)

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
        self.undecided.discard(name)
        self.children.pop(name, None)

    def take_back(self, names: set[str]) -> None:
        """Versions that were gone or failed are undecided again, and represent nobody."""
        self.remove_together(names)
        self.gone -= names
        self.undecided |= names

    def remove_together(self, names: set[str]) -> None:
        """Several versions are gone at once."""
        self.gone |= names
        self.undecided -= names
        for name in names:
            self.children.pop(name, None)
        removed = names & set(self.kept)
        self.kept = [name for name in self.kept if name not in removed]
        children = [child for child, of in self.children.items() if of in removed]
        for child in children:
            del self.children[child]
        arrival = list(self.pictures)
        children.sort(key=lambda n: (-self.pictures[n].quality, arrival.index(n)))
        for child in children:
            self._decide(child)

    def change_epsilon(self, epsilon: float) -> None:
        """Everything is decided again in the order of arrival, the remembered ones as well."""
        self.epsilon = epsilon
        self.begin_generation()
        self.kept, self.children = [], {}
        for name in self.pictures:
            self._decide(name)
            if name in self.gone:
                self.children.pop(name, None)
        self.begin_generation()

    def begin_generation(self) -> None:
        """A new generation knows when those arrived that represent or are duplicates; the others
        arrive when they come back."""
        for name in (self.gone | self.undecided) - set(self.kept):
            self.pictures.pop(name, None)

    def outcome(self, name: str) -> str | None:
        """``kept``, ``duplicate`` or ``gone``; None: undecided."""
        if name in self.gone:
            return "gone"
        if name in self.undecided:
            return None
        return "kept" if name in self.kept else "duplicate"

    def within(self, a: str, b: str) -> bool:
        """Whether two pictures are duplicates of one another."""
        one, two = self.pictures[a], self.pictures[b]
        return (
            one.content == two.content
            or one.pixels == two.pixels
            or distance(one.vector, two.vector) <= self.epsilon
        )

    def _decide(self, name: str) -> None:
        near = [other for other in self.kept if self.within(name, other)]
        if not near:
            self.kept.append(name)
            return
        picture = self.pictures[name]

        def closeness(other: str) -> tuple[int, float]:
            known = self.pictures[other]
            exact = 0 if known.content == picture.content else 1 if (
                known.pixels == picture.pixels) else 2  # fmt: skip
            return exact, distance(picture.vector, known.vector)

        self.children[name] = min(near, key=closeness)


def distance(a: NDArray[np.float16], b: NDArray[np.float16]) -> float:
    """1 - a.b / (|a||b|), one term after the other."""
    x, y = [float(v) for v in a], [float(v) for v in b]
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    return 1.0 - dot / (
        math.sqrt(math.fsum(p * p for p in x)) * math.sqrt(math.fsum(q * q for q in y))
    )
