"""The calibration's picture: precision and recall against epsilon, as an SVG without scripts."""

from collections.abc import Sequence

from pixsift.core.calibration import CurvePoint
from pixsift.text import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 440, 60, 50, 190, 50
_BLUE, _ORANGE = "#2563eb", "#d97706"


def chart(
    title: str,
    with_look: Sequence[CurvePoint],
    without_look: Sequence[CurvePoint],
    *,
    epsilon: float | None,
) -> str:
    """An SVG. Solid: with the second look; dashed: the embedding alone; bands: 95 % intervals."""
    largest = max(point.epsilon for point in with_look)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">{escape(title)}</text>',
        *_axes(largest),
        _band(with_look, largest, "precision_interval", _BLUE),
        _band(with_look, largest, "recall_interval", _ORANGE),
        _line(with_look, largest, "precision", _BLUE),
        _line(with_look, largest, "recall", _ORANGE),
        _line(without_look, largest, "precision", _BLUE, dashed=True),
        _line(without_look, largest, "recall", _ORANGE, dashed=True),
        *_legend(),
    ]
    if epsilon is not None:
        x = _x(epsilon, largest)
        parts.append(
            f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#111" stroke-width="1.5"/>'
            f'<text x="{x + 5:.1f}" y="{HEIGHT - BOTTOM - 8}">&#949; = {epsilon:.3f}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _x(epsilon: float, largest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * epsilon / largest


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _axes(largest: float) -> list[str]:
    lines = []
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 32}" y="{y + 4:.1f}">{tenth / 10:.1f}</text>')
    for step in range(6):
        epsilon = largest * step / 5
        x = _x(epsilon, largest)
        lines.append(f'<text x="{x - 12:.1f}" y="{HEIGHT - BOTTOM + 18}">{epsilon:.2f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle - 70:.0f}" y="{HEIGHT - 10}">epsilon (cosine distance)</text>')
    return lines


def _line(
    points: Sequence[CurvePoint], largest: float, name: str, color: str, *, dashed: bool = False
) -> str:
    path = " ".join(f"{_x(p.epsilon, largest):.1f},{_y(getattr(p, name)):.1f}" for p in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'


def _band(points: Sequence[CurvePoint], largest: float, name: str, color: str) -> str:
    ends = [(_x(p.epsilon, largest), *getattr(p, name)) for p in points]
    lower = [f"{x:.1f},{_y(low):.1f}" for x, low, _ in ends]
    upper = [f"{x:.1f},{_y(high):.1f}" for x, _, high in reversed(ends)]
    return f'<polygon points="{" ".join(lower + upper)}" fill="{color}" opacity="0.15"/>'


def _legend() -> list[str]:
    rows = [
        ("precision, second look", _BLUE, ""),
        ("recall, second look", _ORANGE, ""),
        ("precision, embedding", _BLUE, ' stroke-dasharray="5 4"'),
        ("recall, embedding", _ORANGE, ' stroke-dasharray="5 4"'),
    ]
    x = WIDTH - RIGHT + 14
    return [
        f'<path d="M{x} {TOP + 12 + 22 * i}h24" stroke="{color}" stroke-width="2"{dash}/>'
        f'<text x="{x + 30}" y="{TOP + 16 + 22 * i}">{label}</text>'
        for i, (label, color, dash) in enumerate(rows)
    ]
