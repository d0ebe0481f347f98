"""The only module that writes to the terminal: nothing from outside is obeyed there.

Keys, attributes and messages are chosen by strangers. Lines and prompts go through ``printable``;
what rich draws goes through a console that reads no markup and escapes what is left. A house test
finds code that prints past this module.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from pixsift.text import printable, printable_lines

_NO_LIMIT = 10_000


def say(lines: str | Iterable[str], *, err: bool = False) -> None:
    """Print lines; a line feed inside one of them is shown as an escape. A str is one line."""
    printed = [printable(line) for line in ([lines] if isinstance(lines, str) else lines)]
    if printed:
        typer.echo("\n".join(printed), err=err)


def confirm(question: str, *, abort: bool = False) -> bool:
    """Ask on standard error; with ``abort``, raise typer.Abort unless the answer is yes."""
    return typer.confirm(printable(question), abort=abort, err=True)


def cell(text: str, style: str = "") -> Text:
    """One line for rich: neither markup nor a line feed of it is obeyed."""
    return Text(printable(text), style)


def block(lines: Iterable[str]) -> Text:
    """Several lines for rich."""
    return Text("\n".join(map(printable, lines)))


def console(*, err: bool = False, quiet: bool = False) -> Console:
    """Standard output or error; if it is not a terminal, so wide that no name is cut."""
    stream = sys.stderr if err else sys.stdout
    return _DeafConsole(
        stderr=err, quiet=quiet, width=None if stream.isatty() else _NO_LIMIT,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip


def drawn(what: Iterable[RenderableType], *, width: int) -> list[str]:
    """Lines of text, as a terminal of that width would show them."""
    paper = _DeafConsole(width=width, markup=False, emoji=False, highlight=False, color_system=None)
    with paper.capture() as capture:
        for each in what:
            paper.print(each)
    return capture.get().rstrip().split("\n")


@contextmanager
def status_line(title: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that changes, where that is a terminal."""
    there = console(err=True)
    with Status(cell(title), console=there) as line:
        yield lambda text: line.update(cell(text)) if there.is_terminal else None


class _DeafConsole(Console):
    """Escapes controls in whatever is drawn; rich itself strips only some of them."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)
