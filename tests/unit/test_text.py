"""Nothing from outside is obeyed: one line, no escape sequence, no markup."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.errors import Remedy, RequestError
from pixsift.remedies import one_line
from pixsift.text import escape, printable, printable_lines

HOSTILE = (
    "zz/[/red]\x1b]0;title\x07\x1b[2J\r\n\x9b31m\u202egpj.\u2028<img src=x onerror=a()>'\"&.jpg"
)


@given(st.text(alphabet=st.characters(), max_size=50))
def test_printable__one_line_without_controls(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("räume/写真 1.jpg", "räume/写真 1.jpg"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u200bb", r"a\u200bb"),
        ("\udcff", r"\udcff"),
    ],
)
def test_printable__escapes_only_what_is_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_lines__keeps_line_feeds_alone() -> None:
    assert printable_lines("a\nb\x1b\r") == "a\nb\\x1b\\r"


def test_escape__neither_tag_nor_attribute_nor_control() -> None:
    page = escape(HOSTILE)
    assert not set("<>\"'\x1b\x07\x9b\r\n\u2028\u202e") & set(page)


def test_one_line__of_an_error_that_quotes_a_name() -> None:
    assert "\n" not in one_line(RequestError(HOSTILE, remedy=Remedy("audit")))
