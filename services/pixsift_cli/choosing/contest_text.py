"""``pixsift select --compare`` as tables for a terminal."""

from collections.abc import Callable

from rich.console import RenderableType
from rich.table import Table

from pixsift.core.choosing.contest import Contest, Size, Skill
from pixsift.pages.comparison import odd_images, strategy_name
from pixsift_cli.terminal import cell, drawn


def contest_text(found: Contest) -> list[str]:
    """A table per measure: a row per strategy, a column per size."""
    shown: list[RenderableType] = [
        cell(f"{found.compared_on} of {found.candidates} images, {found.odd} of them odd")
    ]
    columns: list[tuple[str, Callable[[Size], str]]] = [
        ("mean / largest cosine distance to the nearest chosen",
         lambda s: f"{s.mean_distance:.4f} / {s.largest_distance:.4f}"),
        ("odd images chosen", odd_images),
    ]  # fmt: skip
    if found.label:
        columns += [
            ("linear probe: accuracy % (above random)", lambda s: _skill(s.probe)),
            ("nearest neighbor: accuracy % (above random)", lambda s: _skill(s.neighbor)),
        ]
    for title, value in columns:
        table = Table("strategy", *(f"k = {k}" for k in found.ks), title=title)
        for entry in found.entries:
            table.add_row(cell(strategy_name(entry)), *(value(size) for size in entry.sizes))
        shown.append(table)
    return drawn(shown, width=110)


def _skill(skill: Skill | None) -> str:
    if skill is None:
        return ""
    return f"{100 * skill.accuracy:.1f} ({100 * skill.above_random:+.1f})"
