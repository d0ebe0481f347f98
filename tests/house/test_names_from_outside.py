"""What came from outside is shown through one door: each way around it is found here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THE_DOOR = {
    "services/pixsift_cli/terminal.py",
    "shared/pixsift/text.py",
    "services/pixsift_server/console/build.py",  # runs before the package is there
}
WAYS_AROUND = {
    "print": "terminal.say",
    "typer.echo": "terminal.say",
    "typer.secho": "terminal.say",
    "typer.confirm": "terminal.confirm",
    "typer.prompt": "terminal.confirm",
    "input": "terminal.confirm",
    "Console": "terminal.console",
    "rich.print": "terminal.console",
    "Text": "terminal.cell",
    "Text.from_markup": "terminal.cell",
    "Status": "terminal.status_line",
    "html.escape": "pixsift.text.escape",
    "saxutils.escape": "pixsift.text.escape",
}
"""Calls that show text, and what shows it safely."""


def sources() -> Iterator[Path]:
    for folder in ("shared", "services"):
        yield from (ROOT / folder).rglob("*.py")


def test_text_is_shown_through_one_door() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {way}"
        for path in sources()
        if path.relative_to(ROOT).as_posix() not in THE_DOOR
        for way in ways_around(path.read_text("utf-8"))
    ]
    assert not found, found


def ways_around(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "html":
            yield f"line {node.lineno}: use pixsift.text.escape"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in WAYS_AROUND:
            yield f"line {node.lineno}: {name}: use {WAYS_AROUND[name]}"
        if name == "TextColumn" and "markup=False" not in ast.unparse(node):
            yield f"line {node.lineno}: TextColumn reads markup: add markup=False"
        if name in ("sys.stderr.write", "sys.stdout.write", "sys.exit") and not _is_safe(node):
            yield f"line {node.lineno}: {name} of something else than printable() or one_line()"


def dotted(function: ast.expr) -> str:
    """``typer.echo``; "" for anything but a plain name."""
    if isinstance(function, ast.Attribute):
        owner = dotted(function.value)
        return f"{owner}.{function.attr}" if owner else ""
    return function.id if isinstance(function, ast.Name) else ""


def _is_safe(call: ast.Call) -> bool:
    """Whether every value within the text is a number's name or went through the door."""
    return all(
        isinstance(part.value, ast.Call)
        and dotted(part.value.func) in ("printable", "one_line", "int")
        for given in call.args
        for part in ast.walk(given)
        if isinstance(part, ast.FormattedValue)
    )


@pytest.mark.parametrize(
    "code",
    [
        "print(key)",
        "typer.echo(key)",
        "Console(stderr=True).print(key)",
        "table.add_row(Text(key))",
        "from html import escape",
        "html.escape(key)",
        "sys.stderr.write(f'cannot read {key}')",
        "TextColumn(title)",
    ],
)
def test_ways_around__are_noticed(code: str) -> None:
    assert list(ways_around(code))


@pytest.mark.parametrize(
    "code",
    ["say(key)", "sys.exit(2)", "sys.stderr.write(f'{printable(key)}')", "console().print(table)"],
)
def test_ways_around__the_door_is_none(code: str) -> None:
    assert not list(ways_around(code))
