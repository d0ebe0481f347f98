"""How many to take from each group: shares, caps, and what happens when a group runs short."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, assert_never

import numpy as np

from pixsift.errors import RequestError

Share = Literal["equal", "sqrt", "proportional", "explicit"]


def allocate(
    sizes: Mapping[str, int],
    k: int,
    *,
    share: Share = "equal",
    counts: Mapping[str, int] | None = None,
    cap: int | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Split ``k`` over groups of the given sizes; what a full group cannot take goes to the others.

    counts: what ``explicit`` asks of each group; groups it leaves out get nothing unless another
    runs short. seed: draws which groups get the remainder where shares tie; ordered by name, it
    would always be the first of the alphabet. Raises UserError when sizes and cap leave room for
    fewer than k, or counts name an unknown group or do not add up to k.
    """
    rooms = {name: min(size, cap or size) for name, size in sizes.items()}
    if sum(rooms.values()) < k:
        limit = f" with at most {cap} each" if cap else ""
        raise RequestError(
            f"cannot choose {k}: the {len(rooms)} groups hold {sum(sizes.values())} images, "
            f"{sum(rooms.values())}{limit}"
        )
    weights = _weights(sizes, k, share, counts or {})
    order = np.random.default_rng([seed, 0x7175]).permutation(len(rooms))
    turns = dict(zip(sorted(rooms), order.tolist(), strict=True))
    full: dict[str, int] = {}
    while True:
        open_ = {name: weights[name] for name in rooms if name not in full}
        parts = _largest_remainder(open_, k - sum(full.values()), turns)
        over = {name: rooms[name] for name, part in parts.items() if part > rooms[name]}
        if not over:
            return {name: full.get(name, parts.get(name, 0)) for name in rooms}
        full |= over


def room(sizes: Mapping[str, int], cap: int | None) -> int:
    """Most images that groups of these sizes give, ``cap`` each at most."""
    return sum(min(size, cap or size) for size in sizes.values())


def _weights(
    sizes: Mapping[str, int], k: int, share: Share, counts: Mapping[str, int]
) -> dict[str, Fraction]:
    match share:
        case "equal":
            return {name: Fraction(1) for name in sizes}
        case "sqrt":
            return {name: Fraction(size**0.5) for name, size in sizes.items()}
        case "proportional":
            return {name: Fraction(size) for name, size in sizes.items()}
        case "explicit":
            _check_counts(sizes, k, counts)
            return {name: Fraction(counts.get(name, 0)) for name in sizes}
    assert_never(share)


def _check_counts(sizes: Mapping[str, int], k: int, counts: Mapping[str, int]) -> None:
    unknown = sorted(set(counts) - set(sizes))
    if unknown:
        raise RequestError(
            f"quota names {unknown[0]!r}, which no image of the pool has; "
            f"there are: {', '.join(sorted(sizes))}"
        )
    if min(counts.values(), default=0) < 0 or sum(counts.values()) != k:
        raise RequestError(f"explicit counts add up to {sum(counts.values())}, but k is {k}")


def _largest_remainder(
    weights: Mapping[str, Fraction], total: int, turns: Mapping[str, int]
) -> dict[str, int]:
    """Whole parts of ``total`` in proportion to the weights; ties go to the earlier turn."""
    if not weights:
        return {}
    scale = sum(weights.values())
    if not scale:
        weights = dict.fromkeys(weights, Fraction(1))
        scale = Fraction(len(weights))
    exact = {name: weight * total / scale for name, weight in weights.items()}
    parts = {name: int(value) for name, value in exact.items()}
    rest = total - sum(parts.values())
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], turns[name]))
    for name in by_remainder[:rest]:
        parts[name] += 1
    return parts
