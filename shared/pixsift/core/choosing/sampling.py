"""Choose images from a pool: one request model, several strategies, all deterministic.

Every strategy is a pure function of the pool, the request and its seed. Ranks are such that every
prefix is a sensible smaller selection. A request that cannot be met is refused, with the numbers
that show why. A shorter list is returned only where the request says `at_most`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

import numpy as np

from pixsift.core.choosing.apart import apart
from pixsift.core.choosing.auto import resolved
from pixsift.core.choosing.clusters import cluster
from pixsift.core.choosing.facility import EXACT_ROWS, MEMORY_BYTES, facility_location
from pixsift.core.choosing.kcenter import k_center_greedy
from pixsift.core.choosing.outliers import EXTREME, ODD, isolation, most_isolated
from pixsift.core.choosing.pool import ObjectIds, Pool, column_of
from pixsift.core.choosing.quotas import allocate, room
from pixsift.core.choosing.rows import NO_INDICES, Float64s, Indices, RowSource
from pixsift.core.choosing.similar import most_similar
from pixsift.core.choosing.similarities import Similarities
from pixsift.core.choosing.terms import terms_of
from pixsift.errors import ConflictError, NotFoundError, Remedy, RequestError, UserError
from pixsift.messages import Select, Select2

_PAIRS = int(0.7 * MEMORY_BYTES / 9)
"""Pairs that pruned facility location holds; the rest of the memory is for pairs above the
floors."""
_OWN = 0.1
"""Weight of what a pick adds by standing for itself, beyond what its nearest neighbor would."""
_POLLUTED = 0.1
"""Share of odd picks that is worth a warning."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The chosen images in rank order, and why each was chosen; without the preselected ones."""

    object_ids: ObjectIds
    indices: Indices
    """(K,) rows of the pool."""
    radii: Float64s
    """(K,) covering radius of the candidates after each pick (k_center), in cosine distance, else
    empty."""
    reasons: tuple[str, ...]
    outliers: ObjectIds
    """Left out by ``trim_outliers``; from version 2 on, the farthest from others first."""
    candidates: Indices
    """Rows that could have been chosen: eligible, not excluded, capped and trimmed."""
    anchors: Indices
    """Rows of the preselected."""
    odd: Indices = field(default_factory=lambda: NO_INDICES)
    """Candidates far more isolated than most, before trimming; where this was measured."""
    report: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Picks:
    """Rows of the pool in rank order."""

    indices: Indices
    reasons: list[str]
    radii: Float64s = field(default_factory=lambda: np.empty(0))
    facts: dict[str, object] = field(default_factory=dict)


_CONFLICTS_LISTED = 100


def select(pool: Pool, request: Select, *, preselected: Sequence[int] = ()) -> Selection:
    """Choose ``request.k`` images, or with ``at_most`` all there are when there are fewer.

    preselected: object ids chosen earlier; never chosen again, nor their neighbors by k-center.
    They must have rows in the pool, eligible or not.
    Raises UserError for whatever cannot be done.
    """
    check(pool)
    anchors = _anchors(pool, preselected)
    facts = _facts(pool)
    if isinstance(request, Select2):
        request, reason = resolved(request, int(pool.eligible.sum()))
        if reason is not None:
            facts["auto"] = reason
    candidates = _candidates(pool, request, anchors, facts)
    candidates = _capped(candidates, request, facts)
    odd = NO_INDICES
    if isinstance(request, Select2):
        candidates, outliers, odd = _tidied(pool, candidates, anchors, request)
        candidates = _kept_apart(pool, candidates, anchors, request, facts)
    else:
        candidates, outliers = _trimmed(pool, candidates, request, facts)
    facts |= {"candidates": candidates.size, "preselected": anchors.size,
              "outliers": outliers.size}  # fmt: skip
    k = candidates.size if request.strategy == "all" else request.k or 0
    if k > candidates.size and not request.at_most:
        capped = f", max_pool is {request.max_pool}" if "capped_from" in facts else ""
        near = f", {facts['too_near']} too near to another" if "too_near" in facts else ""
        raise RequestError(
            f"cannot choose {k} of {candidates.size} candidates "
            f"({facts['eligible']} in the pool, {anchors.size} preselected, "
            f"{facts['excluded']} excluded{capped}, {outliers.size} trimmed as outliers{near})",
            remedy=Remedy("take_at_most"),
        )
    picks = _choose(pool, request, candidates, anchors, min(k, candidates.size))
    chosen = picks.indices.size
    if chosen < k and not request.at_most:
        raise RequestError(
            f"cannot choose {k} images: after {chosen} every candidate is nearer than "
            "min_distance to one of them",
            remedy=Remedy("take_at_most"),
        )
    if odd.size:
        _warn_of_odd(odd, picks.indices, facts)
    assert chosen == np.unique(picks.indices).size  # noqa: S101
    assert chosen == k or (request.at_most and chosen < k)  # noqa: S101
    if chosen < k:
        but = f" but {outliers.size} odd ones" if outliers.size else ""
        facts["fewer"] = f"all {chosen} there are{but}, where {k} were asked for at most"
    return Selection(
        object_ids=pool.object_ids[picks.indices],
        indices=picks.indices,
        radii=picks.radii,
        reasons=tuple(picks.reasons),
        outliers=pool.object_ids[outliers],
        candidates=candidates,
        anchors=anchors,
        odd=odd,
        report={
            **facts,
            "strategy": request.strategy,
            "k": chosen,
            "seed": request.seed,
            **picks.facts,
        },
    )  # fmt: skip


def _facts(pool: Pool) -> dict[str, object]:
    """What the filter met."""
    facts: dict[str, object] = {"eligible": int(pool.eligible.sum()), "erased": pool.erased}
    if pool.times is not None:
        facts |= {"without_time": pool.times.unknown, "time_of_s3": pool.times.by_s3}
    if pool.left_out_flagged is not None:
        facts["flagged_out"] = pool.left_out_flagged
    if pool.left_out_protected is not None:
        facts["protected_out"] = pool.left_out_protected
    if pool.by_duplicates is not None:
        facts["by_duplicates"] = pool.by_duplicates
    if pool.conflicts:
        facts["label_conflicts"] = len(pool.conflicts)
        facts["label_conflict_examples"] = [
            {"object_id": c.object_id, "attribute": c.attribute, "values": list(c.values)}
            for c in pool.conflicts[:_CONFLICTS_LISTED]
        ]
    return facts


def check(pool: Pool) -> None:
    """Refuse a pool that cannot be chosen from: empty, repeated ids, rows that are not finite."""
    if not pool.eligible.any():
        raise RequestError("the pool is empty: no kept image matches the filter")
    ids = pool.object_ids
    repeated = ids[1:][np.diff(ids) <= 0]
    if repeated.size:
        raise ConflictError(f"object ids repeat or do not ascend in the pool, e.g. {repeated[0]}")
    if pool.rows.count != ids.size:
        raise ConflictError(f"the pool has {ids.size} images but {pool.rows.count} embeddings")
    broken = pool.rows.summary.broken
    if broken.size:
        shown = ", ".join(str(ids[i]) for i in broken[:5])
        raise ConflictError(
            f"{broken.size} embeddings contain NaN or infinity, e.g. object {shown}"
        )


def _anchors(pool: Pool, preselected: Sequence[int]) -> Indices:
    try:
        return np.sort(pool.indices_of(list(preselected)))
    except UserError as exc:
        raise RequestError(
            f"preselected: {exc}; a snapshot of another embedding space cannot be extended"
        ) from exc


def _candidates(pool: Pool, request: Select, anchors: Indices, facts: dict[str, object]) -> Indices:
    open_ = pool.eligible.copy()
    open_[anchors] = False
    named = [i for uri in request.exclude for i in _object_ids(pool, uri)]
    excluded = open_ & np.isin(pool.object_ids, named)
    found = np.flatnonzero(open_ & ~excluded)
    facts["excluded"] = int(excluded.sum())
    if not found.size:
        raise RequestError(
            f"no candidates left: {pool.eligible.sum()} images in the pool, "
            f"{anchors.size} preselected, {facts['excluded']} excluded"
        )
    return found


def _object_ids(pool: Pool, uri: str) -> tuple[int, ...]:
    if not pool.named.get(uri):
        raise NotFoundError(f"the ledger does not know {uri}")
    return pool.named[uri]


def _capped(candidates: Indices, request: Select, facts: dict[str, object]) -> Indices:
    if request.max_pool is None or request.max_pool >= candidates.size:
        return candidates
    rng = np.random.default_rng([request.seed, 0x6361])
    facts["capped_from"] = candidates.size
    facts["cap_effect"] = (
        f"{request.max_pool} of {candidates.size} candidates, drawn at random: the covering radius "
        "holds for these; an image outside may lie farther from the chosen"
    )
    return np.sort(rng.choice(candidates, request.max_pool, replace=False))


def _trimmed(
    pool: Pool, candidates: Indices, request: Select, facts: dict[str, object]
) -> tuple[Indices, Indices]:
    count = int(request.trim_outliers * candidates.size)
    if request.trim_outliers and not count:
        facts["trim_effect"] = (
            f"trim_outliers {request.trim_outliers:g} of {candidates.size} candidates is less than "
            "one image: none was excluded"
        )
    if not count:
        return candidates, np.empty(0, np.intp)
    lost = most_isolated(pool.rows.subset(candidates), count, seed=request.seed)
    return np.delete(candidates, lost), candidates[lost]


def _tidied(
    pool: Pool, candidates: Indices, anchors: Indices, request: Select2
) -> tuple[Indices, Indices, Indices]:
    """The remaining candidates, the trimmed ones with the farthest from others first, and the odd
    ones among all.

    Never so many are trimmed that fewer than ``k`` remain, and no stratum of a quota or balance
    loses a larger share than ``trim_outliers``.
    """
    count = int(request.trim_outliers * candidates.size)
    if not count and request.inside not in ("k_center", "farthest"):
        return candidates, NO_INDICES, NO_INDICES
    beyond = ODD if request.inside in ("k_center", "farthest") else EXTREME
    # Images chosen earlier are neighbors too: the rest of their class is not odd.
    together = np.union1d(candidates, anchors)
    found = isolation(pool.rows.subset(together), seed=request.seed, beyond=beyond)
    odd = together[found.farthest(together.size)]
    odd = odd[np.isin(odd, candidates)]
    if request.k is not None and not request.at_most:
        count = min(count, max(0, candidates.size - request.k))
    lost = _within_strata(pool, candidates, odd, request)[:count]
    return np.setdiff1d(candidates, lost), lost, np.sort(odd)


def _within_strata(pool: Pool, candidates: Indices, odd: Indices, request: Select2) -> Indices:
    """The odd ones that may be trimmed: of each stratum its share, the farthest first."""
    wish = request.quota or request.balance
    if wish is None:
        return odd
    may_go = np.ones(odd.size, dtype=bool)
    for rows in column_of(pool.facts, wish.by).strata(candidates).values():
        of_stratum = np.flatnonzero(np.isin(odd, rows))
        may_go[of_stratum[int(request.trim_outliers * rows.size) :]] = False
    return odd[may_go]


def _warn_of_odd(odd: Indices, picks: Indices, facts: dict[str, object]) -> None:
    shares = {
        "pool": odd.size / max(1, _count(facts["candidates"]) + _count(facts["outliers"])),
        "picks": float(np.isin(picks, odd).mean()) if picks.size else 0.0,
    }
    facts["odd"] = {name: round(share, 4) for name, share in shares.items()}
    if shares["picks"] > max(_POLLUTED, 2 * shares["pool"]):
        facts["warning"] = (
            f"{shares['picks']:.0%} of the picks are odd images, far from all others "
            f"({shares['pool']:.1%} of the pool are): look at the first picks, filter such images "
            "out (where), raise trim_outliers, or take strategy 'typical'"
        )


def _count(fact: object) -> int:
    return int(np.asarray(fact))


def _kept_apart(
    pool: Pool, candidates: Indices, anchors: Indices, request: Select2, facts: dict[str, object]
) -> Indices:
    """Without those nearer than ``min_distance`` to another; ``typical`` does this itself."""
    if not request.min_distance or (request.strategy == "typical" and request.quota is None):
        return candidates
    away = pool.rows.subset(anchors) if anchors.size else None
    stays = apart(pool.rows.subset(candidates), request.min_distance, outside=away)
    facts["too_near"] = int((~stays).sum())
    return candidates[stays]


def _choose(pool: Pool, request: Select, candidates: Indices, anchors: Indices, k: int) -> _Picks:
    # With a quota, the strategy says how to choose inside of each stratum.
    strategy = "stratified" if request.quota is not None else request.strategy
    match strategy:
        case "k_center" | "farthest":
            found = _k_center(pool.rows, candidates, anchors, k, request.seed)
        case "typical":
            found = _typical(pool, request, candidates, anchors, k)
        case "mixed":
            found = _mixed(pool, request, candidates, anchors, k)
        case "balanced":
            found = _balanced(pool, request, candidates, anchors, k)
        case "stratified":
            found = _stratified(pool, request, candidates, anchors, k)
        case "random":
            found = _random(candidates, k, request.seed)
        case "similar":
            found = _similar(pool, request, candidates, k)
        case "all":
            found = _Picks(candidates, ["every image of the pool"] * k)
        case "auto":
            raise RequestError("strategy 'auto' is resolved before images are chosen")
        case _:
            assert_never(strategy)
    return found


def _k_center(rows: RowSource, candidates: Indices, anchors: Indices, k: int, seed: int) -> _Picks:
    # Anchors are centers; rows that are neither candidates nor anchors need not be covered.
    together = np.union1d(candidates, anchors)
    return _walked(rows, together, k, seed, preselected=np.searchsorted(together, anchors))


def _walked(
    rows: RowSource,
    members: Indices,
    k: int,
    seed: int,
    *,
    preselected: Indices = NO_INDICES,
    away: RowSource | None = None,
) -> _Picks:
    """k-center among members; preselected are some of these, ``away`` is none of them."""
    if not k:
        return _Picks(NO_INDICES, [])
    source = rows if members.size == rows.count else rows.subset(members)
    start = None
    if not preselected.size and away is None:
        start = int(np.random.default_rng([seed, 0x7374]).integers(members.size))
    walk = k_center_greedy(source, k, preselected=preselected, outside=away, start=start)
    picked = members[walk.centers[preselected.size :]]
    before = [walk.start_radius, *walk.radii[:-1]]
    reasons = [
        "start, picked by the seed"
        if np.isinf(far)
        else f"farthest from all selected images: cosine distance {_cosine(far):.4f}"
        for far in before
    ]
    facts: dict[str, object] = {
        "covering_radius": _cosine(walk.covering_radius),
        "best_possible_radius_at_least": _cosine(walk.lower_bound),
        "passes": walk.passes,
        "bytes_per_pass": source.bytes_per_pass,
    }
    return _Picks(picked, reasons, walk.radii**2 / 2, facts)


def _cosine(euclidean: float) -> float:
    """The cosine distance of unit vectors with this Euclidean distance: people see one unit
    only."""
    return euclidean * euclidean / 2


def _typical(
    pool: Pool,
    request: Select,
    members: Indices,
    anchors: Indices,
    k: int,
    *,
    own: float | None = None,
) -> _Picks:
    """Facility location among members; anchors already stand for the rows around them.

    own: how much it counts that a pick stands for itself better than its nearest neighbor does.
    """
    assert isinstance(request, Select2)  # noqa: S101
    if not k:
        return _Picks(NO_INDICES, [])
    terms, facts = terms_of(pool, request, members, anchors, k=k)
    if own is not None:
        others = Similarities(pool.rows.subset(members)).nearest_others()
        terms = replace(terms, own=others + own * (1 - others))
    is_exact = members.size <= EXACT_ROWS if request.exact is None else request.exact
    found = facility_location(
        pool.rows.subset(members), k,
        outside=pool.rows.subset(anchors) if anchors.size else None,
        terms=terms,
        min_distance=request.min_distance,
        neighbors=None if is_exact else max(16, _PAIRS // members.size),
    )  # fmt: skip
    reasons = [f"typical: represents the images around it, gain {gain:.4f}" for gain in found.gains]
    facts |= {
        "mean_distance": round(found.mean_distance, 6),
        "exact": is_exact,
        "pruned_loss_at_most": round(2 * found.pruned_loss, 6),
        "passes": found.passes,
        "gains_measured": found.evaluations,
    }
    if not request.min_distance:  # what is too near to a pick no longer counts for the bound
        facts |= {
            "best_possible_mean_distance_at_least": round(2 * (1 - found.best_possible), 6),
            "share_of_optimum_at_least": round(found.value / (found.best_possible or 1.0), 4),
        }
        if is_exact and own is None:
            facts["guarantee"] = (
                "at least 1 - 1/e (63 %) of the similarity any choice of this size reaches"
            )
    return _Picks(members[found.picks], reasons, facts=facts)


def _mixed(pool: Pool, request: Select, members: Indices, anchors: Indices, k: int) -> _Picks:
    """Typical images that gain little by standing for themselves: what is odd comes last."""
    return _typical(pool, request, members, anchors, k, own=_OWN)


def _random(candidates: Indices, k: int, seed: int) -> _Picks:
    rng = np.random.default_rng([seed, 0x7261])
    return _Picks(rng.permutation(candidates)[:k], ["drawn at random"] * k)


def _targets(pool: Pool, request: Select) -> tuple[Indices, Indices]:
    """Rows to be near to, and rows to be far from."""
    near = pool.indices_of([i for uri in request.similar_to for i in _object_ids(pool, uri)])
    far = pool.indices_of([i for uri in request.dissimilar_to for i in _object_ids(pool, uri)])
    return near, far


def _similar(pool: Pool, request: Select, candidates: Indices, k: int) -> _Picks:
    near, far = _targets(pool, request)
    others = np.setdiff1d(candidates, np.concatenate([near, far]))
    if request.at_most:
        k = min(k, others.size)
    if k > others.size:
        raise RequestError(f"cannot choose {k} of {others.size} candidates besides the targets")
    way = request.similar_way if isinstance(request, Select2) else "nearest"
    best, scores = most_similar(
        pool.rows.subset(others), pool.rows.take(near), pool.rows.take(far), k, way=way
    )
    if way != "nearest":
        return _Picks(others[best], [f"score {score:.4f} by way {way!r}" for score in scores])
    return _Picks(others[best], [_nearness(score, bool(far.size)) for score in scores])


def _nearness(score: float, has_counterexamples: bool) -> str:
    """In cosine distances; ``score`` as ``most_similar`` gives it."""
    if not has_counterexamples:
        return f"cosine distance {1 - score:.4f} to the nearest target"
    less_or_more = "less" if score >= 0 else "more"
    return (
        f"cosine distance to the nearest target {abs(score):.4f} {less_or_more} than to the "
        "nearest counterexample"
    )


def _balanced(pool: Pool, request: Select, candidates: Indices, anchors: Indices, k: int) -> _Picks:
    count = min(request.clusters or max(2, round(k**0.5)), candidates.size)
    labels = cluster(pool.rows.subset(candidates), count, seed=request.seed)
    groups = {f"cluster {n:05d}": candidates[labels == n] for n in np.unique(labels)}
    sizes = {name: group.size for name, group in groups.items()}
    quota = allocate(sizes, k, share=request.cluster_share, seed=request.seed)
    inside = "mixed" if isinstance(request, Select2) else "k_center"
    return _inside_groups(pool, request, groups, anchors, quota, inside=inside)


def _stratified(
    pool: Pool, request: Select, candidates: Indices, anchors: Indices, k: int
) -> _Picks:
    quota = request.quota
    if quota is None:
        raise RequestError("strategy 'stratified' needs quota, e.g. {'by': 'robot'}")
    column = column_of(pool.facts, quota.by)
    # The targets themselves are not chosen: a stratum has room for the others only.
    candidates = np.setdiff1d(candidates, np.concatenate(_targets(pool, request)))
    groups = column.strata(candidates)
    sizes = {name: group.size for name, group in groups.items()}
    if request.at_most:
        k = min(k, room(sizes, quota.cap))
    counts = allocate(
        sizes, k, share=quota.share, counts=quota.counts, cap=quota.cap, seed=request.seed
    )
    return _inside_groups(pool, request, groups, anchors, counts, inside=request.inside)


def _inside_groups(
    pool: Pool,
    request: Select,
    groups: dict[str, Indices],
    anchors: Indices,
    counts: dict[str, int],
    *,
    inside: str,
) -> _Picks:
    """Choose in each group by itself, but away from every anchor, whatever group that is of."""
    # As rows of each group, they would be compared with each other in every group.
    away = pool.rows.subset(anchors) if anchors.size else None
    parts: dict[str, _Picks] = {}
    for name, members in groups.items():
        k = counts[name]
        if not k:
            continue
        if inside == "typical":
            parts[name] = _typical(pool, request, members, anchors, k)
        elif inside == "mixed":
            parts[name] = _mixed(pool, request, members, anchors, k)
        elif inside in ("k_center", "farthest"):
            parts[name] = _walked(pool.rows, members, k, request.seed, away=away)
        elif inside == "balanced":
            parts[name] = _balanced(pool, request, members, anchors, k)
        elif inside == "similar":
            parts[name] = _similar(pool, request, members, k)
        else:
            parts[name] = _random(members, k, request.seed)
    facts: dict[str, object] = {
        "groups": {n: {"images": g.size, "chosen": counts[n]} for n, g in groups.items()},
        # These groups gave all their images; the rest came from other groups.
        "exhausted": [n for n, g in groups.items() if counts[n] == g.size],
    }
    return _interleaved(parts, facts)


def _interleaved(parts: dict[str, _Picks], facts: dict[str, object]) -> _Picks:
    """In turn from each group, in step with its share, so that every prefix is balanced too."""
    order = sorted(
        ((position + 0.5) / part.indices.size, name, position)
        for name, part in parts.items()
        for position in range(part.indices.size)
    )
    indices = np.array([parts[name].indices[at] for _, name, at in order], dtype=np.intp)
    return _Picks(indices, [f"{n}: {parts[n].reasons[at]}" for _, n, at in order], facts=facts)
