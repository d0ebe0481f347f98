"""The results of ``pixsift quality``, as CSV and as an answer."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pixsift.answers.quality import FileQuality, FolderQuality
from pixsift.core.judged_file import FILE_OUTCOMES, JudgedFile
from pixsift.core.quality import METRICS, QualityPolicy

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def to_csv(judged: Sequence[JudgedFile]) -> str:
    """A header and one row per file; numbers raw, texts safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["image", "outcome", "reason", "checks", "format", "width", "height", *METRICS])
    for row in judged:
        facts = row.facts
        shape = [facts.format, facts.width, facts.height] if facts else ["", "", ""]
        texts = [safe_cell(text) for text in (row.name, row.outcome, row.reason)]
        values = [_number(row.metrics.get(name)) for name in METRICS]
        writer.writerow([*texts, safe_cell(" ".join(row.flags)), *shape, *values])
    return out.getvalue()


def safe_cell(text: str) -> str:
    """A text that a spreadsheet does not read as a formula: a quote before = + - @ tab and CR
    (OWASP)."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def folder_quality(judged: Sequence[JudgedFile], policy: QualityPolicy) -> FolderQuality:
    """Counts, the policy, and every image."""
    outcomes = Counter(row.outcome for row in judged)
    return FolderQuality(
        outcomes={name: outcomes[name] for name in FILE_OUTCOMES},
        checks=Counter(flag for row in judged for flag in row.flags),
        refusals=Counter(row.reason for row in judged if row.outcome == "refused"),
        policy=policy.to_json(),
        images=[
            FileQuality(image=row.name, outcome=row.outcome, reason=row.reason or None,
                        checks=list(row.flags), metrics=dict(row.metrics))
            for row in judged
        ],
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
