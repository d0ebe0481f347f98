"""What the demo shows: a live table on a terminal, plain lines elsewhere, a summary at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pixsift.answers.local import DemoReport
from pixsift.core.outcomes import OUTCOMES
from pixsift.operations.demo.run import Standing
from pixsift.words import in_words
from pixsift_cli.terminal import block, cell, console

_COLORS = {"kept": "green", "duplicate": "cyan", "rejected": "yellow", "gone": "dim",
           "failed": "red"}  # fmt: skip
_SECONDS_BETWEEN_LINES = 3.0


class DemoView:
    """Writes to stderr, so that stdout has only the result."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = console(err=True, quiet=quiet)

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(cell(line), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """The result, on stdout."""
        console().print(what, soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[Callable[[Standing], None]]:
        """Yields a function that shows the demo's progress."""
        if not self._console.is_terminal:
            yield _Lines(self.say).show
            return
        with Live(console=self._console, refresh_per_second=8) as live:
            yield lambda standing: live.update(_table(standing))


class _Lines:
    """A line when something changed, but not too often; the last one always."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last, self._at = say, "", 0.0

    def show(self, standing: Standing) -> None:
        line, now = standing.line(), time.monotonic()
        is_last = standing.uploaded == standing.planned and standing.backlog == 0
        if line != self._last and (is_last or now - self._at >= _SECONDS_BETWEEN_LINES):
            self._last, self._at = line, now
            self._say(line)


def summary(report: DemoReport) -> RenderableType:
    """The table at the end, and where the results are."""
    table = Table(title=f"pixsift demo, {report.seconds:.0f} s", title_justify="left")
    table.add_column("outcome")
    table.add_column("objects", justify="right")
    table.add_column("why")
    for outcome in OUTCOMES:
        reasons = report.outcomes.get(outcome, {})
        if reasons:
            why = "\n".join(f"{n:>3} {in_words(reason)}" for reason, n in reasons.items())
            table.add_row(cell(outcome, _COLORS[outcome]), str(sum(reasons.values())), why)
    table.add_row("ignored", str(report.ignored), "sidecars, excluded by the collection's rules")
    table.add_row("uploaded", str(report.uploaded), "", end_section=True)
    table.add_row("in the snapshot", str(report.snapshot_images), report.snapshot_id)
    verdict = (
        "the ledger matches everything that was uploaded"
        if not report.complaints
        else f"{len(report.complaints)} errors in the ledger"
    )
    places = block([
        f"snapshot       {report.snapshot_location}",
        f"local copy     {report.snapshot_folder}",
        f"contact sheet  {report.contact_sheet}",
        f"check          {verdict}",
    ])  # fmt: skip
    grid = Table.grid()
    grid.add_row(table)
    grid.add_row(places)
    return grid


def _table(standing: Standing) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "uploaded", _bar(standing.uploaded, standing.planned), f"{standing.uploaded}",
    )  # fmt: skip
    table.add_row("decided", _bar(standing.decided, standing.planned), f"{standing.decided}")
    table.add_row("backlog", _bar(standing.backlog, standing.planned), f"{standing.backlog}")
    for outcome in OUTCOMES:
        count = standing.outcomes.get(outcome, 0)
        table.add_row(
            cell(f"  {outcome}", _COLORS[outcome]), _bar(count, standing.planned), str(count)
        )
    return table


def _bar(value: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=value, width=40)
