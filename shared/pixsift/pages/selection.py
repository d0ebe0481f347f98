"""A selection on one page: the picks, the coverage curves, the strata and a flat map."""

from collections.abc import Mapping, Sequence

from pixsift.core.choosing.coverage import Comparison, Coverage
from pixsift.core.choosing.rows import Float64s
from pixsift.pages.charts import line_chart
from pixsift.pages.document import document, paragraph, section, side_by_side, table
from pixsift.pages.pictures import Picture, figures
from pixsift.text import escape

_WAYS: Mapping[str, str] = {
    "selection": "this selection",
    "random": "random",
    "stratified_random": "stratified random",
}
_COLORS = {"selection": "--c0", "random": "--c1", "stratified_random": "--c2"}
_MOST_STRATA = 24
_MEASURES = (
    "Distances are cosine distances of every image to its nearest chosen one: 0 is the same "
    "picture. The covering radius is the largest of them, the mean their average. A strategy that "
    "lowers the radius (k_center, farthest) takes the unusual images first, so its mean can be "
    "higher than that of a random choice."
)


def selection_page(
    title: str,
    subtitle: str,
    compared: Comparison,
    flat: Float64s,
    chosen: Sequence[bool],
    *,
    picks: Sequence[Picture] = (),
    left_out: Sequence[Picture] = (),
    left_out_count: int = 0,
    warning: str | None = None,
) -> str:
    """The page. flat: (M, 2) in 0..1, a map of the pool; chosen: which of its points are picks;
    picks: thumbnails of the first picks, in the order of their choice; left_out: of the images
    trimmed as odd, the farthest from their neighbors first, ``left_out_count`` in all."""
    return document(
        title, [subtitle],
        paragraph(warning, note=True) if warning else "",
        section(f"The first {len(picks)} picks, in the order of their choice", figures(picks)),
        section("Coverage", paragraph(_MEASURES), _table(compared)),
        side_by_side([
            ("Covering radius by images chosen", _curves(compared, "covering_radius")),
            ("Mean distance by images chosen", _curves(compared, "mean_distance")),
            (f"Images chosen by {compared.by}", _strata(compared)),
            ("Map of the pool", _map(flat, chosen)),
        ]),
        _left_out(left_out, left_out_count),
    )  # fmt: skip


def ways(compared: Comparison) -> list[tuple[str, Coverage]]:
    """The three ways of choosing, with what people call them."""
    return [(label, getattr(compared, name)) for name, label in _WAYS.items()]


def _left_out(shown: Sequence[Picture], count: int) -> str:
    if not count:
        return ""
    first = f" The first {len(shown)} are shown." if len(shown) < count else ""
    return section(
        "Left out as odd",
        paragraph(
            f"{count} images, the farthest from their neighbors first.{first} They may be junk or "
            "rare scenes: trim_outliers 0 keeps them all."
        ),
        figures(shown, small=True),
    )


def _table(compared: Comparison) -> str:
    return table(
        ["", "covering radius", "mean distance", f"{compared.by} covered"],
        [
            [label, f"{c.covering_radius:.4f}", f"{c.mean_distance:.4f}",
             f"{c.curve[-1].strata_covered} of {len(compared.pool_strata)}"]
            for label, c in ways(compared)
        ],
    )  # fmt: skip


def _curves(compared: Comparison, measure: str) -> str:
    lines: dict[str, list[tuple[float, float]]] = {
        label: [(float(p.chosen), float(getattr(p, measure))) for p in coverage.curve]
        for label, coverage in ways(compared)
    }
    return line_chart(lines, x_title="images chosen", y_title="cosine distance", zero=False)


def _strata(compared: Comparison) -> str:
    names = sorted(compared.pool_strata, key=lambda n: (-compared.pool_strata[n], n))
    shown = names[:_MOST_STRATA]
    most = max(max(getattr(compared, way).strata[n] for n in shown) for way in _WAYS) or 1
    bars = []
    for row, name in enumerate(shown):
        y = 8 + row * 22
        bars.append(f'<text x="0" y="{y + 11}">{escape(name[:24])}</text>')
        for i, (way, label) in enumerate(_WAYS.items()):
            count = getattr(compared, way).strata[name]
            bars.append(
                f'<rect x="160" y="{y + 6 * i}" height="5" width="{340 * count / most:.1f}" '
                f'fill="var({_COLORS[way]})"><title>{label}: {count}</title></rect>'
            )
    rest = paragraph(f"and {len(names) - len(shown)} more") if len(names) > len(shown) else ""
    height = 22 * len(shown) + 14
    return f'<svg viewBox="0 0 520 {height}" width="520" role="img">{"".join(bars)}</svg>{rest}'


def _map(flat: Float64s, chosen: Sequence[bool]) -> str:
    def dot(point: Float64s, radius: float, style: str) -> str:
        x, y = 10 + 500 * point[0], 10 + 380 * (1 - point[1])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {style}/>'

    around = [dot(p, 2.2, 'fill="var(--soft)" fill-opacity=".45"')
              for p, picked in zip(flat, chosen, strict=True) if not picked]  # fmt: skip
    picks = [dot(p, 3.6, 'fill="var(--c0)" fill-opacity=".85"')
             for p, picked in zip(flat, chosen, strict=True) if picked]  # fmt: skip
    drawn = f'<svg viewBox="0 0 520 400" width="520" role="img">{"".join(around + picks)}</svg>'
    return drawn + paragraph(
        "Blue: chosen; gray: not chosen. The two directions in which the images differ most: "
        "images that lie near each other here need not look alike."
    )
