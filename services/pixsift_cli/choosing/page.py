"""A selection as one HTML page: the coverage curves, the strata and a flat map, drawn as SVG.

The page has no script, loads nothing, and escapes every text that comes from the ledger.
"""

from collections.abc import Sequence
from html import escape

from pixsift.core.choosing.coverage import Comparison, Coverage
from pixsift.core.choosing.rows import Float64s
from pixsift_cli.gallery import STYLE as GALLERY_STYLE
from pixsift_cli.gallery import Picture, figures

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 560, 260, 46, 30
_WAYS = (("selection", "this selection"), ("random", "random"),
         ("stratified_random", "stratified random"))  # fmt: skip
_MOST_STRATA = 24
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#6b7686;--line:#d9dee6;--page:#fff;
--selection:#0b6bcb;--random:#c2571a;--stratified_random:#6a8f2f}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#9aa6b6;--line:#333c49;--page:#12161c;
--selection:#5aa9f5;--random:#f0935a;--stratified_random:#a3cc62}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;
max-width:1180px;padding:0 1rem}h1{font-size:1.4rem;margin:0}
p{color:var(--soft);margin:.2rem 0 1rem}
h2{font-size:1rem;margin:1.4rem 0 .3rem}.row{display:flex;flex-wrap:wrap;gap:1.5rem}
table{border-collapse:collapse}td,th{padding:.25rem .9rem .25rem 0;text-align:right;
border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}
svg{max-width:100%;height:auto}text{fill:var(--soft);font:11px system-ui,sans-serif}
.axis{stroke:var(--line)}.curve{fill:none;stroke-width:2}
"""


def selection_page(
    title: str,
    subtitle: str,
    compared: Comparison,
    flat: Float64s,
    chosen: Sequence[bool],
    *,
    picks: Sequence[Picture] = (),
) -> str:
    """The page. flat: (M, 2) in 0..1, a map of the pool; chosen: which of its points are picks;
    picks: thumbnails of the first picks, in the order of their choice."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width">
<style>{_STYLE}{GALLERY_STYLE}</style></head><body>
<h1>{escape(title)}</h1><p>{escape(subtitle)}</p>
{_table(compared)}
<div class="row">
<section><h2>Covering radius by images chosen</h2>{_curves(compared, "covering_radius")}</section>
<section><h2>Mean distance to the nearest chosen</h2>{_curves(compared, "mean_distance")}</section>
<section><h2>Chosen by {escape(compared.by)}</h2>{_strata(compared)}</section>
<section><h2>Map of the pool</h2>{_map(flat, chosen)}</section>
</div>{_pictures(picks)}</body></html>
"""


def ways(compared: Comparison) -> list[tuple[str, Coverage]]:
    """The three ways of choosing, with what people call them."""
    return [(label, getattr(compared, name)) for name, label in _WAYS]


def _pictures(picks: Sequence[Picture]) -> str:
    if not picks:
        return ""
    return f"<h2>The first {len(picks)} picks, in the order of their choice</h2>{figures(picks)}"


def _table(compared: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{c.covering_radius:.4f}</td><td>{c.mean_distance:.4f}</td>"
        f"<td>{c.curve[-1].strata_covered} of {len(compared.pool_strata)}</td></tr>"
        for label, c in ways(compared)
    )
    return (
        "<table><tr><th></th><th>covering radius</th><th>mean distance</th>"
        f"<th>{escape(compared.by)} covered</th></tr>{rows}</table>"
    )


def _curves(compared: Comparison, measure: str) -> str:
    points = {
        name: [(p.chosen, getattr(p, measure)) for p in getattr(compared, name).curve]
        for name, _ in _WAYS
    }
    right = max(x for line in points.values() for x, _ in line)
    top = max(y for line in points.values() for _, y in line) or 1.0

    def at(x: float, y: float) -> str:
        wide = _LEFT + (_WIDTH - _LEFT - 10) * x / right
        return f"{wide:.1f},{(_HEIGHT - _BOTTOM) * (1 - y / top) + 8:.1f}"

    lines = "".join(
        f'<polyline class="curve" stroke="var(--{name})" points="'
        + " ".join(at(x, y) for x, y in line) + '"/>'
        for name, line in points.items()
    )  # fmt: skip
    legend = "".join(
        f'<text x="{_WIDTH - 150}" y="{22 + 16 * i}" style="fill:var(--{name})">{escape(label)}'
        "</text>"
        for i, (name, label) in enumerate(_WAYS)
    )
    floor = _HEIGHT - _BOTTOM + 8
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">'
        f'<path class="axis" fill="none" d="M{_LEFT},8V{floor}H{_WIDTH - 10}"/>'
        f'<text x="4" y="16">{top:.3f}</text><text x="4" y="{floor}">0</text>'
        f'<text x="{_WIDTH - 60}" y="{floor + 16}">{right} images</text>{lines}{legend}</svg>'
    )


def _strata(compared: Comparison) -> str:
    names = sorted(compared.pool_strata, key=lambda n: (-compared.pool_strata[n], n))
    shown = names[:_MOST_STRATA]
    most = max(max(getattr(compared, way).strata[n] for n in shown) for way, _ in _WAYS) or 1
    bars = []
    for row, name in enumerate(shown):
        y = 8 + row * 22
        bars.append(f'<text x="0" y="{y + 11}">{escape(name[:24])}</text>')
        for i, (way, _) in enumerate(_WAYS):
            count = getattr(compared, way).strata[name]
            bars.append(
                f'<rect x="160" y="{y + 6 * i}" height="5" width="{340 * count / most:.1f}" '
                f'fill="var(--{way})"><title>{count}</title></rect>'
            )
    rest = f"<p>and {len(names) - len(shown)} more</p>" if len(names) > len(shown) else ""
    height = 22 * len(shown) + 14
    return f'<svg viewBox="0 0 520 {height}" width="520" role="img">{"".join(bars)}</svg>{rest}'


def _map(flat: Float64s, chosen: Sequence[bool]) -> str:
    def dot(point: Float64s, radius: float, style: str) -> str:
        x, y = 10 + 500 * point[0], 10 + 380 * (1 - point[1])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {style}/>'

    around = [dot(p, 1.6, 'fill="var(--line)"')
              for p, picked in zip(flat, chosen, strict=True) if not picked]  # fmt: skip
    picks = [dot(p, 3.2, 'fill="var(--selection)" fill-opacity=".8"')
             for p, picked in zip(flat, chosen, strict=True) if picked]  # fmt: skip
    return f'<svg viewBox="0 0 520 400" width="520" role="img">{"".join(around + picks)}</svg>'
