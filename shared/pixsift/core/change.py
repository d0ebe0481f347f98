"""Finds whether something changed between two pictures of one scene, from a few stored kilobytes of
each.

A thing that enters a scene, a light that switches or a needle that moves changes one place and
leaves the rest alone. Everything that happens to a copy or to a second shot changes the whole
frame: encoding, noise, exposure, white balance, blur, a camera that moved a little. So after one
picture is laid over the other and its tones are fitted, the largest remaining difference *of one
place* is compared with the differences *everywhere*: a place that stands out has changed.

The signals are those of :mod:`pixsift.core.change_signals`; the alignment comes from
:mod:`pixsift.core.alignment`. Pairs are judged many at once: arrays lead with the pairs, ``P``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pixsift.core.alignment import median
from pixsift.core.change_signals import SIDE, Signals

Floats = NDArray[np.float32]
Maps = NDArray[np.float64]
Bools = NDArray[np.bool_]

KNOTS: Final = (48.0, 96.0, 144.0, 192.0)
"""Levels at which the tone curve may bend."""
ROUNDS: Final = 3
STILL_CELLS: Final = 0.3
"""Up to this motion the camera counts as at rest, in cells."""
UNSURE_CELLS: Final = 0.5
"""From this motion on it moved; between the two, both tests must agree."""
SMALL_FLOOR: Final = 2.5
LARGE_FLOOR: Final = 1.5
BLOCK_LEVELS: Final = 0.3
"""A block counts in deciding whether the camera moved only if it fits better by this much."""
MOVING_FLOOR: Final = 0.8
"""Levels added to the denominator of a ratio: about the noise of sensor and codec."""
EDGE_SHARE: Final = 0.1
"""How far an edge may be off, in cells, without counting as a change; a factor on the steepness
around the cell."""
BORDER: Final = 1
"""Cells left out along the edge of what both pictures show."""


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """Ratios up to which nothing has changed. Larger limits miss more changes."""

    small: float = 1.9
    large: float = 5.0
    peak: float = 12.0
    moving: float = 5.5
    unsure: float = 1.5
    """Factor on ``small`` and ``large`` where it is not sure that the camera was at rest."""

    def unchanged(self, found: "Changes") -> Bools:
        """(P,) whether nothing stands out."""
        rest = self._at_rest(found, 1.0) & (found.peak <= self.peak)
        moved = found.moving <= self.moving
        unsure = np.where(
            found.motion <= UNSURE_CELLS, moved & self._at_rest(found, self.unsure), moved
        )
        return np.where(found.motion <= STILL_CELLS, rest, unsure)

    def scaled(self, factor: float) -> "ChangeLimits":
        """Every limit times ``factor``: below 1 more counts as a change, above 1 less."""
        return replace(
            self, small=self.small * factor, large=self.large * factor, peak=self.peak * factor,
            moving=self.moving * factor,
        )  # fmt: skip

    def factor(self, found: "Changes") -> NDArray[np.float64]:
        """(P,) the least factor of ``scaled`` at which nothing stands out."""
        both = np.maximum(found.small / self.small, found.large / self.large)
        moved = found.moving / self.moving
        unsure = np.where(
            found.motion <= UNSURE_CELLS, np.maximum(moved, both / self.unsure), moved
        )
        rest = np.maximum(both, found.peak / self.peak)
        return np.where(found.motion <= STILL_CELLS, rest, unsure).astype(np.float64)

    def _at_rest(self, found: "Changes", room: float) -> Bools:
        return (found.small <= self.small * room) & (found.large <= self.large * room)


def half_warps(warps: Maps, side: int) -> tuple[Maps, ...]:
    """(P, 2, 3) maps found on a grid of ``side`` -> inverse half, half, in frame coordinates.

    Each side is interpolated by half of the map, so that both are blurred alike. The square root is
    a series: the maps are near the identity.
    """
    full = np.broadcast_to(np.eye(3), (len(warps), 3, 3)).copy()
    full[:, :2] = warps
    full[:, :2, 2] *= (side - 1) / side  # -1..1 between cell centers -> between the frame's edges
    off = full - np.eye(3)
    square = off @ off
    root = np.eye(3) + off / 2 - square / 8 + square @ off / 16
    inverse: Maps = np.linalg.inv(root).astype(np.float64)
    return inverse, root


def motion_cells(warps: Maps, side: int) -> Maps:
    """(P,) largest displacement of a corner, in cells of 56."""
    corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]], np.float64)
    moved = warps @ corners - corners[:2]
    cells: Maps = np.hypot(moved[:, 0], moved[:, 1]).max(axis=1) * (side - 1) / side * SIDE / 2
    return cells


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """How P pairs compare."""

    motion: Maps
    """(P,) largest displacement between the two, in cells of 56."""
    small: Floats
    """(P,) the largest difference of one place over what 3 % of the frame exceed: something small
    is in one place only."""
    large: Floats
    """(P,) the same over what a tenth of the frame exceeds: a thing of several places."""
    peak: Floats
    """(P,) the same over what half of the frame exceeds."""
    moving: Floats
    """(P,) like ``large`` where edges may be off by a little, for a camera that moved."""
    places: Floats
    """(P, 2, 2): where, as (x, y) shares of the first and of the second frame."""


def compare(
    a: Signals,
    b: Signals,
    warps: Maps,
    side: int,
    *,
    limits: ChangeLimits,
    outside: Bools | None = None,
) -> Changes:
    """P pairs. warps: (P, 2, 3) from a to b, as :func:`pixsift.core.alignment.align` found them on
    a grid of ``side``. outside: (56, 56), cells that no mask covers; None: all. A pair's numbers do
    not depend on the other pairs of the call.

    A large thing that entered pulls the alignment towards itself, and then hides in the misfit of
    everything else. So a pair that seems unchanged except for a moved camera is compared again as
    if the camera had not moved. If most of the frame fits better that way, the camera had not
    moved.
    """
    if outside is not None:
        a, b = _alike_where(~outside, a, b), _alike_where(~outside, b, a)
    found = _compare(a, b, warps, side, outside)
    again = np.flatnonzero((found.motion > STILL_CELLS) & limits.unchanged(found))
    if not len(again):
        return found
    at_rest = np.broadcast_to(np.eye(3)[:2], (len(again), 2, 3))
    some_a, some_b = _some(a, again), _some(b, again)
    rested = _compare(some_a, some_b, at_rest, side, outside)
    fits_rest = _mismatch(some_a, some_b, at_rest, side)
    fits_moved = _mismatch(some_a, some_b, warps[again], side)
    votes = np.sign(
        np.where(np.abs(fits_moved - fits_rest) > BLOCK_LEVELS, fits_moved - fits_rest, 0)
    )
    still = votes.sum(axis=(1, 2)) > 0
    for name in ("motion", "small", "large", "peak", "moving", "places"):
        getattr(found, name)[again[still]] = getattr(rested, name)[still]
    return found


def _alike_where(masked: Bools, one: Signals, other: Signals) -> Signals:
    """``one`` with the mean of both where they are masked."""
    luminance = np.where(masked, (one.luminance + other.luminance) / 2, one.luminance)
    return Signals(luminance.astype(np.float32), one.clipped & ~masked, one.chroma)


def _some(signals: Signals, rows: NDArray[np.intp]) -> Signals:
    return Signals(signals.luminance[rows], signals.clipped[rows], signals.chroma[rows])


def _mismatch(a: Signals, b: Signals, warps: Maps, side: int) -> Floats:
    """(P, 9, 9): root mean square of the residual in blocks of 6x6 cells."""
    left, _, _ = residuals(a, b, warps, side)
    blocks = (left * left)[:, 1:-1, 1:-1].reshape(-1, 9, 6, 9, 6).mean(axis=(2, 4))
    mismatch: Floats = np.sqrt(blocks)
    return mismatch


def _compare(
    a: Signals,
    b: Signals,
    warps: Maps,
    side: int,
    outside: Bools | None,
) -> Changes:
    left, inside, mean = residuals(a, b, warps, side)
    if outside is not None:
        inside = inside & outside
        left = left * outside
    counts = _box(inside.astype(np.float32)) > 0.99
    motion = motion_cells(warps, side)
    rough = np.sqrt(np.where(counts, _box(left * left), 0))
    most = rough.max(axis=(1, 2))
    few, tenth, half = _levels(rough, counts, (0.97, 0.9, 0.5))
    even = np.where(counts, np.abs(_box(_smooth(left) / (1 + EDGE_SHARE * _edges(mean)))), 0)
    (level,) = _levels(even, counts, (0.9,))
    where = np.where((motion > STILL_CELLS)[:, None, None], even, rough)
    return Changes(
        motion,
        small=most / (few + SMALL_FLOOR),
        large=most / (tenth + LARGE_FLOOR),
        peak=most / (half + LARGE_FLOOR),
        moving=even.max(axis=(1, 2)) / (level + MOVING_FLOOR),
        places=_places(where, warps, side),
    )


def _places(values: Floats, warps: Maps, side: int) -> Floats:
    """(P, 2, 2): the largest of the (P, 55, 55) boxes in shares of both frames."""
    flat = values.reshape(len(values), -1).argmax(axis=1)
    rows, columns = np.divmod(flat, SIDE - 1)
    middle = np.stack([columns + 1, rows + 1], axis=1) / (SIDE / 2) - 1
    point = np.concatenate([middle, np.ones((len(middle), 1))], axis=1)[:, :, None]
    seen = [(maps @ point)[:, :2, 0] for maps in half_warps(warps, side)]
    places: Floats = np.clip((np.stack(seen, axis=1) + 1) / 2, 0, 1).astype(np.float32)
    return places


def _box(values: Floats) -> Floats:
    """(P, S, S) -> (P, S - 1, S - 1) means over 2x2."""
    rows = values[:, 1:] + values[:, :-1]
    means: Floats = (rows[:, :, 1:] + rows[:, :, :-1]) * np.float32(0.25)
    return means


def _smooth(values: Floats) -> Floats:
    """Binomial 3x3."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smoothed: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) * np.float32(
        1 / 16
    )
    return smoothed


def _edges(values: Floats) -> Floats:
    """The steepest step, in levels a cell, within a cell of each."""
    steep = np.zeros_like(values)
    across = np.abs(values[:, :, 2:] - values[:, :, :-2]) / 2
    down = np.abs(values[:, 2:] - values[:, :-2]) / 2
    steep[:, :, 1:-1] = across
    steep[:, 1:-1] = np.maximum(steep[:, 1:-1], down)
    for axis in (1, 2):
        around = steep.copy()
        low: tuple[slice, ...] = (slice(None),) * axis + (slice(None, -1),)
        high: tuple[slice, ...] = (slice(None),) * axis + (slice(1, None),)
        np.maximum(around[low], steep[high], out=around[low])
        np.maximum(around[high], steep[low], out=around[high])
        steep = around
    return steep


def _levels(values: Floats, counts: Bools, shares: Sequence[float]) -> tuple[Floats, ...]:
    """(P,) for each share, the value that this share of the counted boxes stays below; every second
    box is used."""
    pairs = len(values)
    flat = np.where(counts, values, np.inf)[:, ::2, ::2].reshape(pairs, -1)
    number = counts[:, ::2, ::2].reshape(pairs, -1).sum(axis=1)
    ordered = np.sort(flat, axis=1)
    row, last = np.arange(pairs), np.maximum(number - 1, 0)
    return tuple(ordered[row, (share * last).astype(int)] for share in shares)


def residuals(a: Signals, b: Signals, warps: Maps, side: int) -> tuple[Floats, Bools, Floats]:
    """The difference that remains after position and tones are fitted.

    warps: (P, 2, 3) from a to b, as found on a grid of ``side``. Returns signed residuals
    (P, 56, 56) in levels of the rendering with more contrast, which cells count, and the mean of
    the two aligned pictures.
    """
    back, forth = half_warps(warps, side)
    la, ca, ia = _at(a, back)
    lb, cb, ib = _at(b, forth)
    inside = ia & ib
    spread = [_spread(x, inside) for x in (la, lb)]
    swap = (spread[0] < spread[1])[:, None, None]
    source, target = np.where(swap, lb, la), np.where(swap, la, lb)
    source_clip, target_clip = np.where(swap, cb, ca), np.where(swap, ca, cb)
    predicted, slope = _tone_curve(source, target, inside & ~source_clip & ~target_clip, inside)
    left = (target - predicted) / slope
    bright, dark = source > 128, source <= 128
    excused = (source_clip & bright & (left > 0)) | (source_clip & dark & (left < 0))
    bright, dark = target > 128, target <= 128
    excused |= (target_clip & bright & (left < 0)) | (target_clip & dark & (left > 0))
    left = np.where(excused | ~inside, 0, left).astype(np.float32)
    return left, inside, ((source + target) / 2).astype(np.float32)


def _at(signals: Signals, maps: Maps) -> tuple[Floats, Bools, Bools]:
    """Luminance and clipping seen through ``maps``, and what lies inside the frame."""
    scale = np.float32(SIDE / 2)
    centers = (np.arange(SIDE, dtype=np.float32) + 0.5) / scale - 1
    m = maps.astype(np.float32)[:, :, :, None, None]
    gx, gy = centers[None, :], centers[:, None]
    x = (m[:, 0, 0] * gx + m[:, 0, 1] * gy + m[:, 0, 2] + 1) * scale - 0.5
    y = (m[:, 1, 0] * gx + m[:, 1, 1] * gy + m[:, 1, 2] + 1) * scale - 0.5
    low, high = BORDER - 0.5, SIDE - 0.5 - BORDER
    inside = (x >= low) & (x <= high) & (y >= low) & (y <= high)
    x, y = np.clip(x, 0, SIDE - 1.001), np.clip(y, 0, SIDE - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    across, down = x - left, y - top
    index = top * SIDE + left + (np.arange(len(maps), dtype=np.int32) * SIDE * SIDE)[:, None, None]
    flat, clipped = signals.luminance.reshape(-1), signals.clipped.reshape(-1)
    one, two = flat.take(index), flat[SIDE:].take(index)
    upper = one + (flat[1:].take(index) - one) * across
    lower = two + (flat[SIDE + 1 :].take(index) - two) * across
    near = _any_of_four(clipped).take(index) if clipped.any() else np.zeros(index.shape, bool)
    return upper + (lower - upper) * down, near, inside


def _any_of_four(clipped: Bools) -> Bools:
    """(N,) rows of cells behind one another -> whether a cell, or one right of it, below it or
    both, is clipped; asked for only where all four are in the same picture."""
    near = clipped.copy()
    near[:-1] |= clipped[1:]
    near[:-SIDE] |= clipped[SIDE:]
    near[: -SIDE - 1] |= clipped[SIDE + 1 :]
    return near


def _spread(values: Floats, inside: Bools) -> Floats:
    """(P,) standard deviation over the cells inside."""
    count = np.maximum(inside.sum(axis=(1, 2)), 1)
    mean = (values * inside).sum(axis=(1, 2)) / count
    off = (values - mean[:, None, None]) * inside
    spread: Floats = np.sqrt((off * off).sum(axis=(1, 2)) / count).astype(np.float32)
    return spread


def _tone_curve(source: Floats, target: Floats, fit: Bools, inside: Bools) -> tuple[Floats, Floats]:
    """Predicted target, and the slope that turns its differences into the source's levels.

    Linear with bends at ``KNOTS``; fitted to every second cell of every second row with Huber
    weights, so that a changed place hardly bends it.
    """
    pairs = len(source)
    usable = fit.reshape(pairs, -1).sum(axis=1) > 0.2 * inside.reshape(pairs, -1).sum(axis=1)
    fit = np.where(usable[:, None, None], fit, inside)
    some = (slice(None), slice(0, SIDE, 2), slice(0, SIDE, 2))
    x, y, w = (v[some].reshape(pairs, -1) for v in (source, target, fit.astype(np.float32)))
    basis = _basis(x)
    ridge = np.diag(np.array([1e-3, 1e-3, 40, 40, 40, 40], np.float32))
    prior = np.array([0, 1, 0, 0, 0, 0], np.float32)
    weights = w
    for _ in range(ROUNDS):
        weighted = basis * weights[:, None, :]
        left = weighted @ basis.transpose(0, 2, 1) + ridge
        right = weighted @ y[:, :, None] + (ridge @ prior)[None, :, None]
        solution = np.linalg.solve(left, right)[..., 0]
        error = np.abs((solution[:, None, :] @ basis)[:, 0] - y)
        scale = 1 + 1.5 * median(error)[:, None]
        weights = w * np.minimum(1, scale / np.maximum(error, 1e-6))
    predicted = (solution[:, None, :] @ _basis(source.reshape(pairs, -1)))[:, 0]
    count = np.maximum(w.sum(axis=1), 1)
    slope = _mean_slope(x, w, solution, count)
    gain: Floats = np.clip(slope, 0.25, 1.0)[:, None, None].astype(np.float32)
    curve: Floats = predicted.reshape(source.shape).astype(np.float32)
    return curve, gain


def _basis(x: Floats) -> Floats:
    """(P, N) -> (P, 6, N), in units of 64 levels except for the constant."""
    rows = [np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in KNOTS)]
    scaled = np.stack(rows, axis=1)
    return scaled


def _mean_slope(x: Floats, w: Floats, solution: Floats, count: Floats) -> Floats:
    slope = solution[:, 1] * 1.0
    for place, knot in enumerate(KNOTS):
        slope = slope + solution[:, 2 + place] * ((x > knot) * w).sum(axis=1) / count
    return slope
