"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixsift_cli.terminal import console, say

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that adds a number of ``total`` to the progress."""
    there = console(err=True)
    if there.is_terminal:
        with Progress(
            TextColumn(title, markup=False), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=there,
        ) as bar:  # fmt: skip
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Lines(title, total).advance


class _Lines:
    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._done == self._total or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{self._title}: {self._done} of {self._total}", err=True)
