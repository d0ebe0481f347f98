"""Exact range search over many unit rows in memory: which stored rows may be near a query?

Rows lie in cells around centers. By the triangle inequality of angles, a cell whose center is
farther from the query than its radius and the wanted angle together holds nothing near it, so it
is skipped. Robot images come in scenes, so a query has to look into few cells, and a what-if over a
hundred thousand images takes seconds instead of minutes. Where the cells do not help (no clusters,
a wide epsilon) everything is compared at once. Skipping is exact except for float error, which the
slack covers many times.

The mirror has cells of another kind (``pixsift.adapters.search.cell_blocks``), because its rows are
added and removed, and a cell must be large enough for a call of its own. Measured here in place of
these cells: a what-if took 1.5 times as long with scenes of 333 kept images, twice as long with
scenes of 17, and half as long without scenes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""(N, D) float32, rows of unit length."""

_REACH = 0.6
"""Radians (34 degrees) within which a row joins the nearest center instead of becoming one."""
_MAX_CELLS = 4096
"""Rows outside the cells, once there are this many cells, are compared with every query."""
_SLACK = 0.01
"""Radians; a float32 product of unit rows errs by 1e-6, an angle computed from it by 2e-3."""
_ROWS_AT_ONCE = 8192
"""Rows per product without cells: 512 x 8192 float32 similarities are 16 MiB."""


class Screen:
    """Unit rows by slot; slots are given in the order of arrival and never reused."""

    def __init__(self, dimension: int) -> None:
        self._rows: Rows = np.empty((64, dimension), dtype=np.float32)
        self._count = 0
        self._centers: Rows = np.empty((_MAX_CELLS, dimension), dtype=np.float32)
        self._radius = np.zeros(_MAX_CELLS)
        self._cells: list[list[int]] = []
        self._loose: list[int] = []

    def __len__(self) -> int:
        """How many rows there are."""
        return self._count

    def add(self, rows: Rows) -> None:
        """Append ``rows``; they take the next slots."""
        while self._count + len(rows) > len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        first = self._count
        self._rows[first : first + len(rows)] = rows
        self._count += len(rows)
        cells, angles = self._nearest(rows)
        far = np.flatnonzero(angles > _REACH)
        while len(far) and len(self._cells) < _MAX_CELLS:
            leader = rows[far[0]]
            self._centers[len(self._cells)] = leader
            around = _angles(rows[far] @ leader)
            around[0] = 0.0
            nearer = around < angles[far]
            cells[far[nearer]], angles[far[nearer]] = len(self._cells), around[nearer]
            self._cells.append([])
            far = far[angles[far] > _REACH]
        self._loose += (first + far).tolist()
        inside = np.setdiff1d(np.arange(len(rows)), far)
        for number, cell in zip(inside.tolist(), cells[inside].tolist(), strict=True):
            self._cells[cell].append(first + number)
        np.maximum.at(self._radius, cells[inside], angles[inside])

    def near(self, queries: Rows, similarity: float) -> Iterator[tuple[int, int]]:
        """(query, slot) of every stored row with at least this cosine similarity to a query."""
        if not self._cells:
            return
        wanted = np.arccos(np.clip(similarity, -1.0, 1.0)) + _SLACK
        angles = _angles(queries @ self._centers[: len(self._cells)].T)
        needed = angles <= self._radius[: len(self._cells)] + wanted
        sizes = np.array([len(cell) for cell in self._cells])
        work = (needed.sum(axis=0) * sizes).sum() + len(queries) * len(self._loose)
        if work > 0.3 * len(queries) * self._count:
            yield from self._plain(queries, similarity)
            return
        for cell in np.flatnonzero(needed.any(axis=0)):
            asking = np.flatnonzero(needed[:, cell])
            yield from self._among(queries, asking, self._cells[cell], similarity)
        if self._loose:
            everyone = np.arange(len(queries))
            yield from self._among(queries, everyone, self._loose, similarity)

    def _among(
        self, queries: Rows, asking: NDArray[np.intp], slots: list[int], similarity: float
    ) -> Iterator[tuple[int, int]]:
        products = queries[asking] @ self._rows[slots].T
        for query, row in where_true(products >= similarity):
            yield int(asking[query]), slots[row]

    def _plain(self, queries: Rows, similarity: float) -> Iterator[tuple[int, int]]:
        for start in range(0, self._count, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, self._count)
            for query, row in where_true(queries @ self._rows[start:stop].T >= similarity):
                yield query, start + row

    def _nearest(self, rows: Rows) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The nearest center to each row, and the angle; infinitely far if there is none."""
        if not self._cells:
            return np.zeros(len(rows), np.intp), np.full(len(rows), np.inf, np.float32)
        products = rows @ self._centers[: len(self._cells)].T
        best = products.argmax(axis=1)
        return best, _angles(products[np.arange(len(rows)), best])


def where_true(hits: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Row and column of every True of a matrix: several times as fast as ``np.nonzero``."""
    flat = np.flatnonzero(hits)
    rows, columns = np.divmod(flat, hits.shape[1])
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _angles(products: NDArray[np.float32]) -> NDArray[np.float32]:
    angles: NDArray[np.float32] = np.arccos(np.clip(products, -1.0, 1.0))
    return angles
