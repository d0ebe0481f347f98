"""Whether more and more of what arrives is refused: a camera that changed, a writer that broke."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WATCHED: Final = frozenset({
    "unsupported_format", "unsupported_variant", "unsupported_mode", "not_an_image", "corrupt",
    "truncated", "black", "white", "blank",
})  # fmt: skip
"""Reasons that say something of cameras and writers rather than of single pictures."""
NEWEST: Final = 1_000
"""Decisions compared with those before them; half of them where there are fewer than twice that."""
LOOKED_AT: Final = 11_000
LEAST: Final = 10
"""Fewer images do not make a trend."""
LEAST_SHARE: Final = 0.01
GROWTH: Final = 2.0
"""Times the share of before."""


@dataclass(frozen=True, slots=True)
class Growing:
    """A reason whose share has grown."""

    reason: str
    share: float
    """Among the newest decisions, 0 to 1."""
    before: float
    """Among those before them."""
    newest: int
    """How many the newest are."""


def growing_shares(reasons: Sequence[str]) -> list[Growing]:
    """Watched reasons whose share has at least doubled, the largest share first.

    reasons: of the newest decisions of a collection, whatever their outcome, newest first.
    """
    size = min(NEWEST, len(reasons) // 2)
    newest, before = Counter(reasons[:size]), Counter(reasons[size:])
    found = [
        _grown(reason, newest, before, size, len(reasons) - size)
        for reason in WATCHED & newest.keys()
        if newest[reason] >= LEAST
    ]
    sure = [g for g in found if g.share >= max(LEAST_SHARE, GROWTH * g.before)]
    return sorted(sure, key=lambda growing: (-growing.share, growing.reason))


def _grown(
    reason: str, newest: Mapping[str, int], before: Mapping[str, int], size: int, rest: int
) -> Growing:
    return Growing(reason, newest[reason] / size, before.get(reason, 0) / rest, size)
