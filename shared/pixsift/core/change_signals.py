"""The signals of an image from which a later comparison sees whether its scene has changed. They
are stored next to the signals of :mod:`pixsift.core.second_look` and have a version of their own.
Numpy and the standard library only: they are made in the decoder's child process.

Layout, version 1 (3,921 bytes): version byte; luminance of 56x56 cells; one bit per cell, whether a
share of its pixels is clipped; 14x14 cells of two color differences. Colors are stored but not
compared: at this size they did not help to find changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = tuple[tuple[float, float, float, float], ...]
"""Boxes (left, top, right, bottom) in shares of the frame."""

VERSION: Final = 1
SIDE: Final = 56
CHROMA_SIDE: Final = 14
_BITS = SIDE * SIDE // 8
_LUMA_AT, _CLIP_AT = 1, 1 + SIDE * SIDE
_CHROMA_AT = _CLIP_AT + _BITS
SIGNAL_BYTES: Final = _CHROMA_AT + 2 * CHROMA_SIDE * CHROMA_SIDE
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG
CLIPPED_LOW, CLIPPED_HIGH = 4, 251
CLIPPED_SHARE = 0.1


def change_signals(pixels: NDArray[np.uint8]) -> bytes:
    """The signals of one image.

    pixels: (H, W, 3) uint8, upright sRGB, at least 1x1; the decode recipe's pixels, since the cost
    grows with the size. Returns ``SIGNAL_BYTES`` bytes. Deterministic.
    """
    small = area_mean(pixels.astype(np.float32), SIDE)
    luminance = small @ _LUMA
    # Channel by channel: numpy's max over an axis of three takes about 25 times as long.
    brightest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    extreme = (brightest >= CLIPPED_HIGH) | (brightest <= CLIPPED_LOW)
    clipped = area_mean(extreme.astype(np.float32)[..., None], SIDE)[..., 0]
    chroma = np.stack([small[..., 0] - luminance, small[..., 2] - luminance], axis=-1) / 2 + 128
    step = SIDE // CHROMA_SIDE
    chroma = chroma.reshape(CHROMA_SIDE, step, CHROMA_SIDE, step, 2).mean(axis=(1, 3))
    bits = np.packbits((clipped > CLIPPED_SHARE).ravel())
    return bytes([VERSION]) + _to_bytes(luminance) + bits.tobytes() + _to_bytes(chroma)


def cells_outside(mask: Mask, side: int) -> NDArray[np.bool_] | None:
    """(side, side): cells at least one cell away from every box of the mask; None: all cells."""
    if not mask:
        return None
    outside = np.ones((side, side), bool)
    for left, top, right, bottom in mask:
        rows = slice(max(0, math.floor(top * side) - 1), math.ceil(bottom * side) + 1)
        columns = slice(max(0, math.floor(left * side) - 1), math.ceil(right * side) + 1)
        outside[rows, columns] = False
    return outside


def comparable(signals: bytes) -> bool:
    """Whether ``signals`` are of this version."""
    return len(signals) == SIGNAL_BYTES and signals[0] == VERSION


def area_mean(values: Floats, side: int) -> Floats:
    """(H, W, C) -> (side, side, C): each cell the mean over its area."""
    height, width, channels = values.shape
    down = _area_weights(height, side) @ values.reshape(height, width * channels)
    across = down.reshape(side, width, channels).transpose(0, 2, 1) @ _area_weights(width, side).T
    return np.ascontiguousarray(across.transpose(0, 2, 1))


@lru_cache(maxsize=64)
def _area_weights(length: int, side: int) -> Floats:
    """(side, length): row i averages the stretch [i, i+1) * length / side; rows sum to one."""
    edges = np.arange(side + 1) * (length / side)
    starts, ends = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None, :]
    overlap = np.clip(np.minimum(ends, pixel + 1) - np.maximum(starts, pixel), 0, None)
    weights: Floats = (overlap * (side / length)).astype(np.float32)
    return weights


def _to_bytes(values: Floats) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """The signals of P images, as arrays."""

    luminance: Floats
    """(P, 56, 56) levels."""
    clipped: NDArray[np.bool_]
    """(P, 56, 56)."""
    chroma: Floats
    """(P, 2, 14, 14) levels around 128."""


def unpack(signals: Sequence[bytes]) -> Signals:
    """Raises ValueError unless every one is :func:`comparable`."""
    if not all(map(comparable, signals)):
        raise ValueError("change signals of another version, or none")
    raw = np.frombuffer(b"".join(signals), np.uint8).reshape(len(signals), SIGNAL_BYTES)
    luminance = raw[:, _LUMA_AT:_CLIP_AT].reshape(-1, SIDE, SIDE).astype(np.float32)
    bits = np.unpackbits(raw[:, _CLIP_AT:_CHROMA_AT], axis=1).reshape(-1, SIDE, SIDE)
    chroma = raw[:, _CHROMA_AT:].reshape(-1, CHROMA_SIDE, CHROMA_SIDE, 2).transpose(0, 3, 1, 2)
    return Signals(luminance, bits.astype(bool), chroma.astype(np.float32))
