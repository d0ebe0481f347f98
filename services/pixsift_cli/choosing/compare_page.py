"""``pixsift select --compare`` as one HTML page: strategies side by side on the user's own images.

The page has no script, loads nothing, and escapes every text that comes from the ledger. Pictures
are thumbnails, inlined.
"""

import base64
import io
from collections.abc import Callable, Mapping
from html import escape

from rich.console import Console
from rich.table import Table

from pixsift.core.choosing.contest import Contest, Entry, Size, Skill
from pixsift_cli.choosing.charts import line_chart

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6676;--line:#d9dee6;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#9aa6b6;--line:#333c49;--page:#12161c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;
max-width:1280px;padding:0 1rem}h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 0}
h3{font-size:.95rem;margin:1rem 0 .2rem}p{color:var(--soft);margin:.2rem 0 .8rem;max-width:75ch}
.row{display:flex;flex-wrap:wrap;gap:1.5rem}table{border-collapse:collapse}
td,th{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid var(--line)}
td,th{white-space:nowrap}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
text{fill:var(--soft);font:12px system-ui,sans-serif}.axis{stroke:var(--soft)}
.grid{stroke:var(--line)}.curve{fill:none;stroke-width:2}.shots{display:flex;flex-wrap:wrap;gap:4px}
.shots img,.shots span{width:96px;height:96px;object-fit:cover;background:var(--line)}
.shots span{font-size:10px;overflow:hidden;overflow-wrap:anywhere;padding:2px;box-sizing:border-box}
.note{border-left:4px solid #c2571a;padding-left:.7rem}
"""
_IMAGES = "images chosen"


def compare_page(
    title: str, subtitle: str, found: Contest, pictures: Mapping[int, tuple[str, bytes | None]]
) -> str:
    """The page. pictures: row of the pool -> its name and a WebP or JPEG thumbnail, if any."""
    skills = _skills(found) if found.label else (
        "<p>No labels were named, so nothing was trained: --label ATTRIBUTE adds a linear probe "
        "and the nearest neighbor.</p>"
    )  # fmt: skip
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{_warning(found)}
{skills}
<h2>Coverage</h2><p>Cosine distance of every image to the nearest chosen one: 0 is the same
picture, lower is better. The mean tells how well the usual image is stood for, the largest whether
something rare was left alone.</p>
<div class="row">
<section><h3>Mean distance to the nearest chosen image</h3>{_curves(found, "mean_distance")}
</section>
<section><h3>Largest distance to the nearest chosen image</h3>{_curves(found, "largest_distance")}
</section></div>
{_attributes(found)}
<h2>Odd and flagged images among the chosen</h2><p>Odd: far lonelier than almost all images;
{found.odd} of {found.compared_on} are. They may be rare scenes or junk: look at the pictures.</p>
{_table(found, _odd)}
<h2>First picks</h2>{"".join(_shots(entry, pictures) for entry in found.entries)}
{_left_out(found, pictures)}
</body></html>
"""


def contest_text(found: Contest) -> str:
    """The same as tables for a terminal."""
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(
        f"{found.compared_on} of {found.candidates} images, {found.odd} of them odd",
        highlight=False,
    )
    cells: list[tuple[str, Callable[[Size], str]]] = [
        ("mean / largest cosine distance to the nearest chosen",
         lambda s: f"{s.mean_distance:.4f} / {s.largest_distance:.4f}"),
        ("odd images chosen", _odd),
    ]  # fmt: skip
    if found.label:
        cells += [
            ("linear probe: accuracy % (above random)", lambda s: _short(s.probe)),
            ("nearest neighbor: accuracy % (above random)", lambda s: _short(s.neighbor)),
        ]
    for title, cell in cells:
        table = Table("strategy", *(f"k = {k}" for k in found.ks), title=title)
        for entry in found.entries:
            table.add_row(_name(entry), *(cell(size) for size in entry.sizes))
        console.print(table)
    return console.export_text().rstrip()


def _short(skill: Skill | None) -> str:
    if skill is None:
        return ""
    return f"{100 * skill.accuracy:.1f} ({100 * skill.above_random:+.1f})"


def _warning(found: Contest) -> str:
    worst = [
        entry.strategy for entry in found.entries
        if any(s.odd > 0.1 * s.k and s.odd / s.k > 2 * found.odd / found.compared_on
               for s in entry.sizes)
    ]  # fmt: skip
    if not worst:
        return ""
    return (
        f'<p class="note">More than a tenth of what {escape(", ".join(worst))} chose is odd, more '
        "than twice the share of the pool: look at these pictures before you train on them.</p>"
    )


def _skills(found: Contest) -> str:
    held = f"images of one {escape(found.group)} together" if found.group else "single images"
    return f"""<h2>What a model learns from each</h2><p>Trained on the chosen embeddings, tested on
{found.tested} images that could not be chosen ({held}, five folds, each held out once). Label:
{escape(found.label or "")}. Whiskers and brackets: 95 % interval of the difference from random.</p>
<div class="row"><section><h3>Linear probe</h3>{_skill_chart(found, "probe")}</section>
<section><h3>Nearest neighbor</h3>{_skill_chart(found, "neighbor")}</section></div>
<h3>Linear probe: accuracy in %, and percentage points above random</h3>
{_table(found, lambda size: _skill(size.probe))}
<h3>Nearest neighbor: accuracy in %, and percentage points above random</h3>
{_table(found, lambda size: _skill(size.neighbor))}"""


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
    return line_chart(
        lines, bands=bands, x_title=_IMAGES, y_title="accuracy, %", zero=False
    )  # fmt: skip


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
        charts.append(f"<section><h3>Values of {escape(name)}</h3>{chart}</section>")
    if not charts:
        return ""
    return f'<h2>Attributes covered</h2><div class="row">{"".join(charts)}</div>'


def _table(found: Contest, cell: Callable[[Size], str]) -> str:
    head = "".join(f"<th>{k} images</th>" for k in found.ks)
    rows = "".join(
        f"<tr><td>{escape(_name(entry))}</td>"
        + "".join(f"<td>{cell(size)}</td>" for size in entry.sizes)
        + "</tr>"
        for entry in found.entries
    )
    return f"<table><tr><th>strategy</th>{head}</tr>{rows}</table>"


def _odd(size: Size) -> str:
    flagged = "" if size.flagged is None else f", {size.flagged} flagged"
    return f"{size.odd} odd{flagged}"


def _name(entry: Entry) -> str:
    return f"auto ({entry.resolved})" if entry.strategy == "auto" else entry.strategy


def _shots(entry: Entry, pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    shown = [int(row) for row in entry.first if int(row) in pictures][:12]
    return f"<h3>{escape(_name(entry))}</h3>{_gallery(shown, pictures)}"


def _left_out(found: Contest, pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    longest = max(found.entries, key=lambda entry: entry.left_out.size, default=None)
    if longest is None or not longest.left_out.size:
        return ""
    shown = [int(row) for row in longest.left_out if int(row) in pictures][:24]
    return (
        f"<h2>Left out as odd</h2><p>{longest.left_out.size} images, the loneliest first, by every "
        "strategy but farthest and random; trim_outliers 0 keeps them.</p>"
        f"{_gallery(shown, pictures)}"
    )


def _gallery(rows: list[int], pictures: Mapping[int, tuple[str, bytes | None]]) -> str:
    parts = []
    for row in rows:
        name, content = pictures[row]
        if content is None:
            parts.append(f"<span>{escape(name)}</span>")
            continue
        kind = "webp" if content[8:12] == b"WEBP" else "jpeg"
        data = base64.b64encode(content).decode()
        parts.append(
            f'<img alt="{escape(name)}" title="{escape(name)}" src="data:image/{kind};base64,'
            f'{data}">'
        )
    return f'<div class="shots">{"".join(parts)}</div>'
