"""Rows in a float16 file, read block by block and never mapped, so that memory stays small."""

import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import ArrayRows, BlockRows, Indices, RowSource, ascending

_SCATTER = 8
"""A span is read as a whole if it is at most this many times longer than the rows wanted from
it."""
_GATHERED = 4096
"""Rows gathered at a time: bounds what reading spans whole may cost in memory."""
_HELD_BYTES = 64 << 20


class SpillRows(BlockRows):
    """(N, D) float16 rows in an unnamed file, which is deleted with the object or the process."""

    def __init__(self, folder: Path, dimension: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor, name = tempfile.mkstemp(prefix="pixsift-pool-", dir=folder)
        Path(name).unlink()
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self._dimension = dimension
        self._count = 0
        self._buffer = np.empty((0, dimension), np.float16)

    def append(self, rows: NDArray[np.float16]) -> None:
        """Add rows at the end; all of them before the first pass."""
        data = np.ascontiguousarray(rows).view(np.uint8).data.cast("B")
        while data:
            data = data[os.write(self._descriptor, data) :]
        self._count += len(rows)

    def close(self) -> None:
        """Release the file's space."""
        self._finalizer()

    @property
    def count(self) -> int:
        return self._count

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def bytes_per_pass(self) -> int:
        return self._count * self._dimension * 2

    def span(self, start: int, stop: int) -> NDArray[np.float16]:
        """Consecutive rows, in a buffer that the next call reuses."""
        if len(self._buffer) < stop - start:
            self._buffer = np.empty((stop - start, self._dimension), np.float16)
        rows = self._buffer[: stop - start]
        self._read(rows, start)
        return rows

    def gather(self, indices: Indices) -> NDArray[np.float16]:
        """(M, D) rows in any order."""
        rows = np.empty((indices.size, self._dimension), np.float16)
        for start in range(0, indices.size, _GATHERED):
            part = indices[start : start + _GATHERED]
            self._gather(part, rows[start : start + part.size])
        return rows

    def subset(self, indices: Indices) -> RowSource:
        """Some of the rows: a small subset is read into memory once, since passes repeat."""
        wanted = np.asarray(indices, dtype=np.intp)
        if wanted.size * self._dimension * 2 > _HELD_BYTES:
            return super().subset(wanted)
        return ArrayRows(self.gather(ascending(wanted)))

    def _gather(self, indices: Indices, rows: NDArray[np.float16]) -> None:
        low, high = int(indices.min()), int(indices.max()) + 1
        if high - low <= _SCATTER * indices.size and indices.size > 1:
            rows[:] = self.span(low, high)[indices - low]
            return
        for place, index in enumerate(indices):
            self._read(rows[place : place + 1], int(index))

    def _read(self, rows: NDArray[np.float16], start: int) -> None:
        view = rows.view(np.uint8).data.cast("B")
        offset, done = start * self._dimension * 2, 0
        while done < len(view):
            got = os.preadv(self._descriptor, [view[done:]], offset + done)
            if not got:
                raise OSError(f"the spill file ends within row {start}")
            done += got
