"""Two models on one page: what the new one would decide otherwise, with the pictures."""

from collections.abc import Mapping, Sequence

from pixsift.answers.decisions import ModelComparison, ModelDisagreement, ModelSide
from pixsift.pages.document import document, paragraph, section, table
from pixsift.pages.pictures import Picture, figure
from pixsift.words import in_words

_DUPLICATES = (
    "Today both pictures are kept. With the other model the left one would be a duplicate of the "
    "right one: is what it shows really there twice?"
)
_KEPT = (
    "Today the left picture is a duplicate of the right one. With the other model both would be "
    "kept: does the left one show something that the right one does not?"
)


def models_page(found: ModelComparison, pictures: Mapping[int, bytes | None]) -> str:
    """The page. pictures: WebP or JPEG thumbnails by object id."""
    objects = found.agreeing + found.newly_duplicate + found.newly_kept + found.otherwise
    return document(
        f"{found.other.model} next to {found.now.model}",
        [f"collection {found.collection}, {objects} images, at seq {found.at_seq}",
         "nothing was changed: the collection is decided by the model in use"],
        section("The two models", _sides(found), _warnings(found)),
        section("What they decide", _counts(found, objects)),
        _pairs(f"Kept today, duplicates with {found.other.model}", found.newly_duplicate,
               _DUPLICATES, found.would_be_duplicates, pictures),
        _pairs(f"Duplicates today, kept with {found.other.model}", found.newly_kept, _KEPT,
               found.would_be_kept, pictures),
    )  # fmt: skip


def _sides(found: ModelComparison) -> str:
    def row(title: str, of: ModelSide) -> list[str]:
        rule = of.preset or "a rule of its own"
        calibrated = "yes" if of.calibrated else "no"
        return [title, of.model, of.recipe_id, str(of.dimension), f"{of.epsilon:g}", rule,
                calibrated, str(of.kept), str(of.duplicate)]  # fmt: skip

    return table(
        ["", "model", "recipe", "dimensions", "epsilon", "rule", "calibrated", "kept",
         "duplicates"],
        [row("in use", found.now), row("next to it", found.other)],
    )  # fmt: skip


def _warnings(found: ModelComparison) -> str:
    if found.other.calibrated:
        return ""
    return paragraph(
        f"The rule was not calibrated with {found.other.model}: distances of different models do "
        "not compare, and the counts below may say more about epsilon than about the model: "
        "calibrate it first.",
        note=True,
    )


def _counts(found: ModelComparison, objects: int) -> str:
    def share(count: int) -> list[str]:
        return [str(count), f"{count / objects:.1%}" if objects else ""]

    return table(
        ["", "images", "share"],
        [
            ["the same outcome", *share(found.agreeing)],
            ["of these: duplicates of another image", *share(found.other_representative)],
            ["kept today, duplicates with the other", *share(found.newly_duplicate)],
            ["duplicates today, kept with the other", *share(found.newly_kept)],
            ["otherwise", *share(found.otherwise)],
        ],
    )


def _pairs(
    title: str, count: int, question: str, rows: Sequence[ModelDisagreement],
    pictures: Mapping[int, bytes | None],
) -> str:  # fmt: skip
    if not rows:
        return ""
    shown = "" if count == len(rows) else f" {len(rows)} of them, evenly by distance."
    body = "".join(_pair(row, pictures) for row in rows)
    return section(f"{title}: {count}", paragraph(question + shown), body)


def _pair(row: ModelDisagreement, pictures: Mapping[int, bytes | None]) -> str:
    distance = "" if row.distance is None else f"distance {row.distance:.4f}"
    facts = [in_words(row.reason), distance]
    left = Picture.inline(pictures.get(row.object_id), row.uri, *filter(None, facts))
    shown = figure(left)
    if row.representative is not None and row.representative_id is not None:
        shown += figure(Picture.inline(pictures.get(row.representative_id), row.representative))
    return f'<div class="pair pictures">{shown}</div>'
