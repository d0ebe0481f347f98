"""Rulings: what people said about images. Decisions obey them before any rule. Pure.

Five kinds, each about one object version, two of them about a pair:

- ``choose``: it represents its group from now on. It is kept, and every image that the rule finds
  near it becomes a duplicate, even one that was kept before.
- ``also_keep``: it is kept although a representative is near.
- ``same``: it is a duplicate of the other image, at any distance; or of the other's representative,
  if the other is a duplicate itself.
- ``not_same``: neither of the two ever represents the other; the rule decides against all others.
- ``useless``: it is rejected.

Images with equal bytes or pixels are never both kept, whatever people say. A ruling about an image
that is gone, rejected or not judged yet takes effect as soon as it can.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

Kind = Literal["choose", "also_keep", "same", "not_same", "useless"]
KINDS: Final[tuple[Kind, ...]] = ("choose", "also_keep", "same", "not_same", "useless")
PAIRS: Final = ("same", "not_same")
"""Kinds about two images."""
REASON: Final = "ruled"
"""Of a decision that a ruling made."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ruling:
    """One ruling."""

    kind: Kind
    object_id: int
    other: int | None = None
    """Of ``same`` and ``not_same``."""

    def touches(self) -> tuple[int, ...]:
        """The objects it is about."""
        return (self.object_id,) if self.other is None else (self.object_id, self.other)


@dataclass(frozen=True, slots=True, eq=False)
class Rulings:
    """The rulings in force, indexed for decisions."""

    about: Mapping[int, Ruling] = field(default_factory=dict)
    """By object: its one ruling of any kind but ``not_same``."""
    apart: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """By object: those it is not the same as."""
    followers: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """By object: those that are the same as it."""

    @classmethod
    def of(cls, said: Iterable[Ruling]) -> "Rulings":
        """What is in force together; ``contradictions`` says whether it can be."""
        about: dict[int, Ruling] = {}
        apart: dict[int, set[int]] = {}
        followers: dict[int, set[int]] = {}
        for ruling in said:
            if ruling.kind == "not_same" and ruling.other is not None:
                apart.setdefault(ruling.object_id, set()).add(ruling.other)
                apart.setdefault(ruling.other, set()).add(ruling.object_id)
                continue
            about[ruling.object_id] = ruling
            if ruling.kind == "same" and ruling.other is not None:
                followers.setdefault(ruling.other, set()).add(ruling.object_id)
        return cls(
            about,
            {i: frozenset(others) for i, others in apart.items()},
            {i: frozenset(others) for i, others in followers.items()},
        )

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.about or self.apart)

    def kind(self, object_id: int) -> Kind | None:
        """The ruling about an object; ``not_same`` does not count."""
        ruling = self.about.get(object_id)
        return None if ruling is None else ruling.kind

    def keeps(self, object_id: int) -> bool:
        """Whether it is kept whatever is near."""
        return self.kind(object_id) in ("choose", "also_keep")

    def same_as(self, object_id: int) -> int | None:
        """The object that it is a duplicate of."""
        ruling = self.about.get(object_id)
        return ruling.other if ruling is not None and ruling.kind == "same" else None

    def are_apart(self, a: int, b: int) -> bool:
        """Whether neither may represent the other."""
        return b in self.apart.get(a, ())

    def touches(self, object_id: int) -> bool:
        """Whether anything was said of an object, as the one or the other of a pair."""
        return object_id in self.about or object_id in self.apart or object_id in self.followers

    def allow_both(self, a: int, b: int) -> bool:
        """Whether two kept images that the rule finds near may both be kept."""
        one, other = self.kind(a), self.kind(b)
        return (
            self.are_apart(a, b)
            or "also_keep" in (one, other)
            or (one == "choose" and other == "choose")
        )

    def in_order(self, items: Sequence[_T], object_id: Callable[[_T], int]) -> list[_T]:
        """Items as they must be decided: the chosen first, since they represent their groups; those
        that are the same as another last, after that one; the others as they are."""
        if not self.about:
            return list(items)
        return sorted(items, key=lambda item: self._rank(object_id(item)))

    def _rank(self, object_id: int) -> int:
        if self.kind(object_id) == "choose":
            return -1
        return len(list(self._chain(object_id)))

    def _chain(self, object_id: int) -> Iterator[int]:
        """The object that it is the same as, the object that one is the same as, and so on."""
        seen = {object_id}
        while (target := self.same_as(object_id)) is not None and target not in seen:
            yield target
            seen.add(target)
            object_id = target

    def root(self, object_id: int) -> int:
        """The last object of that chain; the object itself without a ruling."""
        chain = [object_id, *self._chain(object_id)]
        return chain[-1]

    def with_followers(self, object_ids: Iterable[int]) -> set[int]:
        """The objects, with all that are ruled the same as one of them, directly or through
        others."""
        found: set[int] = set()
        waiting = list(object_ids)
        while waiting:
            object_id = waiting.pop()
            if object_id not in found:
                found.add(object_id)
                waiting += self.followers.get(object_id, ())
        return found


NO_RULINGS: Final = Rulings()


@dataclass(frozen=True, slots=True)
class Facts:
    """Hashes by which equal bytes and pixels are found."""

    content_sha256: bytes | None
    pixel_sha256: bytes | None

    def marks(self) -> list[tuple[str, bytes]]:
        """Hashes of the objects' ``bytes`` and ``pixels``."""
        known = (("bytes", self.content_sha256), ("pixels", self.pixel_sha256))
        return [(what, value) for what, value in known if value is not None]

    def equal(self, other: "Facts") -> str | None:
        """``bytes`` or ``pixels``, where the two images share them."""
        theirs = other.marks()
        return next((what for what, value in self.marks() if (what, value) in theirs), None)


def contradictions(said: Sequence[Ruling], facts: Mapping[int, Facts]) -> list[tuple[Ruling, str]]:
    """Rulings that cannot hold together with those before them, each with the reason.

    said: all rulings that would be in force, oldest first; facts: of every object they concern.
    """
    held = _Held(facts)
    wrong = [(ruling, why) for ruling in said if (why := held.why_not(ruling)) is not None]
    return wrong + list(held.apart_but_same())


class _Held:
    """A growing set of rulings that can hold together."""

    def __init__(self, facts: Mapping[int, Facts]) -> None:
        self._facts = facts
        self._about: dict[int, Ruling] = {}
        self._apart: dict[tuple[int, int], Ruling] = {}
        self._targets: set[int] = set()
        self._kept: dict[tuple[str, bytes], int] = {}
        """Bytes or pixels of those ruled to be kept."""

    def why_not(self, ruling: Ruling) -> str | None:
        """Why the ruling contradicts the others; None: it was added."""
        if ruling.object_id == ruling.other:
            return "an image cannot be compared with itself"
        why = self._against_pair(ruling) if ruling.kind == "not_same" else self._against(ruling)
        if why is None:
            self._join(ruling)
        return why

    def apart_but_same(self) -> Iterator[tuple[Ruling, str]]:
        """Pairs that are the same by one chain of rulings, and not by another."""
        rulings = Rulings(self._about)
        for (a, b), ruling in self._apart.items():
            if rulings.root(a) == rulings.root(b):
                yield ruling, "other rulings say that the two are the same image"

    def _against_pair(self, ruling: Ruling) -> str | None:
        if _pair(ruling) in self._apart:
            return "this is said already"
        assert ruling.other is not None  # noqa: S101 - a pair
        equal = self._facts[ruling.object_id].equal(self._facts[ruling.other])
        return None if equal is None else f"the two images have the same {equal}"

    def _against(self, ruling: Ruling) -> str | None:
        if (other := self._about.get(ruling.object_id)) is not None:
            return f"the image has the ruling {other.kind} already"
        if ruling.kind == "useless" and ruling.object_id in self._targets:
            return "another image is ruled the same as it, and a useless image represents no other"
        if ruling.kind == "same" and ruling.other is not None:
            target = self._about.get(ruling.other)
            if target is not None and target.kind == "useless":
                return "the other image is useless, and a useless image represents no other"
            if Rulings(self._about).root(ruling.other) == ruling.object_id:
                return "the other image is ruled the same as this one already"
        if ruling.kind in ("choose", "also_keep"):
            for what, value in self._facts[ruling.object_id].marks():
                if (what, value) in self._kept:
                    return f"another image with the same {what} is ruled to be kept"
        return None

    def _join(self, ruling: Ruling) -> None:
        if ruling.kind == "not_same":
            self._apart[_pair(ruling)] = ruling
            return
        self._about[ruling.object_id] = ruling
        if ruling.kind == "same" and ruling.other is not None:
            self._targets.add(ruling.other)
        if ruling.kind in ("choose", "also_keep"):
            for mark in self._facts[ruling.object_id].marks():
                self._kept[mark] = ruling.object_id


def _pair(ruling: Ruling) -> tuple[int, int]:
    one, other = sorted(ruling.touches())
    return one, other
