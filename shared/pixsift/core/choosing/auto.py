"""Chooses the strategy for a request of ``auto``: a function of its own, so that the request can
record the choice.

Measured on several sets (docs/selection.md): when few of many images are chosen, typical images
train best. Beyond a tenth of all images, typical picks become odd ones; ``mixed`` takes these last.
Beyond three tenths, clusters in step with the root of their size train as well as anything
(``balanced``). So they do for a handful of images: the first picks of a greedy choice are made as
if none followed.
"""

from pixsift.messages import Select2, Strategy

HANDFUL = 4
"""So few images are chosen by clusters."""
TYPICAL_SHARE = 0.1
"""Of the candidates, up to which ``typical`` is chosen."""
MIXED_SHARE = 0.3
"""Of the candidates, up to which ``mixed`` is chosen."""


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
    size = f"{k} of {candidates} images ({100 * k / max(1, candidates):.3g} %)"
    if request.purpose == "rare":
        return "k_center", f"{size}, purpose rare: far from each other, odd images left out"
    has_terms = request.prefer or request.emphasize or request.novelty or request.balance
    if k <= HANDFUL and not has_terms and not request.preselected_snapshot:
        return "balanced", f"{size}, a handful: the middles of clusters train best"
    if k <= TYPICAL_SHARE * candidates:
        return "typical", f"{size} is at most {TYPICAL_SHARE:.0%}: typical images train best"
    if k <= MIXED_SHARE * candidates or has_terms:
        return "mixed", f"{size} is more than {TYPICAL_SHARE:.0%}: typical images, odd ones last"
    return "balanced", f"{size} is more than {MIXED_SHARE:.0%}: typical images of every cluster"
