"""Line charts as SVG that can be read: named axes, round ticks, one unit, a legend in words."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10

from pixsift.text import escape

COLORS = tuple(f"var(--c{i})" for i in range(8))
"""Of the style sheet, which has a light and a dark shade of each."""
_WIDTH, _HEIGHT = 600, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 150, 14, 52

Point = tuple[float, float]
Band = tuple[float, float, float]
"""x, low, high."""


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    *,
    x_title: str,
    y_title: str,
    bands: Mapping[str, Sequence[Band]] | None = None,
    zero: bool = True,
) -> str:
    """One line per name over x, with whiskers where ``bands`` has intervals.

    zero: the y axis begins at 0; else at the smallest value.
    """
    bands = bands or {}
    points = [p for line in lines.values() for p in line]
    heights = [y for _, y in points] + [y for b in bands.values() for _, *ys in b for y in ys]
    xs = sorted({x for x, _ in points})
    right = max(xs, default=1.0) or 1.0
    ticks = _ticks(min([0.0, *heights]) if zero else min(heights), max(heights, default=1.0))
    low, high = ticks[0], ticks[-1]

    def at_x(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / right

    def at_y(y: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (y - low) / ((high - low) or 1))

    bottom = at_y(low)
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at_y(t):.1f}" '
        f'y2="{at_y(t):.1f}"/><text text-anchor="end" x="{_LEFT - 6}" y="{at_y(t) + 4:.1f}">'
        f"{t:.10g}</text>"
        for t in ticks
    ]
    for x in _apart(xs, right):
        parts.append(
            f'<line class="axis" x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{bottom:.1f}" '
            f'y2="{bottom + 5:.1f}"/><text text-anchor="middle" x="{at_x(x):.1f}" '
            f'y="{bottom + 18:.1f}">{x:.10g}</text>'
        )
    for i, (name, line) in enumerate(lines.items()):
        color = COLORS[i % len(COLORS)]
        for x, lower, upper in bands.get(name, ()):
            shifted = at_x(x) + 2 * (i - len(lines) / 2)
            parts.append(
                f'<line stroke="{color}" stroke-opacity=".6" x1="{shifted:.1f}" '
                f'x2="{shifted:.1f}" y1="{at_y(lower):.1f}" y2="{at_y(upper):.1f}"/>'
            )
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="curve" stroke="{color}" points="{path}"/>')
        parts += [
            f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{color}">'
            f"<title>{escape(name)}, {x:.10g} images: {y:.4g}</title></circle>"
            for x, y in line
        ]
        height = _TOP + 10 + 19 * i
        parts.append(
            f'<rect x="{_WIDTH - _RIGHT + 14}" y="{height - 8}" width="14" height="4" '
            f'fill="{color}"/><text x="{_WIDTH - _RIGHT + 34}" y="{height}">{escape(name)}</text>'
        )
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(y_title)} by {escape(x_title)}">'
        f'<path class="axis" fill="none" d="M{_LEFT},{_TOP}V{bottom:.1f}H{_WIDTH - _RIGHT}"/>'
        f"{''.join(parts)}"
        f'<text text-anchor="middle" x="{middle}" y="{_HEIGHT - 10}">{escape(x_title)}</text>'
        f'<text text-anchor="middle" transform="translate(14,{(_TOP + bottom) / 2:.0f}) '
        f'rotate(-90)">{escape(y_title)}</text></svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around a range."""
    span = (high - low) or 1.0
    step = 10.0 ** floor(log10(span / 4))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= 6:
            step *= factor
            break
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _apart(xs: Sequence[float], right: float) -> list[float]:
    """Those far enough from the next to be written below the axis, the last first."""
    kept: list[float] = []
    for x in reversed(xs):
        if not kept or (kept[-1] - x) / right > 0.07:
            kept.append(x)
    return kept
