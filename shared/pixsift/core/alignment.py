"""Lay small pictures over one another: crop, shift, turn and zoom, many pairs at once.

Gauss-Newton on small luminances, with brightness and contrast fitted at the same time. Huber
weights give little weight to a thing that only one picture shows. The first axis of arrays is the
pairs, ``P``; a pair's answer does not depend on the other pairs of the call. Coordinates run from
-1 to 1 between the centers of the outer cells. Source: Baker and Matthews 2004,
doi:10.1023/B:VISI.0000011205.11775.fd (inverse compositional), with a constant Hessian.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS: Final = 6
MAX_TURN: Final = 0.25
MAX_SHIFT: Final = 0.3
"""An alignment beyond these limits (linear part; shift in half frames) is a coincidence."""
_SETTLED: Final = 0.002
"""A pair whose largest step is below this (a thirtieth of a cell of 32) has converged."""


def align(fixed: Floats, moving: Floats) -> Floats:
    """(P, S, S) twice -> (P, 2, 3) affine maps from ``fixed`` coordinates to ``moving`` ones; the
    identity where no alignment is found.
    """
    pairs, side, _ = fixed.shape
    half = (side - 1) / 2
    identity = np.broadcast_to(np.eye(3)[:2], (pairs, 2, 3))
    x0, y0 = _grid(side)
    target, source = smooth(fixed), smooth(moving)
    across = np.gradient(target, axis=2) * half
    down = np.gradient(target, axis=1) * half
    jacobian = np.stack(
        [across * x0, across * y0, across, down * x0, down * y0, down], axis=1
    ).reshape(pairs, 6, -1)
    # A flat image says nothing about position: the ridge keeps its map from drifting.
    ridge = np.eye(6) * (side * side * 0.5)
    inverse = np.linalg.inv(jacobian @ jacobian.transpose(0, 2, 1) + ridge)
    warps = np.broadcast_to(np.eye(3), (pairs, 3, 3)).copy()
    failed = np.zeros(pairs, bool)
    moving_on = np.arange(pairs)
    for _ in range(STEPS):
        found, steps = _step(target, source, jacobian, inverse, warps[moving_on])
        failed[moving_on[~found]] = True
        change = np.broadcast_to(np.eye(3), (len(moving_on), 3, 3)).copy()
        change[found, :2] += steps[found].reshape(-1, 2, 3)
        warps[moving_on] = warps[moving_on] @ np.linalg.inv(change)
        go_on = found & (np.abs(steps).max(axis=1) >= _SETTLED)
        if not go_on.any():
            break
        if not go_on.all():  # copied only where some pairs have ended
            target, source, jacobian, inverse = (
                each[go_on] for each in (target, source, jacobian, inverse)
            )
            moving_on = moving_on[go_on]
    result: Floats = warps[:, :2]
    moved = np.abs(result - identity)
    failed |= (moved[..., :2].max(axis=(1, 2)) > MAX_TURN) | (moved[..., 2].max(axis=1) > MAX_SHIFT)
    return np.where(failed[:, None, None], identity, result)


def _step(
    target: Floats, source: Floats, jacobian: Floats, inverse: Floats, warps: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """Which pairs still overlap and agree in sign, and (P, 6) steps."""
    pairs, side, _ = target.shape
    x, y, inside = warped(warps[:, :2], side)
    cells = side * side
    share = inside.reshape(pairs, cells).mean(axis=1)
    safe = np.maximum(share, 1e-6) * cells
    b = sample(source, x, y).reshape(pairs, cells)
    inside, a = inside.reshape(pairs, cells), target.reshape(pairs, cells)
    a = (a - ((a * inside).sum(axis=1) / safe)[:, None]) * inside
    b = (b - ((b * inside).sum(axis=1) / safe)[:, None]) * inside
    gain = (a * b).sum(axis=1) / ((b * b).sum(axis=1) + 1e-6)
    error = gain[:, None] * b - a
    size = np.abs(error)
    limit = 1 + 1.5 * median(size)[:, None]
    weighted = error * np.minimum(1, limit / np.maximum(size, 1e-6))
    slope = jacobian @ weighted[:, :, None]
    steps = (inverse @ slope)[..., 0] / np.maximum(share, 1e-6)[:, None]
    return (share >= 0.5) & (gain > 0), steps


def median(values: Floats) -> Floats:
    """``numpy.median`` over the last axis, without its checks; (P, N) with N even -> (P,)."""
    half = values.shape[1] // 2
    parted = np.partition(values, (half - 1, half), axis=1)
    middle: Floats = (parted[:, half - 1] + parted[:, half]) / 2
    return middle


def warped(warps: Floats, side: int, border: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Cell coordinates (x, y) in the moving image, and 1.0 where they lie inside of it."""
    half = (side - 1) / 2
    x0, y0 = _grid(side)
    m = warps[:, :, :, None, None]
    x = (m[:, 0, 0] * x0 + m[:, 0, 1] * y0 + m[:, 0, 2]) * half + half
    y = (m[:, 1, 0] * x0 + m[:, 1, 1] * y0 + m[:, 1, 2]) * half + half
    low, high = -border, side - 1 + border
    inside = (x >= low) & (x <= high) & (y >= low) & (y <= high)
    return x, y, inside.astype(np.float64)


def sample(images: Floats, x: Floats, y: Floats) -> Floats:
    """(P, S, S) at (P, ...) coordinates: bilinear values, clamped to the image."""
    pairs, side = images.shape[0], images.shape[-1]
    x = np.clip(x, 0, side - 1.001)
    y = np.clip(y, 0, side - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right_share, bottom_share = x - left, y - top
    index = top * side + left + (np.arange(pairs) * side * side)[:, None, None]
    flat = images.reshape(-1)
    upper_left, lower_left = flat.take(index), flat[side:].take(index)
    upper = upper_left + (flat[1:].take(index) - upper_left) * right_share
    lower = lower_left + (flat[side + 1 :].take(index) - lower_left) * right_share
    values: Floats = upper + (lower - upper) * bottom_share
    return values


def smooth(images: Floats) -> Floats:
    """Binomial 3x3 over the last two axes."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smoothed: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return smoothed


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[Floats, Floats]:
    half = (side - 1) / 2
    y, x = (np.mgrid[0:side, 0:side] - half) / half
    return x, y
