"""How much fine detail an image has relative to its coarse structure, and in which directions.

The measure is a ratio, so it forgives low contrast and smooth scenes: in every textured tile, the
mean second difference at a distance of 1 pixel over the one at 8 pixels. Natural scenes look alike
at all scales (Field 1987, doi:10.1364/JOSAA.4.002379), so a sharp tile lies near 0.5 whatever it
shows; Gaussian blur of sigma 2 takes it to about 0.07. An image is as sharp as its sharpest tenth
of textured tiles: a shallow depth of field is not a fault. Noise, which would pass for detail, is
estimated on the calmest tiles and subtracted. Without a textured tile there is no result.

``sharpness`` judges the pixels it is given, at their scale; ``full_size_sharpness`` a JPEG at full
size, where the coder's 8-pixel blocks matter.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.uint8]
"""(H, W) uint8."""
_Floats = NDArray[np.float64]
_Patches = NDArray[np.int16]
"""(P, h, w) int16."""

TILE: Final = 32
FINE: Final = 1
COARSE: Final = 8
DIAGONAL_COARSE: Final = 6
"""8 pixels along a diagonal are 6 steps, about."""
PATCH: Final = 96
MAX_PIXELS: Final = 160_000
"""Larger images are looked at in a grid of patches of 96 pixels."""
PATCHES: Final = 4
"""Patches per side of the grid."""
FULL_SIZE_PATCHES: Final = 6
"""At full size, where a patch shows less of the scene and 4 x 4 may miss all that is in focus."""
BLOCK: Final = 8
"""Side of a JPEG's coded blocks: at low quality their borders are steps, which blur never made."""
TEXTURED: Final = 3.5
"""Mean coarse difference, in gray levels, from which a tile counts as textured."""
QUANTIZATION: Final = 0.56
"""Mean second difference of mere rounding to 8 bits: sqrt(6 / 12 * 2 / pi)."""
JPEG_QUANTIZATION: Final = 0.8
"""The same where coefficients were rounded as well. Even blocks do not show it, so it cannot be
read from the calmest tiles. It is 0.98 at quality 100 (three roundings) and less the coarser the
tables are; with 0.98 for all, three times as many sharp pictures of quality 75 fall below the
limit."""
MAX_NOISE: Final = 3.4
"""Beyond this (sigma of about 1.7 levels) the calmest tiles pass for noise only if they are white,
that is equally rough at both distances (``WHITE``); otherwise they are texture."""
WHITE: Final = 0.85
NOISE_PER_SIGMA: Final = math.sqrt(6) * math.sqrt(2 / math.pi)
"""Mean absolute second difference of Gaussian noise of standard deviation 1."""
TYPICAL: Final = 0.4
"""A direction this sharp is sharp in its own right, however much sharper another one is."""
TYPICAL_DIAGONAL: Final = 0.55
"""The same of a diagonal, whose steps are longer."""
DIAGONAL_SCALE: Final = ((0.0, 0.5, 0.6, 0.75), (0.0, 0.2, 0.35, 1.0))
"""One diagonal over the other, and the evenness that it stands for."""


@dataclass(frozen=True, slots=True)
class Sharpness:
    """The result of the tiles; ``ratio`` and ``evenness`` are None without a textured tile."""

    textured_share: float
    """Share of the tiles with enough structure to judge."""
    ratio: float | None
    """Fine over coarse detail in the sharpest tenth of the textured tiles: 0.2 to 0.9 if sharp."""
    evenness: float | None
    """The least sharp of four directions over the sharpest, or over ``TYPICAL`` if that is more
    lenient (stripes are sharp in one direction only): low under motion blur."""
    noise: float
    """Standard deviation of the noise on the calmest tiles, in gray levels."""

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """Ratio and evenness, as far as known, under their stored names."""
        found = {f"sharpness{suffix}": self.ratio, f"motion_evenness{suffix}": self.evenness}
        return {name: value for name, value in found.items() if value is not None}


def sharpness(luma: Luma) -> Sharpness:
    """Judge (H, W) uint8 luma at the scale it has. Images under 50 pixels have no tile."""
    return _judge(luma, PATCHES, QUANTIZATION, within_blocks=False)


def full_size_sharpness(luma: Luma) -> Sharpness:
    """Judge a JPEG at full size.

    luma: (H, W) uint8, upright or not, but with the coded blocks starting at its corner.
    """
    return _judge(luma, FULL_SIZE_PATCHES, JPEG_QUANTIZATION, within_blocks=True)


def _judge(luma: Luma, per_side: int, least_noise: float, *, within_blocks: bool) -> Sharpness:
    patches = _patches(luma, per_side, BLOCK if within_blocks else 1)
    if patches is None:
        return Sharpness(0.0, None, None, 0.0)
    horizontal, vertical = (
        _tiles(patches, step, within_blocks=within_blocks) for step in ((0, 1), (1, 0))
    )
    noise = np.array([_noise(horizontal, least_noise), _noise(vertical, least_noise)])
    fine, coarse = (
        _less(horizontal[scale], noise[0]) + _less(vertical[scale], noise[1]) for scale in (0, 1)
    )
    textured = coarse > 2 * TEXTURED
    sigma = math.sqrt(max(0.0, float(noise.min()) ** 2 - least_noise**2)) / NOISE_PER_SIGMA
    if not textured.any():
        return Sharpness(0.0, None, None, sigma)
    ratio = _quantile(fine[textured] / coarse[textured], 0.9)
    diagonals = (_tiles(patches, step, within_blocks=within_blocks) for step in ((1, 1), (1, -1)))
    evenness = _evenness((horizontal, vertical, *diagonals), textured, noise)
    return Sharpness(float(textured.mean()), ratio, evenness, sigma)


def _evenness(
    directions: tuple[_Floats, ...], textured: NDArray[np.bool_], noise: _Floats
) -> float | None:
    """directions: tiles of horizontal, vertical and both diagonal differences."""
    ratios: list[float] = []
    for tiles, floor in zip(directions, (*noise, noise.mean(), noise.mean()), strict=True):
        fine, coarse = (_less(tiles[scale][textured], floor).sum() for scale in (0, 1))
        if coarse > 0:
            ratios.append(float(fine / coarse))
    if not ratios or max(ratios) <= 0:
        return None
    of_all = min(1.0, max(min(ratios) / max(ratios), min(ratios) / TYPICAL))
    return min(of_all, _diagonal_evenness(ratios[2:]))


def _diagonal_evenness(ratios: list[float]) -> float:
    """The same of the two diagonals alone, on the scale of all four. A grid of pixels holds less
    detail along diagonals to begin with, so all four together find diagonal motion half as often;
    but a scene is as sharp along one diagonal as along the other (0.72 at least, of 112)."""
    if len(ratios) < 2 or max(ratios) <= 0:
        return 1.0
    contrast = max(min(ratios) / max(ratios), min(ratios) / TYPICAL_DIAGONAL)
    return float(np.interp(contrast, *DIAGONAL_SCALE))


def _noise(tiles: _Floats, least: float) -> float:
    """The calmest tiles' mean fine difference, as far as it is noise."""
    fine, coarse = tiles
    calm = _quantile(fine, 0.05)
    white = calm >= WHITE * _quantile(coarse, 0.05)
    return float(np.clip(calm, least, None if white else MAX_NOISE))


def _quantile(values: _Floats, share: float) -> float:
    """Interpolated as numpy does it by default, at a tenth of the time for some hundred values."""
    ordered = np.sort(values)
    at = share * (ordered.size - 1)
    low = int(at)
    high = min(low + 1, ordered.size - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def _less(energy: _Floats, noise: float) -> _Floats:
    """Energy without the noise's part: independent parts add up in squares."""
    return np.sqrt(np.maximum(energy**2 - noise**2, 0.0))


def _patches(luma: Luma, per_side: int, multiple: int) -> _Patches | None:
    """The image, or a grid of patches of it, each with a border of ``COARSE`` around its tiles."""
    height, width = luma.shape
    border = 2 * COARSE
    if min(height, width) < TILE + border:
        return None
    if height * width <= MAX_PIXELS:
        return luma[np.newaxis].astype(np.int16)
    rows, columns = (
        _spread(side, min(PATCH + border, side), per_side, multiple) for side in (height, width)
    )
    return np.stack([luma[row, column] for row in rows for column in columns]).astype(np.int16)


def _spread(side: int, length: int, most: int, multiple: int) -> list[slice]:
    """Up to ``most`` equally spaced stretches of ``length`` within ``side``, without overlap, that
    start at a multiple of ``multiple``."""
    count = max(1, min(most, side // length))
    starts = np.linspace(0, side - length, count).astype(int) // multiple * multiple
    return [slice(int(start), int(start) + length) for start in starts]


def _tiles(patches: _Patches, step: tuple[int, int], *, within_blocks: bool) -> _Floats:
    """(2, T) mean absolute second differences per tile: fine, coarse."""
    coarse = COARSE if 0 in step else DIAGONAL_COARSE
    return np.stack([
        _second_difference(patches, step, distance, within_blocks=within_blocks)
        for distance in (FINE, coarse)
    ])  # fmt: skip


def _second_difference(
    patches: _Patches, step: tuple[int, int], distance: int, *, within_blocks: bool
) -> _Floats:
    count, height, width = patches.shape
    tall = (height - 2 * COARSE) // TILE * TILE
    wide = (width - 2 * COARSE) // TILE * TILE

    def window(dy: int, dx: int) -> NDArray[np.int16]:
        return patches[:, COARSE + dy : COARSE + dy + tall, COARSE + dx : COARSE + dx + wide]

    dy, dx = step[0] * distance, step[1] * distance
    difference = window(0, 0) * np.int16(2)
    difference -= window(dy, dx)
    difference -= window(-dy, -dx)
    np.abs(difference, out=difference)
    if within_blocks:  # what reaches over a border along the step is left out
        for axis in (1, 2):
            if step[axis - 1]:
                place = np.arange(difference.shape[axis]) % BLOCK
                difference = difference.compress((place > 0) & (place < BLOCK - 1), axis=axis)
    # 32 rows of at most 510 fit 16 bits, which makes this cheap
    down, across = tall // TILE, wide // TILE
    rows = difference.view(np.uint16).reshape(count, down, -1, difference.shape[2])
    columns = rows.sum(axis=2, dtype=np.uint16).reshape(count, down, across, -1)
    pixels = difference.size // (count * down * across)
    means: _Floats = columns.sum(axis=3, dtype=np.uint32).reshape(-1) / float(pixels)
    return means
