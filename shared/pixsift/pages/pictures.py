"""Thumbnails with captions, inside the page or in files next to it."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pixsift.text import escape


@dataclass(frozen=True, slots=True)
class Picture:
    """One thumbnail and its caption, the first line in bold. Captions are plain text."""

    source: str | None
    """A URL: ``data:`` with the picture itself, or a relative path. None: there is no picture."""
    caption: tuple[str, ...]

    @classmethod
    def inline(cls, content: bytes | None, *caption: str) -> "Picture":
        """content: WebP or JPEG, which becomes part of the page."""
        if content is None:
            return cls(None, caption)
        kind = "jpeg" if content.startswith(b"\xff\xd8") else "webp"
        return cls(f"data:image/{kind};base64,{b64encode(content).decode()}", caption)

    @classmethod
    def file(cls, path: str | None, *caption: str) -> "Picture":
        """path: of a file, relative to the page; see ``document(pictures_in_files=True)``."""
        return cls(None if path is None else quote(path), caption)


def figures(pictures: Sequence[Picture], *, small: bool = False) -> str:
    """The pictures as a grid; "" when there are none."""
    if not pictures:
        return ""
    kind = "pictures small" if small else "pictures"
    return f'<div class="{kind}">{"".join(figure(picture) for picture in pictures)}</div>'


def groups(of: Sequence[tuple[Picture, Sequence[Picture]]]) -> str:
    """Each picture large, with those that belong to it next to it."""
    return "".join(
        f'<div class="group"><div class="lead pictures">{figure(lead)}</div>'
        f"{figures(rest, small=True)}</div>"
        for lead, rest in of
    )


def figure(picture: Picture) -> str:
    """One picture."""
    first, *rest = picture.caption or ("",)
    shown = '<span class="none">no thumbnail</span>'
    if picture.source is not None:
        shown = f'<img loading="lazy" alt="" src="{escape(picture.source)}">'
    lines = "<br>".join(escape(line) for line in rest)
    return f"<figure>{shown}<figcaption><b>{escape(first)}</b>{lines}</figcaption></figure>"
