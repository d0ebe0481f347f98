"""Unit rows in main memory, grouped in cells by scene, so that a query compares only a few of them.

Robots upload scene by scene, and the representatives of a scene lie close together. By the
triangle inequality of angles, a cell whose center is farther from a query than its radius and the
wanted angle together holds nothing near it and is skipped. Rows that belong to no cell are left
to ``NumpyBlocks``, which prunes by another bound; where cells help too little (every query meets
most of them) they are dissolved into those blocks for good. All of this is exact: it only changes
which products are computed, never which images are near.
"""

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.search.mirror import BLOCK_ROWS, Hits, NumpyBlocks, put_in_parts, where

_REACH = 0.6
"""Radians (34 degrees) within which a row joins the nearest center."""
_SLACK = 0.01
"""Radians; a float32 product of unit rows errs by 1e-6, an angle computed from it by 2e-3."""
_SETTLE_AT = 2048
"""Rows that wait, compared with every query, until there are enough to find scenes."""
_ROWS_PER_TRIAL = 32
"""One in so many of them is tried as a center: a scene of a tenth of 2,048 rows is missed once in
800 times."""
_FOUNDERS = 32
"""Rows of a scene that make a cell; the work of a cell must be worth its call."""
_MOST_CELLS = 4096
_MAX_SHARE = 0.25
"""Of the cells' rows that a query may meet, on average, before the cells are dissolved."""
_PATIENCE = 1024
"""Queries after which that is judged."""
_ABSENT, _LOOSE, _WAITING = -2, -1, 0


class CellBlocks:
    """Implements ``Blocks``."""

    def __init__(
        self,
        dimension: int,
        *,
        settle_at: int = _SETTLE_AT,
        founders: int = _FOUNDERS,
        patience: int = _PATIENCE,
    ) -> None:
        """settle_at, founders, patience: smaller in tests."""
        self._dimension = dimension
        self._settle_at = settle_at
        self._founders = founders
        self._patience = patience
        self._cells = [_Cell(dimension)]
        """The first cell holds the waiting rows; every query is compared with it."""
        self._centers = np.zeros((16, dimension), np.float32)
        self._radii = np.empty(16)
        self._loose = NumpyBlocks(dimension)
        self._loose_rows = _Numbers()
        self._cell_of = np.full(1024, _ABSENT, np.int32)
        """By row: the number of its cell, or ``_LOOSE``."""
        self._place_of = np.empty(1024, np.int32)
        """By row: its place there."""
        self._is_dissolved = False
        self._asked, self._met = 0, 0.0
        """Queries so far, and the sum of the shares of the cells' rows that they met."""
        self._chance = np.random.default_rng(7)

    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """See ``Blocks.put``."""
        rows = np.arange(row, row + len(vectors))
        self._make_room(row + len(vectors))
        for left_behind in rows[self._cell_of[rows] != _ABSENT].tolist():
            self._leave(left_behind)
        homeless = self._join(rows, vectors)
        self._add(_WAITING, rows[homeless], vectors[homeless])
        if self._cells[_WAITING].count >= self._settle_at:
            self._settle()

    def move(self, source: int, target: int) -> None:
        """See ``Blocks.move``. ``source`` has no place afterwards."""
        self._leave(target)
        cell, place = int(self._cell_of[source]), int(self._place_of[source])
        self._numbers(cell).values[place] = target
        self._cell_of[target], self._place_of[target] = cell, place
        self._cell_of[source] = _ABSENT

    def hits(self, queries: NDArray[np.float32], count: int, least: float) -> Hits:
        """See ``Blocks.hits``."""
        if self._asked >= self._patience:
            if self._met > _MAX_SHARE * self._asked:
                self._dissolve()
            self._asked, self._met = 0, 0.0
        query, place = self._loose.hits(queries, self._loose_rows.count, least)
        found = [(query, self._loose_rows.values[place])]
        meets = self._meets(queries, least)
        for number in np.flatnonzero(meets.any(axis=0)):
            asking = np.flatnonzero(meets[:, number])
            found.append(self._cells[number].hits(queries, asking, least))
        asked, rows = (np.concatenate(part) for part in zip(*found, strict=True))
        # Rows from ``count`` on were removed, and their numbers are unused.
        inside = rows < count
        return asked[inside], rows[inside]

    def _meets(self, queries: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
        """(M, C) whether a cell may hold something near a query."""
        count = len(self._cells)
        wanted = np.arccos(np.clip(least, -1.0, 1.0)) + _SLACK
        angles = _angles(queries @ self._centers[:count].T)
        meets: NDArray[np.bool_] = angles <= self._radii[:count] + wanted
        meets[:, _WAITING] = True
        if count > 1:
            sizes = np.array([cell.count for cell in self._cells[1:]])
            self._asked += len(queries)
            self._met += float((meets[:, 1:] @ sizes).sum()) / max(1, int(sizes.sum()))
        return meets

    def _join(self, rows: NDArray[np.intp], vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Put rows into cells that reach them; True for rows that no cell reaches."""
        if len(self._cells) == 1:
            return np.ones(len(rows), bool)
        products = vectors @ self._centers[1 : len(self._cells)].T
        # A full cell takes no more rows, so its products and its growth stay bounded; the rest of
        # its scene forms another cell.
        products[:, [cell.count >= BLOCK_ROWS for cell in self._cells[1:]]] = -1.0
        best = products.argmax(axis=1)
        angles = _angles(products[np.arange(len(rows)), best])
        joins = angles <= _REACH
        for number in np.unique(best[joins]).tolist():
            members = np.flatnonzero(joins & (best == number))
            self._add(number + 1, rows[members], vectors[members])
            self._radii[number + 1] = max(self._radii[number + 1], angles[members].max())
        return ~joins

    def _settle(self) -> None:
        """Make cells for the scenes among the waiting rows; the other rows become loose."""
        rows, vectors = self._cells[_WAITING].content()
        self._cells[_WAITING] = _Cell(self._dimension)
        left = np.ones(len(rows), bool)
        if not self._is_dissolved:
            tried = self._chance.choice(len(rows), -(-len(rows) // _ROWS_PER_TRIAL), replace=False)
            products = vectors[tried] @ vectors.T
            for leader, row in zip(tried.tolist(), products, strict=True):
                members = left & (row >= np.cos(_REACH))
                if left[leader] and members.sum() >= self._founders:
                    left &= ~self._found(vectors[leader], rows, vectors, members)
        self._add(_LOOSE, rows[left], vectors[left])

    def _found(
        self,
        center: NDArray[np.float32],
        rows: NDArray[np.intp],
        vectors: NDArray[np.float32],
        members: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Make a cell of the members; which rows it took."""
        number = len(self._cells)
        if number > _MOST_CELLS:
            return np.zeros(len(rows), bool)
        if number == len(self._radii):
            self._centers = np.concatenate([self._centers, np.empty_like(self._centers)])
            self._radii = np.concatenate([self._radii, np.empty_like(self._radii)])
        self._cells.append(_Cell(self._dimension))
        self._centers[number] = center
        self._radii[number] = _angles(vectors[members] @ center).max()
        self._add(number, rows[members], vectors[members])
        return members

    def _dissolve(self) -> None:
        self._is_dissolved = True
        while (
            len(self._cells) > 1
        ):  # one after another, so that the rows are never all in memory twice
            self._add(_LOOSE, *self._cells.pop().content())

    def _add(self, cell: int, rows: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
        first = self._numbers(cell).count
        if cell == _LOOSE:
            put_in_parts(self._loose, first, vectors)
        else:
            self._cells[cell].put(first, vectors)
        self._numbers(cell).append(rows)
        self._cell_of[rows] = cell
        self._place_of[rows] = np.arange(first, first + len(rows))

    def _leave(self, row: int) -> None:
        """Give up a row's place; the last one there takes it."""
        cell, place = int(self._cell_of[row]), int(self._place_of[row])
        numbers = self._numbers(cell)
        last = numbers.count - 1
        if place != last:
            if cell == _LOOSE:
                self._loose.move(last, place)
            else:
                self._cells[cell].vectors[place] = self._cells[cell].vectors[last]
            moved = numbers.values[last]
            numbers.values[place] = moved
            self._place_of[moved] = place
        numbers.count = last
        self._cell_of[row] = _ABSENT

    def _numbers(self, cell: int) -> "_Numbers":
        return self._loose_rows if cell == _LOOSE else self._cells[cell].rows

    def _make_room(self, rows: int) -> None:
        if rows > len(self._cell_of):
            more = max(rows, 2 * len(self._cell_of)) - len(self._cell_of)
            self._cell_of = np.concatenate([self._cell_of, np.full(more, _ABSENT, np.int32)])
            self._place_of = np.concatenate([self._place_of, np.empty(more, np.int32)])


class _Numbers:
    """Row numbers by place; grows."""

    def __init__(self) -> None:
        self.values = np.empty(64, np.intp)
        self.count = 0

    def append(self, rows: NDArray[np.intp]) -> None:
        end = self.count + len(rows)
        if end > len(self.values):
            self.values = np.concatenate([self.values[: self.count], np.empty(end, np.intp)])
        self.values[self.count : end] = rows
        self.count = end


class _Cell:
    """Rows of one cell, not split."""

    def __init__(self, dimension: int) -> None:
        self.rows = _Numbers()
        self.vectors = np.empty((64, dimension), np.float32)

    @property
    def count(self) -> int:
        return self.rows.count

    def put(self, first: int, vectors: NDArray[np.float32]) -> None:
        end = first + len(vectors)
        if end > len(self.vectors):
            grown = np.empty((end + end // 2, self.vectors.shape[1]), np.float32)
            grown[:first] = self.vectors[:first]
            self.vectors = grown
        self.vectors[first:end] = vectors

    def content(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """(N,) row numbers and (N, D) vectors."""
        return self.rows.values[: self.count], self.vectors[: self.count]

    def hits(self, queries: NDArray[np.float32], asking: NDArray[np.intp], least: float) -> Hits:
        """Pairs (query, row) among the ``asking`` queries."""
        rows, vectors = self.content()
        asked = queries if len(asking) == len(queries) else queries[asking]
        query, place = where(asked @ vectors.T >= least)
        return asking[query], rows[place]


def _angles(products: NDArray[np.float32]) -> NDArray[np.float32]:
    angles: NDArray[np.float32] = np.arccos(np.clip(products, -1.0, 1.0))
    return angles
