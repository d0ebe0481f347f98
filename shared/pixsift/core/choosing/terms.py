"""Further wishes of a request for typical images, as numbers per row of the pool."""

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.facility import Terms
from pixsift.core.choosing.pool import Pool, column_of
from pixsift.core.choosing.quotas import allocate
from pixsift.core.choosing.rows import Float64s, Indices
from pixsift.core.choosing.similarities import Similarities
from pixsift.errors import NotFoundError, RequestError
from pixsift.messages import Emphasis, Preference, Select2


def terms_of(
    pool: Pool, request: Select2, members: Indices, anchors: Indices, *, k: int
) -> tuple[Terms, dict[str, object]]:
    """Terms of facility location among some rows of a pool, and what to report of them.

    Raises UserError for a metric or attribute that no image has, or one that holds no numbers.
    """
    facts: dict[str, object] = {}
    weights = np.ones(members.size)
    if request.emphasize is not None:
        weights = weights * _emphasized(pool, request.emphasize, members, facts)
    if request.novelty and anchors.size:
        near = Similarities(pool.rows.subset(members)).nearest(pool.rows.subset(anchors))
        weights = weights * _around_one(_ranks(1 - near), request.novelty)
    bonus = np.zeros(members.size)
    for preference in request.prefer:
        bonus += _preferred(pool, preference, members)
    terms = Terms(
        weights=weights if request.emphasize or request.novelty else None,
        bonus=bonus if request.prefer else None,
    )
    if request.balance is None:
        return terms, facts
    codes, names = _strata(pool, request.balance.by, members)
    sizes = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
    counts = allocate(sizes, k, share=request.balance.share, seed=request.seed)
    facts["targets"] = counts
    targets = np.array([counts[name] for name in names], dtype=np.int64)
    return Terms(
        weights=terms.weights, bonus=terms.bonus, strata=codes, targets=targets,
        reward=request.balance.strength,
    ), facts  # fmt: skip


def _emphasized(
    pool: Pool, wanted: Emphasis, members: Indices, facts: dict[str, object]
) -> Float64s:
    column = column_of(pool.facts, wanted.attribute)
    values = np.array([_number(value) for value in column.values])
    if not np.isfinite(values).any():
        raise RequestError(
            f"emphasize: attribute {wanted.attribute!r} holds no numbers, e.g. {column.values[0]!r}"
        )
    found = np.append(values, np.nan)[column.codes[members]]
    facts["without_emphasis"] = int((~np.isfinite(found)).sum())
    return _around_one(_ranks(found), wanted.strength)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def _preferred(pool: Pool, preference: Preference, members: Indices) -> Float64s:
    quality = pool.facts.quality
    if preference.metric not in quality:
        there = ", ".join(sorted(quality)) or "none"
        raise NotFoundError(
            f"prefer: unknown quality metric {preference.metric!r}; there are: {there}"
        )
    values = quality[preference.metric][members].astype(np.float64)
    ranks = _ranks(-values if preference.low else values)
    # An image without the metric is not preferred.
    return preference.strength * np.where(np.isfinite(values), ranks, 0.0)


def _ranks(values: Float64s) -> Float64s:
    """(N,) 0 for the smallest to 1 for the largest, equals alike; a half where there is none."""
    found = np.full(values.size, 0.5)
    known = np.isfinite(values)
    distinct, places = np.unique(values[known], return_inverse=True)
    if distinct.size > 1:
        counts = np.bincount(places)
        middles = np.cumsum(counts) - (counts + 1) / 2
        found[known] = (middles / max(1, known.sum() - 1))[places]
    return found


def _around_one(ranks: Float64s, strength: float) -> Float64s:
    return np.asarray(1 - strength + 2 * strength * ranks, dtype=np.float64)


def _strata(pool: Pool, by: str, members: Indices) -> tuple[NDArray[np.int32], list[str]]:
    strata = column_of(pool.facts, by).strata(members)
    codes = np.empty(pool.rows.count, np.int32)
    for code, rows in enumerate(strata.values()):
        codes[rows] = code
    return codes[members], list(strata)
