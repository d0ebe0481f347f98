"""A page of thumbnails with captions."""

from collections.abc import Sequence

from pixsift.pages.document import document
from pixsift.pages.pictures import Picture, figures


def gallery(title: str, facts: Sequence[str], pictures: Sequence[Picture]) -> str:
    """The page. facts: lines below the title."""
    return document(title, facts, figures(pictures))
