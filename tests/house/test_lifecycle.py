"""The drawn lives of an object and of a snapshot are those of the code."""

import re
from pathlib import Path
from typing import get_args

from pixsift.core.outcomes import Finding, Outcome, replaces
from pixsift.sql import statements

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md").read_text("utf-8")
OBJECT, SNAPSHOT = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
Edge = tuple[str | None, str | None]

OUTCOMES_OF: dict[Finding, tuple[Outcome, ...]] = {
    "embedded": ("kept", "duplicate"),
    "rejected": ("rejected",),
    "failed": ("failed",),
    "gone": ("gone",),
}
"""What a finding can become."""


def drawn(picture: str, label: str = "") -> set[Edge]:
    lines = re.findall(r"^\s+(\S+) --> (\S+)(?: : (.*))?$", picture, re.MULTILINE)
    return {
        (None if a == "[*]" else a, None if b == "[*]" else b)
        for a, b, said in lines
        if said == label
    }


def test_object__arrivals_are_those_that_the_code_lets_through() -> None:
    assert set(OUTCOMES_OF) == set(get_args(Finding))
    before: tuple[Outcome | None, ...] = (None, *get_args(Outcome))
    found = {
        (outcome, after)
        for outcome in before
        for finding, afterwards in OUTCOMES_OF.items()
        if replaces(finding, "deleted", outcome, "deleted" if outcome == "gone" else "new")
        for after in afterwards
    }
    assert drawn(OBJECT, "arrival") == found


def test_object__an_erasure_goes_further_than_being_gone() -> None:
    assert replaces("gone", "erased", "gone", "deleted")
    assert not replaces("gone", "erased", "gone", "erased")
    assert drawn(OBJECT, "erasure") == {("gone", "gone")}


def test_object__what_can_be_taken_back() -> None:
    source = Path(__file__).resolve().parents[2] / "shared/pixsift/adapters/ledger/rejudge.py"
    written = re.search(r'row\[1\] in \(("[^)]*")\)', source.read_text("utf-8"))
    assert written is not None
    found = {(outcome, None) for outcome in re.findall(r'"(\w+)"', written[1])}
    assert drawn(OBJECT, "taken back") == found


def test_snapshot__states_are_those_that_the_sql_moves_between() -> None:
    found: set[Edge] = set()
    for statement in statements("snapshots").values():
        text = re.sub(r"--.*", "", statement)
        if "INSERT INTO snapshot " in text or "INSERT INTO snapshot(" in text:
            found |= {(None, state) for state in re.findall(r"'(resolved)'", text)}
        moved = re.search(r"UPDATE snapshot\b(.*?)\bWHERE\b(.*)", text, re.DOTALL)
        after = moved and re.search(r"\bstate = '(\w+)'", moved[1])
        if not moved or not after:
            continue
        condition = re.search(r"\bstate (?:IN \(([^)]*)\)|= ('\w+'))", moved[2])
        assert condition is not None, text
        before = re.findall(r"'(\w+)'", condition[1] or condition[2])
        found |= {(state, after[1]) for state in before}
    assert drawn(SNAPSHOT) == found
