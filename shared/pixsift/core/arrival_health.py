"""Finds reasons of refusals that become more frequent: a changed camera, a broken writer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WATCHED: Final = frozenset({
    "unsupported_format", "unsupported_variant", "unsupported_mode", "not_an_image", "corrupt",
    "truncated", "black", "white", "blank",
})  # fmt: skip
"""Reasons that point to a camera or a writer rather than to a single picture."""
NEWEST: Final = 1_000
"""How many of the newest decisions are compared with those before them; half of all, if there are
fewer than twice as many."""
LOOKED_AT: Final = 11_000
LEAST: Final = 10
"""Fewer images do not make a trend."""
LEAST_SHARE: Final = 0.01
GROWTH: Final = 2.0
"""The share must have grown by this factor."""


@dataclass(frozen=True, slots=True)
class GrowingShare:
    """A reason of refusals whose share among the newest decisions has grown."""

    reason: str
    share: float
    """Among the newest decisions, 0 to 1."""
    before: float
    """Among those before them."""
    newest: int
    """How many the newest are."""


def growing_shares(reasons: Sequence[str]) -> list[GrowingShare]:
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
) -> GrowingShare:
    return GrowingShare(reason, newest[reason] / size, before.get(reason, 0) / rest, size)
