"""Columns of a pool, gathered row by row in little memory: twelve bytes a cell, no dictionaries."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.pool import Column


@dataclass(slots=True)
class _Numbers:
    places: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("f"))


@dataclass(slots=True)
class _Words:
    places: "array[int]" = field(default_factory=lambda: array("q"))
    codes: "array[int]" = field(default_factory=lambda: array("i"))
    known: dict[str, int] = field(default_factory=dict)


class MetricColumns:
    """Numbers by name; a value that is not finite was not measured."""

    def __init__(self) -> None:
        self._cells: dict[str, _Numbers] = {}

    def add(self, place: int, metrics: Mapping[str, Any]) -> None:
        """Metrics of one image."""
        for name, value in metrics.items():
            if isinstance(value, int | float):
                cells = self._cells.setdefault(name, _Numbers())
                cells.places.append(place)
                cells.values.append(value)

    def finish(self, count: int) -> dict[str, NDArray[np.float32]]:
        """(N,) per metric, NaN where there is none."""
        found = {}
        for name, cells in self._cells.items():
            found[name] = np.full(count, np.nan, np.float32)
            found[name][np.asarray(cells.places)] = np.asarray(cells.values)
        return found


class FlagColumns:
    """Flags of quality checks by name."""

    def __init__(self) -> None:
        self._places: dict[str, array[int]] = {}

    def add(self, place: int, flags: Sequence[str]) -> None:
        """Flags of one image."""
        for name in flags:
            self._places.setdefault(name, array("q")).append(place)

    def finish(self, count: int) -> dict[str, NDArray[np.bool_]]:
        """(N,) per flag."""
        found = {name: np.zeros(count, bool) for name in self._places}
        for name, places in self._places.items():
            found[name][np.asarray(places)] = True
        return found


class AttributeColumns:
    """Texts by name; a later value of the same image replaces an earlier one."""

    def __init__(self) -> None:
        self._cells: dict[str, _Words] = {}

    def add(self, place: int, attributes: Mapping[str, Any]) -> None:
        """Attributes of one image; None takes one away."""
        for name, value in attributes.items():
            cells = self._cells.setdefault(name, _Words())
            code = -1 if value is None else cells.known.setdefault(str(value), len(cells.known))
            cells.places.append(place)
            cells.codes.append(code)

    def finish(self, count: int) -> dict[str, Column]:
        """One column per attribute, values in order; no column where every value was taken away."""
        columns = {name: _column(cells, count) for name, cells in self._cells.items()}
        return {name: column for name, column in columns.items() if (column.codes >= 0).any()}


def _column(cells: _Words, count: int) -> Column:
    raw = np.full(count, -1, np.int32)
    # Assignment by index keeps the last of equal places: numpy's documented behavior.
    raw[np.asarray(cells.places)] = np.asarray(cells.codes)
    values = sorted(cells.known)
    ranks = np.empty(len(values) + 1, np.int32)
    ranks[[cells.known[value] for value in values]] = np.arange(len(values))
    ranks[-1] = -1  # where the code is -1
    return Column(ranks[raw], tuple(values))
