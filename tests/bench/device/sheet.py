"""The figures of one run: written one by one, shown in one table at the end.

Each figure is a line of JSON, synced as soon as it is known, so that a run that is cut off still
tells what it had. Every figure names the device it was measured on: one of a CPU is never taken
for one of a GPU.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.report import table

Value = float | str | bool | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    phase: str
    name: str
    value: Value
    unit: str
    limit: float | None
    """What the machine allows, or what the figure is held against, in the same unit."""
    limit_name: str
    ratio: float | None
    """value / limit."""
    goal: str
    met: bool | None
    """None where there is no goal."""
    note: str
    device: str
    at_seconds: float


class Sheet:
    """Where a phase writes. Phases are processes: each appends to the same file."""

    def __init__(self, file: Path, phase: str, device: str) -> None:
        self._file = file
        self._phase = phase
        self._device = device

    def add(
        self,
        name: str,
        value: Value,
        unit: str = "",
        *,
        limit: float | None = None,
        limit_name: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
        met: bool | None = None,
        goal: str = "",
        note: str = "",
    ) -> float | None:
        """Write a figure; returns its ratio to the limit.

        at_least, at_most: the goal, for the ratio where there is a limit, else for the value.
        """
        ratio = value / limit if limit and isinstance(value, int | float) else None
        measured = ratio if limit else value
        if isinstance(measured, int | float):
            if at_least is not None:
                goal, met = f">= {at_least:g}", measured >= at_least
            elif at_most is not None:
                goal, met = f"<= {at_most:g}", measured <= at_most
        figure = Figure(self._phase, name, value, unit, limit, limit_name, ratio, goal, met, note,
                        self._device, round(time.time(), 1))  # fmt: skip
        with self._file.open("a") as stream:
            stream.write(json.dumps(asdict(figure)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        say(_told(figure))
        return ratio

    def skip(self, name: str, why: str) -> None:
        """Say that a figure is missing, and why."""
        self.add(name, None, note=f"left out: {why}")

    def known(self, name: str) -> float | None:
        """A number that this run has already: the limits, mostly."""
        for figure in reversed(read(self._file)):
            if figure.name == name and isinstance(figure.value, int | float):
                return float(figure.value)
        return None


def read(file: Path) -> list[Figure]:
    """All figures so far; a line that was cut off is left out."""
    figures = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            figures.append(Figure(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return figures


def failures(figures: list[Figure]) -> list[Figure]:
    """Answers that were wrong and phases that did not end well; a missed speed goal is none."""
    return [f for f in figures if f.met is False and f.goal in ("right", "ends well")]


def summary(figures: list[Figure], conditions: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = [
        [f.phase, f.name, _number(f.value), f.unit, _number(f.limit), f.limit_name,
         _number(f.ratio), f.goal, {True: "met", False: "MISSED", None: ""}[f.met], f.note]
        for f in figures
    ]  # fmt: skip
    head = ["phase", "figure", "value", "unit", "limit", "what the limit is", "ratio", "goal", "",
            "note"]  # fmt: skip
    devices = sorted({f.device for f in figures})
    told = "\n".join(f"- {name}: {value}" for name, value in conditions.items())
    where = ", ".join(devices) or "nothing"
    return f"# device\n\nMeasured on: {where}\n\n{told}\n\n{table(head, rows)}\n"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _told(figure: Figure) -> str:
    parts = [f"[{figure.phase}] {figure.name}: {_number(figure.value)} {figure.unit}".rstrip()]
    if figure.ratio is not None:
        parts.append(f"{figure.ratio:.3g}x of {_number(figure.limit)} ({figure.limit_name})")
    if figure.met is not None:
        parts.append(f"goal {figure.goal}: {'met' if figure.met else 'MISSED'}")
    if figure.note:
        parts.append(figure.note)
    return "; ".join(parts)


def _number(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
