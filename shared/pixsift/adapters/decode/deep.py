"""Frames deeper than eight bits: finds which part of their range holds the picture.

Sensors put 10, 12 or 14 bits, millimeters or counts into 16, and degrees or meters into floats. The
highest eight bits of such a frame hold little of it, so its values are stretched between robust
limits of its own. A frame that uses half of its declared range or more keeps that range. In
between, the limits move gradually, so that brightness does not jump.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
"""(H, W) or (H, W, 3): uint16, int32 or float32."""
_Floats = NDArray[np.float64]

LOW, HIGH = 0.5, 99.5
"""Percentiles of the readings: hot and dead pixels lie beyond, and so do a sensor's outliers."""
BLOCK: Final = 8
"""A feature smaller than the percentiles see, but as large as a block, extends the limits."""
ALL_USED, LITTLE_USED = 0.5, 0.25
"""Shares of the declared range: from the first on a frame keeps its declared range, up to the
second it is fully stretched."""
NOISE_FLOOR: Final = 32.0
"""The limits are at least this many standard deviations of noise apart: 8 gray levels for one."""
EVEN: Final = 1 / 2048
"""Block means that differ by less than this share of their level do not count as structure."""
TOP_STEPS: Final = 1 / 256
"""A frame within this share of the declared range, and even, was one level in eight bits."""
ROOM_FOR_HOLES: Final = 0.1
"""Added below the lower limit (a share of the distance between the limits) where zeros mean no
reading: the nearest objects must not look like a hole."""
SAMPLE: Final = 2**18
_SPREAD_OF_NOISE: Final = 5.15
"""Between those percentiles, in standard deviations of Gaussian noise."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What became of the values."""

    low: float
    """Value that is black."""
    high: float
    """Value that is white; equal to ``low`` where the frame shows nothing."""
    used: float
    """Share of the declared range between the robust limits, 0 to 1; 0 without a declared range."""
    is_stretched: bool
    missing: float
    """Share of the pixels without a reading: not finite, or the file's own value for it."""


def eight_bits(
    values: Samples,
    full: float | None,
    *,
    nodata: float | None = None,
    hidden: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.uint8], Stretch]:
    """The values as 8 bits of the same shape, and how they were mapped.

    full: the largest value that the file declares; None: nothing is declared (floats, signed).
    nodata: the file's own value for "no reading"; it becomes black, as what is not finite does.
    hidden: (H, W) transparent pixels: what they hold is not part of the picture.
    """
    readable = _readable(values, nodata)
    missing = 0.0 if readable is None else 1.0 - float(readable.mean())
    if hidden is not None and hidden.any():
        shown = np.broadcast_to(
            ~hidden.reshape(*hidden.shape, *(1,) * (values.ndim - 2)), values.shape
        )
        readable = shown if readable is None else readable & shown
    if full is None:
        full = _full_of_floats(values, readable)
    if full is not None and _is_eight_bits(values, full, readable):
        limits = Stretch(0.0, full, 1.0, False, missing)
    else:
        limits = _limits(values, full, readable, missing)
    return _mapped(values, limits, full, readable), limits


def _readable(values: Samples, nodata: float | None) -> NDArray[np.bool_] | None:
    """Which values are readings; None: all."""
    readable: NDArray[np.bool_] | None = None
    if values.dtype.kind == "f":
        readable = np.abs(values) < 1e30  # neither NaN nor infinite nor "no data" of some writers
    if nodata is not None and math.isfinite(nodata):
        known = values != values.dtype.type(nodata)
        readable = known if readable is None else readable & known
    return None if readable is None or bool(readable.all()) else readable


def _full_of_floats(values: Samples, readable: NDArray[np.bool_] | None) -> float | None:
    """1 for values from 0 to 1, 255 for whole numbers up to that; else nothing is declared."""
    if values.dtype.kind != "f":
        return None
    found = values if readable is None else values[readable]
    if found.size == 0 or float(found.min()) < 0.0:
        return None
    most = float(found.max())
    if most <= 1.0:
        return 1.0
    return 255.0 if most <= 255.0 and bool((found == np.floor(found)).all()) else None


def _is_eight_bits(values: Samples, full: float, readable: NDArray[np.bool_] | None) -> bool:
    """Whether the values are 8 bits in a larger container: the picture is as bright as it says."""
    if full == 255.0:
        return True
    if full != 65535.0 or values.dtype.kind == "f":
        return False
    for step in (16, 1):  # the sample nearly always decides
        part = values[::step, ::step]
        part = part if readable is None else part[readable[::step, ::step]]
        low = part & 255
        if low.any() and not np.array_equal(low, part >> 8):
            return False
    return True


def _limits(
    values: Samples, full: float | None, readable: NDArray[np.bool_] | None, missing: float
) -> Stretch:
    readings = _sampled(values, full, readable)
    if readings.size == 0:  # only missing readings, or one end of the range
        return Stretch(0.0, full or 1.0, 0.0, False, missing)
    low, high = (float(limit) for limit in np.percentile(readings, (LOW, HIGH)))
    noise = _noise(values, readable)
    level = (low + high) / 2
    filled = values
    if readable is not None:
        filled = np.where(readable, values, values.dtype.type(level))
    if _is_even(readings, filled, noise, full):
        return Stretch(level, level, 0.0, False, missing)
    low, high = _extended(low, high, _means_of_readings(values, readable))
    if high <= low:  # a mask, say: zeros and one value
        low, high = min(0.0, float(readings.min())), float(readings.max())
    if low > 0.0 and values.dtype.kind == "u" and not values.all():
        low = max(0.0, low - ROOM_FOR_HOLES * (high - low))
    used = (high - low) / full if full else 0.0
    own = min(1.0, max(0.0, (ALL_USED - used) / (ALL_USED - LITTLE_USED))) if full else 1.0
    spare = max(0.0, NOISE_FLOOR * noise - (high - low)) / 2
    low, high = own * (low - spare), high + spare
    if full and own < 1.0:  # in equal steps of exposure
        high = high**own * full ** (1.0 - own)
    return Stretch(low, high, used, own > 0.0, missing)


def _sampled(values: Samples, full: float | None, readable: NDArray[np.bool_] | None) -> _Floats:
    """Readings on a grid. In unsigned values 0 means "no reading" as often as black, and it becomes
    black in any case. The same holds for the largest value, if all others are far below it."""
    step = max(1, round(math.sqrt(values.size / SAMPLE)))
    grid = values[::step, ::step]
    found = grid.reshape(-1) if readable is None else grid[readable[::step, ::step]]
    if found.size == 0 and readable is not None:
        found = values[readable]
    if values.dtype.kind == "u" or (found.size and float(found.min()) >= 0.0):
        found = found[found != 0] if bool((found != 0).any()) else found
    if full is not None and full > 1.0:
        others = found[found < full]
        if others.size and float(others.max()) < LITTLE_USED * full:
            found = others
    numbers: _Floats = found.astype(np.float64)
    return numbers


def _is_even(readings: _Floats, values: Samples, noise: float, full: float | None) -> bool:
    """Whether the frame shows only noise: the blocks are equally bright, all values are within one
    step of eight bits, and the rest looks like noise rather than a pattern."""
    low, high = (float(limit) for limit in np.percentile(readings, (LOW, HIGH)))
    level, span = abs(low + high) / 2, high - low
    if span > (TOP_STEPS * full if full else level / 64):  # nearly always
        return False
    means = _block_means(values)
    if float(readings.min()) == float(readings.max()) and float(np.ptp(means)) == 0.0:
        return True
    if means.size < 2:
        return False
    spread, quantum = span / _SPREAD_OF_NOISE, 0.0 if values.dtype.kind == "f" else 1.0
    if spread > 2 * noise + quantum or noise > 2 * spread + quantum:
        return False
    most = max(noise, EVEN * level)
    if float(np.ptp(means)) <= most or values.shape[1] < 3:
        return float(np.ptp(means)) <= most
    return float(np.ptp(_block_means(_calm(values)))) <= most


def _calm(values: Samples) -> Samples:
    """Without single hot or dead pixels: the median of three along the rows."""
    left, here, right = values[:, :-2], values[:, 1:-1], values[:, 2:]
    least = np.minimum(left, right)
    return np.maximum(least, np.minimum(np.maximum(left, right), here))


def _block_means(values: Samples) -> _Floats:
    means: _Floats = _block_sums(values) / _block_area(values)
    return means


def _block_area(values: Samples) -> int:
    return min(BLOCK, int(values.shape[0])) * min(BLOCK, int(values.shape[1]))


def _means_of_readings(values: Samples, readable: NDArray[np.bool_] | None) -> _Floats:
    """Mean of every block that is a reading for the most part; 0 counts as none."""
    known = (values != 0) if readable is None else readable & (values != 0)
    clean = values if readable is None else np.where(readable, values, values.dtype.type(0))
    sums, counts = _block_sums(clean), _block_sums(known)
    whole = counts >= _block_area(values) / 2
    means: _Floats = sums[whole] / counts[whole]
    return means


def _block_sums(values: Samples) -> _Floats:
    """Sums over blocks, one after the other, all channels."""
    height, width = values.shape[:2]
    down, across = min(BLOCK, height), min(BLOCK, width)
    wide = width // across * across
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    rows = np.stack([
        band.sum(axis=0, dtype=kind)
        for band in np.split(values[: height // down * down, :wide], height // down)
    ])  # fmt: skip
    sums: _Floats = rows.reshape(len(rows), wide // across, across, -1).sum(axis=2)
    return sums.reshape(-1).astype(np.float64)


def _noise(values: Samples, readable: NDArray[np.bool_] | None) -> float:
    """Standard deviation by the median second difference along rows; texture raises it little."""
    if values.shape[1] < 3:
        return 0.0
    step = max(1, values.shape[0] // 128)
    rows = values[::step, ..., 1] if values.ndim == 3 else values[::step]
    numbers = rows.astype(np.float64)
    second = np.abs(numbers[:, 1:-1] * 2 - numbers[:, :-2] - numbers[:, 2:])
    known = numbers != 0 if readable is None else _rows_of(readable, step) & (numbers != 0)
    second = second[known[:, 1:-1] & known[:, :-2] & known[:, 2:]]
    return float(np.median(second)) / (0.6745 * math.sqrt(6)) if second.size else 0.0


def _rows_of(readable: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    return readable[::step, ..., 1] if readable.ndim == 3 else readable[::step]


def _extended(low: float, high: float, means: _Floats) -> tuple[float, float]:
    """Limits that reach to the darkest and brightest block, by no more than their own distance: one
    far wall must not use up all levels."""
    if means.size == 0:
        return low, high
    span = high - low
    least, most = float(means.min()), float(means.max())
    if span == 0.0:
        return min(low, least), max(high, most)
    return max(min(low, least), low - span), min(max(high, most), high + span)


def _mapped(
    values: Samples, limits: Stretch, full: float | None, readable: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    low, high = limits.low, limits.high
    mapped: NDArray[np.uint8]
    if high == low:  # no structure: one level, as bright as the file says
        level = low * 256 / (full + (full > 1.0)) if full else 128  # undeclared: neither end
        mapped = np.full(values.shape, int(np.clip(level, 0, 255)), np.uint8)
    elif values.dtype == np.uint16:
        codes = np.arange(65536)
        if limits.is_stretched:
            table = np.round((codes - low) * 255 / (high - low))
        else:
            table = (codes >> _shift(full)).astype(np.float64)
        mapped = np.clip(table, 0, 255).astype(np.uint8)[values]
    else:
        is_single = values.dtype == np.float32
        wide: NDArray[Any] = values.astype(np.float32 if is_single else np.float64)
        with np.errstate(all="ignore"):  # values that are not finite become black
            wide -= low
            wide *= 255 / (high - low)
            np.round(wide, out=wide)
            mapped = np.nan_to_num(np.clip(wide, 0, 255), nan=0.0).astype(np.uint8)
    if readable is not None:
        mapped[~readable] = 0
    return mapped


def _shift(full: float | None) -> int:
    """To the highest eight bits of a range of 9 to 16."""
    return max(0, int(full or 65535.0).bit_length() - 8)
