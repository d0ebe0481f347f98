"""Text that a terminal may show: it obeys nothing that came from outside."""

import re

_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls, changes of direction, and bytes of a name that are not UTF-8."""


def printable(text: str) -> str:
    """With escapes for what a terminal would obey; lines stay lines."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
