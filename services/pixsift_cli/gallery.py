"""One HTML page of thumbnails with captions, everything inside the one file.

It has no script, loads nothing, and escapes every text: keys are chosen by strangers.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pixsift_cli.common import write_text

STYLE = """
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:.8rem}
figure{margin:0}figure img,figure .none{width:100%;aspect-ratio:4/3;object-fit:contain;
border-radius:5px;background:#8882;display:grid;place-items:center;font-size:12px}
figcaption{font-size:12px;overflow-wrap:anywhere}figcaption b{display:block}
"""
_PAGE_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;
margin:2rem auto;padding:0 1rem}h1{font-size:1.4rem;margin:0}
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One thumbnail (WebP; None: there is none) and its caption, the first line in bold."""

    webp: bytes | None
    caption: tuple[str, ...]


def write_gallery(
    path: Path, title: str, facts: Sequence[str], pictures: Sequence[Picture]
) -> None:
    """Write the page. Raises RequestError when ``path`` cannot be written."""
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{'<br>'.join(escape(fact) for fact in facts)}</p>"
        f"{figures(pictures)}</body></html>\n",
    )


def figures(pictures: Sequence[Picture]) -> str:
    """The pictures as a grid, to be put into a page that has ``STYLE``."""
    return f'<div class="pictures">{"".join(_figure(picture) for picture in pictures)}</div>'


def _figure(picture: Picture) -> str:
    first, *rest = picture.caption
    shown = '<span class="none">no thumbnail</span>'
    if picture.webp is not None:
        data = b64encode(picture.webp).decode()
        shown = f'<img loading="lazy" alt="" src="data:image/webp;base64,{data}">'
    lines = "<br>".join(escape(line) for line in rest)
    return f"<figure>{shown}<figcaption><b>{escape(first)}</b>{lines}</figcaption></figure>"
