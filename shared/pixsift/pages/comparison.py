"""``pixsift select --compare`` as one page: a comparison of strategies on the user's own images."""

from collections.abc import Callable, Mapping

from pixsift.core.choosing.contest import Contest, Entry, Size, Skill
from pixsift.pages.charts import line_chart
from pixsift.pages.document import document, paragraph, section, side_by_side, table
from pixsift.pages.pictures import Picture, figures

_IMAGES = "images chosen"
_MOST_PICKS = 12
_MOST_LEFT_OUT = 24
_COVERAGE = (
    "Cosine distance of every image to the nearest chosen one: 0 is the same picture, lower is "
    "better. The mean tells how well the usual image is represented, the largest whether something "
    "rare was left out."
)


def comparison_page(
    title: str,
    subtitle: str,
    found: Contest,
    pictures: Mapping[int, tuple[str, bytes | None]],
) -> str:
    """The page. pictures: row of the pool -> its name and a WebP or JPEG thumbnail, if any."""
    return document(
        title, [subtitle],
        _warning(found),
        _skills(found),
        section("Coverage", paragraph(_COVERAGE), side_by_side([
            ("Mean distance to the nearest chosen image", _curves(found, "mean_distance")),
            ("Largest distance to the nearest chosen image", _curves(found, "largest_distance")),
        ])),
        section("Attributes covered", _attributes(found)),
        section(
            "Odd and flagged images among the chosen",
            paragraph(
                f"Odd: much farther from its neighbors than most images; {found.odd} of "
                f"{found.compared_on} are. They may be rare scenes or junk: look at the pictures."
            ),
            _table(found, odd_images),
        ),
        section("First picks", side_by_side([
            (strategy_name(entry), _shots(entry, pictures)) for entry in found.entries
        ])),
        _left_out(found, pictures),
    )  # fmt: skip


def odd_images(size: Size) -> str:
    """How many of the chosen are odd, and how many flagged."""
    flagged = "" if size.flagged is None else f", {size.flagged} flagged"
    return f"{size.odd} odd{flagged}"


def strategy_name(entry: Entry) -> str:
    """With what ``auto`` came to."""
    return f"auto ({entry.resolved})" if entry.strategy == "auto" else entry.strategy


def _warning(found: Contest) -> str:
    worst = [
        entry.strategy for entry in found.entries
        if any(s.odd > 0.1 * s.k and s.odd / s.k > 2 * found.odd / found.compared_on
               for s in entry.sizes)
    ]  # fmt: skip
    if not worst:
        return ""
    return paragraph(
        f"More than a tenth of what {', '.join(worst)} chose is odd, more than twice the share of "
        "the pool: look at these pictures before you train on them.",
        note=True,
    )


def _skills(found: Contest) -> str:
    if not found.label:
        return paragraph(
            "No labels were named, so nothing was trained. With an attribute as the label, the "
            "page also shows a linear probe and the nearest neighbor."
        )
    held = f"images of one {found.group} together" if found.group else "single images"
    return section(
        "What a model learns from each",
        paragraph(
            f"Trained on the chosen embeddings, tested on {found.tested} images that could not be "
            f"chosen ({held}, five folds, each held out once). Label: {found.label}. Whiskers and "
            "brackets: 95 % interval of the difference from random."
        ),
        side_by_side([
            ("Linear probe", _skill_chart(found, "probe")),
            ("Nearest neighbor", _skill_chart(found, "neighbor")),
        ]),
        paragraph("Linear probe: accuracy in %, and percentage points above random"),
        _table(found, lambda size: _skill(size.probe)),
        paragraph("Nearest neighbor: accuracy in %, and percentage points above random"),
        _table(found, lambda size: _skill(size.neighbor)),
    )  # fmt: skip


def _skill(skill: Skill | None) -> str:
    if skill is None:
        return ""
    if not skill.low and not skill.high:  # random itself
        return f"{100 * skill.accuracy:.1f}"
    return (
        f"{100 * skill.accuracy:.1f} ({100 * skill.above_random:+.1f}, "
        f"{100 * skill.low:+.1f} to {100 * skill.high:+.1f})"
    )


def _skill_chart(found: Contest, name: str) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for entry in found.entries:
        skills = [(size.k, getattr(size, name)) for size in entry.sizes]
        lines[entry.strategy] = [(k, 100 * skill.accuracy) for k, skill in skills]
        bands[entry.strategy] = [
            (k, 100 * (skill.accuracy - skill.above_random + skill.low),
             100 * (skill.accuracy - skill.above_random + skill.high))
            for k, skill in skills if entry.strategy != "random"
        ]  # fmt: skip
    return line_chart(lines, bands=bands, x_title=_IMAGES, y_title="accuracy, %", zero=False)


def _curves(found: Contest, name: str) -> str:
    lines: dict[str, list[tuple[float, float]]] = {
        entry.strategy: [(float(size.k), float(getattr(size, name))) for size in entry.sizes]
        for entry in found.entries
    }
    return line_chart(lines, x_title=_IMAGES, y_title="cosine distance")


def _attributes(found: Contest) -> str:
    names = list(dict.fromkeys(n for e in found.entries for s in e.sizes for n in s.attributes))
    charts = []
    for name in names:
        lines: dict[str, list[tuple[float, float]]] = {
            entry.strategy: [(float(s.k), 100 * s.attributes.get(name, 0.0)) for s in entry.sizes]
            for entry in found.entries
        }
        chart = line_chart(lines, x_title=_IMAGES, y_title="values covered, %")
        charts.append((f"Values of {name}", chart))
    return side_by_side(charts) if charts else ""


def _table(found: Contest, cell: Callable[[Size], str]) -> str:
    return table(
        ["strategy", *(f"{k} images" for k in found.ks)],
        [[strategy_name(entry), *map(cell, entry.sizes)] for entry in found.entries],
    )


def _shots(entry: Entry, pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    shown = [int(row) for row in entry.first if int(row) in pictures]
    return _gallery(shown[:_MOST_PICKS], pictures)


def _left_out(found: Contest, pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    longest = max(found.entries, key=lambda entry: entry.left_out.size, default=None)
    if longest is None or not longest.left_out.size:
        return ""
    shown = [int(row) for row in longest.left_out if int(row) in pictures]
    return section(
        "Left out as odd",
        paragraph(
            f"{longest.left_out.size} images, the farthest from their neighbors first, by "
            f"{longest.strategy}; trim_outliers 0 keeps them."
        ),
        _gallery(shown[:_MOST_LEFT_OUT], pictures),
    )


def _gallery(rows: list[int], pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    return figures([Picture.inline(pictures[r][1], pictures[r][0]) for r in rows], small=True)
