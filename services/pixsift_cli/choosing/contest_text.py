"""``pixsift select --compare`` as tables for a terminal."""

import io
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from pixsift.core.choosing.contest import Contest, Size, Skill
from pixsift.pages.comparison import odd_images, strategy_name


def contest_text(found: Contest) -> str:
    """A table per measure: a row per strategy, a column per size."""
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(
        f"{found.compared_on} of {found.candidates} images, {found.odd} of them odd",
        highlight=False,
    )
    cells: list[tuple[str, Callable[[Size], str]]] = [
        ("mean / largest cosine distance to the nearest chosen",
         lambda s: f"{s.mean_distance:.4f} / {s.largest_distance:.4f}"),
        ("odd images chosen", odd_images),
    ]  # fmt: skip
    if found.label:
        cells += [
            ("linear probe: accuracy % (above random)", lambda s: _skill(s.probe)),
            ("nearest neighbor: accuracy % (above random)", lambda s: _skill(s.neighbor)),
        ]
    for title, cell in cells:
        table = Table("strategy", *(f"k = {k}" for k in found.ks), title=title)
        for entry in found.entries:
            table.add_row(strategy_name(entry), *(cell(size) for size in entry.sizes))
        console.print(table)
    return console.export_text().rstrip()


def _skill(skill: Skill | None) -> str:
    if skill is None:
        return ""
    return f"{100 * skill.accuracy:.1f} ({100 * skill.above_random:+.1f})"
