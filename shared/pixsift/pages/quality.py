"""Quality of a folder on one page: the images that stand out, then a histogram per metric."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from pixsift.core.judged_file import FILE_OUTCOMES, JudgedFile
from pixsift.core.quality import METRICS, Check, QualityPolicy
from pixsift.pages.document import document, section
from pixsift.pages.pictures import Picture, figures
from pixsift.text import escape
from pixsift.words import in_words

_WIDTH: Final = 300
_HEIGHT: Final = 110
_BARS: Final = 30
_MOST_EXAMPLES: Final = 12
_MOST_NAMES: Final = 200


def quality_page(title: str, judged: Sequence[JudgedFile], policy: QualityPolicy) -> str:
    """The whole page. title: name of the folder."""
    counts = ", ".join(
        f"{sum(row.outcome == name for row in judged)} {name}" for name in FILE_OUTCOMES
    )
    histograms = "".join(_histogram(metric, judged, policy) for metric in METRICS)
    return document(
        f"Quality of {title}", [f"{len(judged)} files: {counts}"],
        *_examples(judged, policy), _refused(judged),
        section("Distribution of each metric", f'<div class="row">{histograms}</div>'),
    )  # fmt: skip


def _examples(judged: Sequence[JudgedFile], policy: QualityPolicy) -> list[str]:
    """The worst images of each check; one that several checks found is shown once."""
    parts, shown = [], set[str]()
    for name, check in policy.checks.items():
        found = sorted(
            (row for row in judged if name in row.flags),
            key=lambda row: row.metrics.get(check.metric, 0.0),
            reverse=check.maximum is not None,
        )
        fresh = [row for row in found if row.name not in shown][:_MOST_EXAMPLES]
        shown |= {row.name for row in fresh}
        pictures = [
            Picture.inline(row.thumbnail_webp or None, row.name, *_measured(row, policy))
            for row in fresh
        ]
        title = f"{in_words(name)} ({check.action}): {len(found)}"
        parts.append(section(title, figures(pictures)))
    return parts


def _measured(row: JudgedFile, policy: QualityPolicy) -> list[str]:
    return [
        f"{in_words(flag)}: {policy.checks[flag].metric} "
        f"{row.metrics.get(policy.checks[flag].metric, 0.0):.3g}"
        for flag in row.flags
    ]


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
        f"<figcaption><b>{escape(metric)}</b>{escape(METRICS[metric])}</figcaption></figure>"
    )


def _limits(check: Check, metric: str) -> list[float]:
    if check.metric != metric or check.action == "off":
        return []
    return [limit for limit in (check.minimum, check.maximum) if limit is not None]


def _refused(judged: Sequence[JudgedFile]) -> str:
    refused = [row for row in judged if row.outcome == "refused"]
    if not refused:
        return ""
    lines = "".join(
        f"<li>{escape(row.name)}: {escape(in_words(row.reason))}</li>"
        for row in refused[:_MOST_NAMES]
    )
    return section(f"not decoded: {len(refused)}", f"<ul>{lines}</ul>")
