"""Row sources: the rows of a pool and the few passes over them that choosing needs.

A row source answers three questions: what are the exact values of these few rows (``take``), what
are all of them like (``summary``, one pass), and how near is each of them to a new center at most
(``lower``, one pass). A pass reads every row once and may round to float32 within
``error_bound``; to find which of two rows is farther, a caller uses ``take`` and measures in
float64. So the picks are the same whether rows are in an array, in a file or on a GPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]

NO_INDICES: Indices = np.empty(0, np.intp)

SUMMARY_ROWS = 4096
"""Rows per partial sum of the mean: the same for every source, so that all agree on its bits."""
_TILE = 1 << 20
"""Floats in one tile of products: 4 MB, which stays in the cache."""
_LARGEST_NORM = 1e15
"""Squares of larger norms leave float32."""
_UNIT = 2.0**-24


@dataclass(frozen=True, slots=True, eq=False)
class RowSummary:
    """What one pass over all rows learns."""

    mean: Float64s
    """(D,) over the finite rows."""
    largest_norm: float
    broken: Indices
    """Rows that hold NaN, infinity, or values too large for float32 arithmetic."""


class RowSource(Protocol):
    """(N, D) rows that are read in passes."""

    @property
    def count(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    @property
    def bytes_per_pass(self) -> int:
        """What one pass reads."""
        ...

    @property
    def summary(self) -> RowSummary:
        """One pass, the first time it is asked for."""
        ...

    def take(self, indices: Indices) -> Float64s:
        """(M, D) the exact stored values of some rows."""
        ...

    def lower(self, nearest: Float32s, centers: Float64s) -> None:
        """One pass: ``nearest[i] = min(nearest[i], |row i - center|²)`` over all centers.

        nearest: (N,) float32, changed in place, each value within ``error_bound`` of the truth.
        centers: (M, D) rows of this source or of another, or means of such.
        """
        ...

    def blocks(self, size: int) -> Iterator[tuple[int, Float32s]]:
        """One pass: (index of the first row, (<= size, D) rows) in order; valid until the next."""
        ...

    def subset(self, indices: Indices) -> "RowSource":
        """Some of the rows, by ascending index, without copying them."""
        ...


def error_bound(dimension: int, largest_norm: float) -> float:
    """How far a squared distance from ``lower`` may be from the float64 one.

    largest_norm: of rows and centers. Higham, Accuracy and Stability of Numerical Algorithms, 3.1:
    a float32 inner product of length D is off by at most gamma(D) |a||b|, whatever the order of its
    sum. Twice that, plus casts of the operands, two norms and two additions; plus what flushing
    subnormals to zero may cost.
    """
    scale = (2 * (dimension + 3) + 16) * _UNIT * 1.05
    return scale * largest_norm**2 + dimension * 2.0**-124


def squared_distances(rows: Float64s, center: Float64s) -> Float64s:
    """(M,) the definition: per pair, in float64, whatever else is in the batch."""
    return np.asarray(np.square(rows - center).sum(axis=1), dtype=np.float64)


def ascending(indices: Indices) -> Indices:
    """The indices of a subset, checked. Raises ValueError."""
    if indices.size and (np.diff(indices) <= 0).any():
        raise ValueError("the indices of a subset must be in ascending order")
    return indices


def widened(halves: NDArray[np.floating], scratch: NDArray[np.int32]) -> Float32s:
    """float16 -> float32, exactly, for finite values; six times as fast as ``astype``.

    scratch: of the same shape; the result lies in it. A half's bits, moved to where float32 keeps
    them, are its value but for the bias of the exponent: 2**112, subnormals included.
    """
    np.copyto(scratch, halves.view(np.int16))
    np.left_shift(scratch, 13, out=scratch)
    np.bitwise_and(scratch, np.int32(-0x70000001), out=scratch)  # the sign was spread over these
    values: Float32s = scratch.view(np.float32)
    values *= np.float32(2.0**112)
    return values


class BlockRows(ABC):
    """A row source made of blocks; a subclass says where they are."""

    @property
    @abstractmethod
    def count(self) -> int: ...

    @property
    @abstractmethod
    def dimension(self) -> int: ...

    @property
    @abstractmethod
    def bytes_per_pass(self) -> int: ...

    @abstractmethod
    def gather(self, indices: Indices) -> NDArray[np.floating]:
        """(M, D) rows as stored."""

    @abstractmethod
    def span(self, start: int, stop: int) -> NDArray[np.floating]:
        """(stop - start, D) rows as stored; valid until the next call."""

    def take(self, indices: Indices) -> Float64s:
        """(M, D) the exact stored values of some rows."""
        return np.ascontiguousarray(self.gather(indices), dtype=np.float64)

    def blocks(self, size: int) -> Iterator[tuple[int, Float32s]]:
        """One pass in order; a block is valid until the next. Infinities may come out finite:
        ``summary`` is what finds them."""
        scratch = np.empty((0, self.dimension), np.int32)
        for start in range(0, self.count, size):
            stop = min(start + size, self.count)
            stored = self.span(start, stop)
            if stored.dtype == np.float16:
                if not len(scratch):
                    scratch = np.empty(stored.shape, np.int32)
                yield start, widened(stored, scratch[: stop - start])
                continue
            # Values beyond float32 become infinite here, and ``summary`` has reported them.
            with np.errstate(over="ignore"):
                yield start, np.ascontiguousarray(stored, dtype=np.float32)

    @cached_property
    def summary(self) -> RowSummary:
        """One pass over all rows."""
        total = np.zeros(self.dimension)
        squares = np.empty(self.count)
        broken: list[Indices] = []
        for start in range(0, self.count, SUMMARY_ROWS):
            rows = self.span(start, min(start + SUMMARY_ROWS, self.count)).astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                norms = np.einsum("ij,ij->i", rows, rows)
            bad = np.flatnonzero(~(norms <= _LARGEST_NORM**2))
            if bad.size:
                broken.append(bad + start)
                rows = np.delete(rows, bad, axis=0)
            squares[start : start + norms.size] = norms
            total += rows.sum(axis=0)
        self._squares: Float32s = squares.astype(np.float32) if not broken else np.empty(0, "f4")
        lost = np.concatenate(broken) if broken else np.empty(0, np.intp)
        sound = np.delete(squares, lost)
        largest = float(np.sqrt(sound.max())) * (1 + 1e-12) if sound.size else 0.0
        return RowSummary(total / max(1, sound.size), largest, lost)

    def check_finite(self) -> None:
        """Raise ValueError where rows hold NaN or infinity: distances to them mean nothing."""
        if self.summary.broken.size:
            raise ValueError(f"{self.summary.broken.size} rows contain NaN or infinity")

    def lower(self, nearest: Float32s, centers: Float64s) -> None:
        """One pass: |x - c|² = |x|² - 2 (x.c - |c|²/2), the products in one matrix product."""
        self.check_finite()
        columns = np.ascontiguousarray(centers, dtype=np.float32)
        halves = (np.einsum("ij,ij->i", centers, centers) / 2).astype(np.float32)[:, None]
        high = min(len(columns), _TILE // 256)
        size = int(np.clip(_TILE // max(1, high), 256, 8192))
        products = np.empty((high, size), np.float32)
        for start, rows in self.blocks(size):
            stop = start + len(rows)
            for first in range(0, len(columns), max(1, high)):
                part = columns[first : first + high]
                with np.errstate(invalid="ignore"):  # all is finite; BLAS may say otherwise
                    tile = np.matmul(part, rows.T, out=products[: len(part), : len(rows)])
                tile -= halves[first : first + high]
                found = self._squares[start:stop] - 2 * tile.max(axis=0)
                np.maximum(found, 0, out=found)
                np.minimum(nearest[start:stop], found, out=nearest[start:stop])

    def subset(self, indices: Indices) -> "RowSource":
        """Some of the rows, without copying them."""
        return SubsetRows(self, np.asarray(indices, dtype=np.intp))


class ArrayRows(BlockRows):
    """Rows of an (N, D) array or memory map of float16, float32 or float64."""

    def __init__(self, values: NDArray[np.floating]) -> None:
        if values.ndim != 2 or values.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(
                f"rows must be an (N, D) array of float16, float32 or float64, "
                f"not {values.dtype} of shape {values.shape}"
            )
        self._values = values

    @property
    def count(self) -> int:
        return int(self._values.shape[0])

    @property
    def dimension(self) -> int:
        return int(self._values.shape[1])

    @property
    def bytes_per_pass(self) -> int:
        return self._values.nbytes

    def gather(self, indices: Indices) -> NDArray[np.floating]:
        """(M, D) rows as stored."""
        return self._values[indices]

    def span(self, start: int, stop: int) -> NDArray[np.floating]:
        """A view of consecutive rows."""
        return self._values[start:stop]


class SubsetRows(BlockRows):
    """Rows of another source, by ascending index."""

    def __init__(self, source: BlockRows, indices: Indices) -> None:
        self._source = source
        self._indices = ascending(indices)

    @property
    def count(self) -> int:
        return self._indices.size

    @property
    def dimension(self) -> int:
        return self._source.dimension

    @property
    def bytes_per_pass(self) -> int:
        return self._source.bytes_per_pass * self.count // max(1, self._source.count)

    def gather(self, indices: Indices) -> NDArray[np.floating]:
        """(M, D) rows as stored."""
        return self._source.gather(self._indices[indices])

    def span(self, start: int, stop: int) -> NDArray[np.floating]:
        """Consecutive rows of the subset."""
        return self._source.gather(self._indices[start:stop])

    def subset(self, indices: Indices) -> RowSource:
        """A subset of the subset, straight from the source."""
        return SubsetRows(self._source, self._indices[indices])
