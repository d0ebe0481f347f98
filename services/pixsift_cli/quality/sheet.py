"""Quality of a folder as one HTML page: a histogram per metric, and the images that stand out.

The page has no script, loads nothing (thumbnails are inlined), and escapes every name.
"""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from pixsift.core.quality import METRICS, Check, QualityPolicy
from pixsift.operations.quality import JudgedFile
from pixsift_cli.quality.report import OUTCOMES

_WIDTH: Final = 300
_HEIGHT: Final = 110
_BARS: Final = 30
_MOST_EXAMPLES: Final = 12
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#6b7686;--line:#d9dee6;--page:#fff;
--bar:#0b6bcb;--limit:#c2571a}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#9aa6b6;--line:#333c49;--page:#12161c;
--bar:#5aa9f5;--limit:#f0935a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;
max-width:1180px;padding:0 1rem}h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 0}
p{color:var(--soft);margin:.2rem 0 1rem}.row{display:flex;flex-wrap:wrap;gap:1.2rem}
figure{margin:0}figcaption{font-size:.8rem;color:var(--soft);max-width:300px;
overflow-wrap:anywhere}figcaption b{color:var(--ink)}img{max-width:160px;max-height:160px;
border:1px solid var(--line)}.shot figcaption{max-width:160px}svg{max-width:100%;height:auto}
text{fill:var(--soft);font:10px system-ui,sans-serif}.axis{stroke:var(--line)}
.bar{fill:var(--bar)}.limit{stroke:var(--limit);stroke-width:2}
"""


def quality_sheet(title: str, judged: Sequence[JudgedFile], policy: QualityPolicy) -> str:
    """The whole page."""
    counts = ", ".join(f"{sum(row.outcome == name for row in judged)} {name}" for name in OUTCOMES)
    histograms = "".join(_histogram(metric, judged, policy) for metric in METRICS)
    examples = "".join(_examples(name, judged, policy) for name in policy.checks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Quality of {escape(title)}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'"><meta name="viewport" content="width=device-width">
<style>{_STYLE}</style></head><body>
<h1>Quality of {escape(title)}</h1><p>{len(judged)} files: {counts}</p>
<div class="row">{histograms}</div>{examples}{_refused(judged)}
</body></html>
"""


def _histogram(metric: str, judged: Sequence[JudgedFile], policy: QualityPolicy) -> str:
    values = np.array([row.metrics[metric] for row in judged if metric in row.metrics])
    if values.size == 0:
        return ""
    limits = [limit for check in policy.checks.values() for limit in _limits(check, metric)]
    low, high = float(values.min()), float(values.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(values, _BARS, (low, high))
    base = _HEIGHT - 16
    step = _WIDTH / _BARS
    bars = "".join(
        f'<rect class="bar" x="{i * step + 0.5:.1f}" y="{base - count / counts.max() * base:.1f}" '
        f'width="{step - 1:.1f}" height="{count / counts.max() * base:.1f}"/>'
        for i, count in enumerate(counts)
        if count
    )
    lines = "".join(
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{base}"/>'
        for x in ((limit - low) / (high - low) * _WIDTH for limit in limits)
        if 0 <= x <= _WIDTH
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(metric)}">{bars}{lines}'
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{_HEIGHT - 3}">{low:.3g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 3}" text-anchor="end">{high:.3g}</text></svg>'
        f"<figcaption><b>{escape(metric)}</b>: {escape(METRICS[metric])}</figcaption></figure>"
    )


def _limits(check: Check, metric: str) -> list[float]:
    if check.metric != metric or check.action == "off":
        return []
    return [limit for limit in (check.minimum, check.maximum) if limit is not None]


def _examples(name: str, judged: Sequence[JudgedFile], policy: QualityPolicy) -> str:
    """The images a check found, the worst first."""
    check = policy.checks[name]
    found = sorted(
        (row for row in judged if name in row.flags),
        key=lambda row: row.metrics.get(check.metric, 0.0),
        reverse=check.maximum is not None,
    )
    if not found:
        return ""
    shots = "".join(
        f'<figure class="shot"><img alt="" src="data:image/webp;base64,'
        f'{b64encode(row.thumbnail_webp).decode()}"><figcaption>{escape(row.name)}<br>'
        f"{escape(check.metric)} {row.metrics.get(check.metric, 0.0):.3g}</figcaption></figure>"
        for row in found[:_MOST_EXAMPLES]
    )
    return f'<h2>{escape(name)} ({check.action}): {len(found)}</h2><div class="row">{shots}</div>'


def _refused(judged: Sequence[JudgedFile]) -> str:
    refused = [row for row in judged if row.outcome == "refused"]
    if not refused:
        return ""
    lines = "".join(f"<li>{escape(row.name)}: {escape(row.reason)}</li>" for row in refused[:200])
    return f"<h2>not decoded: {len(refused)}</h2><ul>{lines}</ul>"
