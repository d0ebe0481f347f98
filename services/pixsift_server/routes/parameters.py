"""Parameters that many endpoints share, with their limits."""

from typing import Annotated

from fastapi import Path, Query

from pixsift.api import MOST_PER_PAGE
from pixsift.errors import RequestError

_BIGINT = 1 << 63

Collection = Annotated[
    str, Path(max_length=63, description="Name of a collection.", examples=["default"])
]
ObjectId = Annotated[
    int, Path(ge=0, lt=_BIGINT, description="Id of an image, as lists give it.", examples=[42])
]
Cursor = Annotated[
    str | None,
    Query(max_length=2048, description="`next_cursor` of the page before; same query otherwise."),
]
Limit = Annotated[int, Query(ge=1, le=MOST_PER_PAGE, description="Entries per page.")]
Before = Annotated[int | None, Query(ge=0, lt=_BIGINT, description="Only entries before this one.")]
Prefix = Annotated[str | None, Query(max_length=1024, description="Only keys with this prefix.")]
AttributeConditions = Annotated[
    list[str] | None,
    Query(
        alias="attribute", max_length=100, examples=[["robot=r2"]],
        description="`name=value`; repeated, values of one name are alternatives and names are "
        "joined by AND.",
    ),
]  # fmt: skip


def conditions(given: list[str] | None) -> dict[str, list[str]]:
    """``["robot=r2", "robot=r7"]`` by name. Raises RequestError for one without a value."""
    found: dict[str, list[str]] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RequestError(f"attribute={text!r}: write name=value")
        found.setdefault(name, []).append(value)
    return found
