"""The frame of every page: head, style sheet, title; and tables."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from pixsift.text import escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: nothing runs, nothing is loaded but the pictures inside the page."""


def document(title: str, facts: Sequence[str], *parts: str, pictures_in_files: bool = False) -> str:
    """A whole page.

    title, facts: plain text, the facts one a line below the title. parts: HTML, as the other
    functions of this package return it. pictures_in_files: allow pictures next to the page.
    """
    policy = f"{_POLICY} file: 'self'" if pictures_in_files else _POLICY
    lines = "<br>".join(escape(fact) for fact in facts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title>\n<style>\n{_style()}</style></head><body>\n"
        f"<h1>{escape(title)}</h1><p>{lines}</p>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A part of a page under its own heading; nothing when it has no content.

    title: plain text. parts: HTML.
    """
    content = "".join(parts)
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def side_by_side(sections: Sequence[tuple[str, str]]) -> str:
    """Titles (plain text) with their contents (HTML), next to each other where there is room."""
    return f'<div class="row">{"".join(_part(*each) for each in sections)}</div>'


def paragraph(text: str, *, note: bool = False) -> str:
    """Plain text; note: a warning."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts, the first column on the left, the others on the right."""
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return (
        f"<table><tr>{first}</tr>"
        + "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        + "</table>"
    )


def _part(title: str, content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{content}</section>"


@cache
def _style() -> str:
    return files("pixsift.pages").joinpath("style.css").read_text("utf-8")


def links(to: Sequence[tuple[str, str]]) -> str:
    """Relative URLs with their texts, in one line; "" when there are none."""
    made = " · ".join(f'<a href="{escape(quote(url))}">{escape(text)}</a>' for url, text in to)
    return f"<p>{made}</p>" if made else ""
