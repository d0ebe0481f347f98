"""Evaluation sets: images that a selection keeps away from, so that evaluation data stay separate.
Pure.

Distance has the one definition of ``pixsift.core.dedup``; an image at the boundary counts as
protected.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import RowSource
from pixsift.core.dedup import SCREEN_MARGIN, Halves, cosine_distance

NEAR_PROTECTED: Final = "near_protected"
"""Flag of an arrival near a protected picture."""
Kind = Literal["snapshot", "prefix", "folder"]
LEAST_DISTANCE: Final = 1e-4
"""Vectors of one picture from two batches may differ by this much."""
_BLOCK = 2048
_MEMBERS = 4096
"""Rows and pictures compared at once: 32 MiB of float32 products."""


@dataclass(frozen=True, slots=True, eq=False)
class Protected:
    """One set with its pictures in one embedding space."""

    protected_id: UUID
    source: str
    """What it was declared as: a snapshot, a prefix or a folder."""
    distance: float
    """Cosine distance within which nothing is chosen."""
    pixels: tuple[bytes, ...]
    """Pixel hashes of its pictures, ascending."""
    vectors: Halves
    """(M, D) as stored, in that order."""
    stand_for: frozenset[int] = frozenset()
    """Kept objects that represent one of its pictures: never chosen, at any distance."""
    bucket: str | None = None
    """Of a prefix."""
    prefix: str = ""

    def holds(self, bucket: str, key: str) -> bool:
        """Whether an object is in the set by its key."""
        return self.bucket == bucket and key.startswith(self.prefix)


@dataclass(frozen=True, slots=True, eq=False)
class Protection:
    """All sets in force of one collection."""

    sets: tuple[Protected, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sets)

    def digest(self) -> str:
        """Hex digest of all that decides what is left out: part of a snapshot's spec."""
        told = hashlib.sha256()
        for each in self.sets:
            told.update(f"{each.protected_id} {each.distance!r} {len(each.pixels)}\n".encode())
            for pixels in each.pixels:
                told.update(pixels)
            told.update(repr(sorted(each.stand_for)).encode())
        return told.hexdigest()

    def of_key(self, bucket: str, key: str) -> bool:
        """Whether an object is in a set by its key."""
        return any(each.holds(bucket, key) for each in self.sets)


NO_PROTECTION: Final = Protection()


def within(rows: RowSource, protection: Protection) -> NDArray[np.bool_]:
    """(N,) which rows lie within the distance of a set's pictures. Exact, over all rows.

    A product in float32 settles whatever is farther from the boundary than its error; the rest is
    measured in float64.
    """
    near = np.zeros(rows.count, bool)
    for vectors, limits in _parts(protection):
        units = _unit(vectors.astype(np.float32))
        doubtful: list[tuple[int, int]] = []
        for first, block in rows.blocks(_BLOCK):
            stop = first + len(block)
            distances = 1.0 - _unit(block) @ units.T
            near[first:stop] |= (distances < limits - SCREEN_MARGIN).any(axis=1)
            # NaN counts as doubtful; the exact comparison then says no.
            unsure = ~(np.abs(distances - limits) > SCREEN_MARGIN) & ~near[first:stop, None]
            found, columns = np.nonzero(unsure)
            doubtful += zip((found + first).tolist(), columns.tolist(), strict=True)
        _settle(rows, vectors, limits, doubtful, near)
    return near


def _parts(protection: Protection) -> list[tuple[Halves, NDArray[np.float64]]]:
    """Pictures of all sets with their limits, some thousands at a time."""
    filled = [each for each in protection.sets if len(each.pixels)]
    if not filled:
        return []
    vectors = np.concatenate([each.vectors for each in filled])
    limits = np.concatenate([np.full(len(each.vectors), each.distance) for each in filled])
    return [
        (vectors[start : start + _MEMBERS], limits[start : start + _MEMBERS])
        for start in range(0, len(vectors), _MEMBERS)
    ]


def _settle(
    rows: RowSource,
    vectors: Halves,
    limits: NDArray[np.float64],
    doubtful: Sequence[tuple[int, int]],
    near: NDArray[np.bool_],
) -> None:
    """Measure the pairs that float32 left open, until a row has one that is near."""
    wanted = np.array(sorted({row for row, _ in doubtful}), np.intp)
    exact = {
        int(row): values
        for start in range(0, len(wanted), _BLOCK)
        for row, values in zip(
            wanted[start : start + _BLOCK], rows.take(wanted[start : start + _BLOCK]), strict=True
        )
    }
    for row, column in doubtful:
        if not near[row]:
            mine = cast(Halves, exact[row])
            near[row] = cosine_distance(mine, vectors[column]) <= limits[column]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        unit: NDArray[np.float32] = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return unit
