"""The outcome of every image on one page: kept next to its duplicates, then the rejected.

The thumbnails are files next to the page.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pixsift.core.outcomes import ObjectOutcome
from pixsift.pages.document import document, section
from pixsift.pages.pictures import Picture, figures, groups
from pixsift.words import in_words


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

    def picture(row: ObjectOutcome, words: str) -> Picture:
        return Picture.file(thumbnails.get(row.thumbnail_key or ""), words, row.key)

    duplicates: dict[int, list[ObjectOutcome]] = defaultdict(list)
    for row in rows:
        if row.outcome == "duplicate" and row.representative_object_id is not None:
            duplicates[row.representative_object_id].append(row)
    kept = [row for row in rows if row.outcome == "kept"]
    kept.sort(key=lambda row: -len(duplicates[row.object_id]))
    others = [row for row in rows if row.outcome in ("rejected", "failed", "gone")]
    shown = [
        (
            picture(row, "kept, in the snapshot" if row.object_id in chosen else "kept"),
            [picture(other, _why(other)) for other in duplicates[row.object_id]],
        )
        for row in kept
    ]
    rest = [picture(row, f"{row.outcome}: {in_words(row.reason)}") for row in others]
    return document(
        title, facts,
        section(f"{len(kept)} kept, each next to its duplicates", groups(shown)),
        section(f"{len(others)} rejected, failed or gone", figures(rest, small=True)),
        pictures_in_files=True,
    )  # fmt: skip


def _why(row: ObjectOutcome) -> str:
    words = in_words(row.reason)
    return words if row.distance is None else f"{words}, cosine distance {row.distance:.3f}"
