"""One HTML page with the outcome of every image: kept next to its duplicates, then the rejected.

Every text on it comes from keys that strangers chose, so every text is escaped. The thumbnails are
files next to the page; nothing is loaded from elsewhere.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from pixsift.adapters.ledger.overview import ObjectOutcome
from pixsift.words import in_words

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #6c6c6c; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p.facts { color: var(--soft); margin-top: .3rem; }
.group { display: flex; gap: .6rem; align-items: flex-start; border-top: 1px solid var(--line);
         padding: .7rem 0; }
.rest { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; width: 104px; } .lead figure { width: 208px; }
img, .none { width: 100%; border-radius: 5px; display: block; }
.none { aspect-ratio: 4/3; background: var(--line); color: var(--soft); display: grid;
        place-items: center; font-size: 11px; }
figcaption { font-size: 11px; overflow-wrap: anywhere; color: var(--soft); }
figcaption b { color: inherit; font-weight: 600; }
"""


def contact_sheet(
    rows: Sequence[ObjectOutcome],
    *,
    title: str,
    facts: Sequence[str],
    thumbnails: Mapping[str, str],
    chosen: frozenset[int] = frozenset(),
) -> str:
    """The page as HTML.

    thumbnails: ``thumbnail_key`` -> path of the file, relative to the page. chosen: objects of the
    snapshot, which are marked.
    """
    duplicates: dict[int, list[ObjectOutcome]] = defaultdict(list)
    for row in rows:
        if row.outcome == "duplicate" and row.representative_object_id is not None:
            duplicates[row.representative_object_id].append(row)
    kept = [row for row in rows if row.outcome == "kept"]
    others = [row for row in rows if row.outcome in ("rejected", "failed", "gone")]
    kept.sort(key=lambda row: -len(duplicates[row.object_id]))
    groups = "".join(_group(row, duplicates[row.object_id], thumbnails, chosen) for row in kept)
    rest = "".join(
        _figure(row, f"{row.outcome}: {in_words(row.reason)}", thumbnails) for row in others
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>"
        f'<p class="facts">{"<br>".join(escape(fact) for fact in facts)}</p>'
        f"<h2>{len(kept)} kept, each next to its duplicates</h2>{groups}"
        f'<h2>{len(others)} rejected, failed or gone</h2><div class="rest">{rest}</div>'
        "</body></html>\n"
    )


def _group(
    row: ObjectOutcome,
    duplicates: Sequence[ObjectOutcome],
    thumbnails: Mapping[str, str],
    chosen: frozenset[int],
) -> str:
    words = "kept, in the snapshot" if row.object_id in chosen else "kept"
    figures = "".join(_figure(other, _why(other), thumbnails) for other in duplicates)
    return (
        f'<div class="group"><div class="lead">{_figure(row, words, thumbnails)}</div>'
        f'<div class="rest">{figures}</div></div>'
    )


def _why(row: ObjectOutcome) -> str:
    words = in_words(row.reason)
    return words if row.distance is None else f"{words}, cosine distance {row.distance:.3f}"


def _figure(row: ObjectOutcome, words: str, thumbnails: Mapping[str, str]) -> str:
    path = thumbnails.get(row.thumbnail_key or "")
    picture = (
        f'<img loading="lazy" src="{escape(quote(path))}" alt="{escape(row.key)}">'
        if path
        else '<span class="none">no thumbnail</span>'
    )
    caption = f"<b>{escape(words)}</b> {escape(row.key)}"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
