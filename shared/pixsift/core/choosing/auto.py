"""Chooses the strategy for a request of ``auto``: a function of its own, so that the request can
record the choice.

Measured on several sets (docs/selection.md): when few of many images are chosen, typical images
train best. Beyond about a fifth of all images, further picks far from the chosen ones train as
well, and cover more.
"""

from math import ceil

from pixsift.messages import Select2, Strategy

TYPICAL_SHARE = 0.2
"""Of the candidates, chosen as typical before ``mixed`` goes on with the farthest."""


def typical_first(candidates: int) -> int:
    """How many of the candidates ``mixed`` chooses as typical before it goes far."""
    return max(1, ceil(TYPICAL_SHARE * candidates))


def resolved(request: Select2, candidates: int) -> tuple[Select2, str | None]:
    """The request with ``auto`` replaced by a strategy, and the reason.

    candidates: images that pass the filter. A request that names a strategy comes back as it is.
    """
    if request.strategy != "auto":
        return request, None
    strategy, reason = _rule(request, candidates)
    given = request.model_dump(exclude_unset=True)
    if not request.trim_outliers:
        given.pop("trim_outliers", None)
    return Select2.model_validate({**given, "strategy": strategy}), reason


def _rule(request: Select2, candidates: int) -> tuple[Strategy, str]:
    k = request.k or 0
    share = 100 * k / max(1, candidates)
    size = f"{k} of {candidates} images ({share:.3g} %)"
    if request.purpose == "rare":
        return "k_center", f"purpose is rare scenes: far from each other, {size}"
    if k <= typical_first(candidates):
        return "typical", f"{size} is at most {TYPICAL_SHARE:.0%}: typical images train best"
    return "mixed", f"{size} is more than {TYPICAL_SHARE:.0%}: typical first, then the farthest"
