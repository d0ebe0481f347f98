"""Makes text from outside harmless: a name that a robot chose must not control a terminal, a log
line or a prompt.

Keys, attributes, requests, messages of decoders and of servers may hold escape sequences, line
feeds and marks that change the reading direction. All code that shows them uses ``printable``.
"""

import html
import re

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
"""Controls (line feeds and tabs among them), separators of lines, marks of direction, characters
without width, and bytes of a name that are not UTF-8."""


def printable(text: str) -> str:
    """As one line: escapes (``\\x1b``, ``\\n``, ``\\u202e``) for what a terminal would obey."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Like ``printable``, for text whose line feeds are ours: those of a table or a report."""
    return "\n".join(map(printable, text.split("\n")))


def escape(text: str) -> str:
    """For HTML and SVG, in elements and in quoted attributes; printable as well."""
    return html.escape(printable(text))
