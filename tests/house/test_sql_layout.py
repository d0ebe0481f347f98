"""The named statements have one layout (``shared/pixsift/sql/__init__.py`` states it)."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SQL = Path(__file__).resolve().parents[2] / "shared/pixsift/sql"
CLAUSE = re.compile(
    r"(FROM|((LEFT|CROSS|FULL) )?JOIN|WHERE|GROUP BY|ORDER BY|HAVING|LIMIT|RETURNING|VALUES|SET"
    r"|ON CONFLICT)\b"
)
LONGEST = 100


@pytest.mark.parametrize("file", sorted(SQL.glob("*.sql")), ids=lambda file: file.name)
def test_statements__have_the_one_layout(file: Path) -> None:
    assert not list(faults(file.read_text("utf-8")))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("SELECT a\n  FROM b", "line 2: FROM belongs in column 0"),
        ("SELECT a FROM b\n WHERE c IN (SELECT d\n              FROM e)", "line 2: WHERE"),
        ("SELECT a FROM b\nWHERE c IN (SELECT d\n    FROM e)", "line 3: FROM belongs in column 12"),
        ("SELECT a\nFROM b;", "line 2: a semicolon"),
        ("SELECT a\nFROM b\nWHERE c = ';'", ""),
        ("SELECT extract(epoch FROM a)\nFROM b\nWHERE (c\n       OR d)", ""),
        ("-- " + "x" * LONGEST, "line 1: longer than 100"),
    ],
)
def test_faults__finds_another_layout(text: str, fault: str) -> None:
    found = list(faults(f"-- name: x\n{text}", first_line=0))
    assert found[0].startswith(fault) if fault else not found


def faults(text: str, first_line: int = 1) -> Iterator[str]:
    """What is laid out otherwise, with its line."""
    depth, starts = 0, [(0, 0)]  # parentheses open; (that depth, column) of each statement inside
    for number, line in enumerate(text.splitlines(), first_line):
        if len(line) > LONGEST:
            yield f"line {number}: longer than {LONGEST}"
        if line.startswith("-- name:"):
            depth, starts = 0, [(0, 0)]
        code = re.sub(r"'[^']*'", lambda m: "x" * len(m.group()), line.partition("--")[0]).rstrip()
        if code.endswith(";"):
            yield f"line {number}: a semicolon"
        column = len(code) - len(code.lstrip())
        clause = CLAUSE.match(code.lstrip())
        if clause and starts[-1][0] == depth and column != starts[-1][1]:
            yield f"line {number}: {clause[0]} belongs in column {starts[-1][1]}"
        for place, character in enumerate(code):
            if character == "(":
                depth += 1
            elif character == ")":
                depth -= 1
                starts = [start for start in starts if start[0] <= depth] or [(0, 0)]
            elif re.match(r"(SELECT|UPDATE|INSERT|DELETE)\b", code[place:]) and (
                depth > starts[-1][0]
            ):
                starts.append((depth, place))
