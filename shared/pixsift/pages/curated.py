"""What became of a folder of pictures: a first page, and pages of every picture by what it is.

Pictures lie in files next to the pages and are loaded when they come into view, so a folder of a
hundred thousand stays usable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixsift.pages.document import document, links, paragraph, section, table
from pixsift.pages.pictures import Picture, figures, groups

Group = tuple[Picture, Sequence[Picture]]
"""A kept picture, and those that repeat it."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One kind of pictures: its first few, and where all of them are."""

    title: str
    caption: str
    """One sentence on what these are."""
    pictures: Sequence[Picture] = ()
    groups: Sequence[Group] = ()
    pages: Sequence[tuple[str, str]] = ()
    """Relative URLs and texts of the pages with all of them."""


@dataclass(frozen=True, slots=True)
class CuratedFolder:
    """What the first page says."""

    title: str
    facts: Sequence[str]
    outcomes: Sequence[tuple[str, str, str]]
    """Outcome, reason, how many."""
    flags: Mapping[str, int] = field(default_factory=dict)
    chapters: Sequence[Chapter] = ()
    next_steps: Sequence[str] = ()


def curated_page(of: CuratedFolder) -> str:
    """The first page."""
    flags = [[name.replace("_", " "), f"{count:,}"] for name, count in of.flags.items()]
    return document(
        of.title, of.facts,
        table(["outcome", "images"], [[f"{what}: {why}", n] for what, why, n in of.outcomes]),
        section("Flags", paragraph("Kept or not, these are worth a look."),
                table(["flag", "images"], flags)) if flags else "",
        *(_chapter(chapter) for chapter in of.chapters),
        section("What next", *(paragraph(step) for step in of.next_steps)),
        pictures_in_files=True,
    )  # fmt: skip


def part_page(
    title: str,
    facts: Sequence[str],
    *,
    pictures: Sequence[Picture] = (),
    grouped: Sequence[Group] = (),
    around: Sequence[tuple[str, str]] = (),
) -> str:
    """One page of a chapter. around: links to the first page and to the pages next to this one."""
    return document(
        title, facts, links(around), figures(pictures), groups(grouped), links(around),
        pictures_in_files=True,
    )  # fmt: skip


def _chapter(of: Chapter) -> str:
    if not of.pictures and not of.groups:
        return ""
    return section(
        of.title, paragraph(of.caption), figures(of.pictures), groups(of.groups), links(of.pages)
    )
