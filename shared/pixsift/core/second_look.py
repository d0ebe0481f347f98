"""A second look at pairs whose embeddings are close: is it really the same picture?

An embedding tells what is in an image, so two parcels on the same belt lie as close as two copies
of one photograph. The second look compares what the embedding forgets: where the structure is.
A kilobyte of signals is kept with each image (:func:`look_signals`), and a pair is judged from
them alone (:class:`LookRule`), with no image at hand. It never widens epsilon: it can only refuse
a pair that the embedding proposes. Numpy and the standard library only, as the first half runs in
the decoder's child process.

Pairs whose perceptual hashes differ in many bits, or whose colors differ by much, are refused at
once, in microseconds. The others are compared in three steps: one image is laid over the other
(small crop, shift, turn or zoom, found by Gauss-Newton on the small luminances); brightness is
taken out by subtracting local means; then each of 8x8 patches says how well the structures agree.
The worst quarter of the patches that have structure speaks for the pair: copies agree everywhere,
look-alikes somewhere not. Measured in docs/thresholds.md.

Layout, version 1 (1,065 bytes): version byte, perceptual hash (Zauner 2010: 8x8 lowest cosine
frequencies against their median), 32x32 luminance, 4x4x2 chroma. Signals of another
version, or none, are not compared: the embedding alone decides then.
Source of the alignment: Baker and Matthews 2004, doi:10.1023/B:VISI.0000011205.11775.fd (inverse
compositional), with a constant Hessian and Huber weights.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VERSION = 1
SIDE = 32
"""Side of the kept luminance, in cells. 64 told copies from look-alikes no better."""
CHROMA_SIDE = 4
HASH_BYTES = 8
_CELLS_AT = 1 + HASH_BYTES
_CHROMA_AT = _CELLS_AT + SIDE * SIDE
SIGNAL_BYTES = _CHROMA_AT + 2 * CHROMA_SIDE * CHROMA_SIDE
PATCH = 4
"""Side of a patch, in cells."""
MEAN_RADIUS = 2
"""Local means are over 5x5 cells."""
HASH_FLOOR = 64.0
"""Coefficient (2 levels' amplitude) below which a bit would be noise: blank walls hash alike."""
NOISE = 4.0
"""Variance, in squared levels, below which structure counts as noise of sensor and codec."""
TEXTURED = 16.0
"""Variance from which a patch has its full say."""
STEPS = 6
MAX_TURN, MAX_SHIFT = 0.25, 0.3
"""Beyond these (linear part; shift in half frames) an alignment is a coincidence."""
ANY_CHROMA = 255.0
"""As ``max_chroma``: colors never refuse a pair."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


def look_signals(pixels: NDArray[np.uint8]) -> bytes:
    """The signals of one image.

    pixels: (H, W, 3) uint8, upright sRGB, any size from 1x1; the cost grows with the size, so hand
    in the scaled-down pixels. Returns ``SIGNAL_BYTES`` bytes. Deterministic.
    """
    small = _area_resample(pixels, SIDE)
    luminance = small @ _LUMA
    chroma = np.stack([small[..., 0] - luminance, small[..., 2] - luminance], axis=-1) / 2 + 128
    cell = SIDE // CHROMA_SIDE
    chroma = chroma.reshape(CHROMA_SIDE, cell, CHROMA_SIDE, cell, 2).mean(axis=(1, 3))
    parts = (_perceptual_hash(luminance), _to_bytes(luminance), _to_bytes(chroma))
    return bytes([VERSION]) + b"".join(parts)


@dataclass(frozen=True, slots=True)
class PairSignals:
    """How two images compare; every number is the same for (a, b) and (b, a)."""

    patches: float
    """Agreement of the structured patches, weighted mean; at most 1, about 0 for strangers."""
    worst_patches: float
    """The same over the worst quarter of them."""
    chroma: float
    """Mean absolute difference of the 4x4 chroma, in 8-bit levels."""
    hash_bits: int
    """Differing bits of the 64-bit perceptual hashes."""


@dataclass(frozen=True, slots=True)
class LookRule:
    """When a pair within epsilon is the same picture.

    The pair agrees when its hashes differ in at most ``max_hash_bits``, its chroma in at most
    ``max_chroma`` levels, and a weighted sum of its signals is not negative. By default that is:
    the worst quarter of the patches agrees to at least 0.25. The structure is compared in
    luminance, so a thing of the same shape in another color is told by its chroma alone; no strong
    edit of 591 pictures reached 6.5 levels. The rule was measured on EfficientNet-Lite0
    (docs/thresholds.md), but says nothing about the embedding, so it serves other models as well;
    fits with more weights did no better. It is stored with the collection and is part of each
    decision's explanation.
    """

    bias: float = -0.25
    worst_patches: float = 1.0
    patches: float = 0.0
    chroma: float = 0.0
    distance: float = 0.0
    max_hash_bits: float = 24.0
    max_chroma: float = 6.5

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The rule from ``collection.second_look``, or what somebody typed: the rest is default.

        A stored rule names its version and every weight it decides by; one from before
        ``max_chroma`` goes on without it. Raises ValueError for an unknown weight or no number.
        """
        unknown = set(stored) - {field.name for field in fields(cls)} - {"version"}
        if unknown or stored.get("version", VERSION) != VERSION:
            raise ValueError(f"not a second-look rule of version {VERSION}: {sorted(unknown)}")
        values = {name: value for name, value in stored.items() if name != "version"}
        for name, value in values.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of a second-look rule is a finite number, not {value!r}")
        if "version" in stored:
            values = {"max_chroma": ANY_CHROMA} | values
        return cls(**{name: float(value) for name, value in values.items()})

    def to_json(self) -> dict[str, float]:
        """What ``from_json`` reads."""
        return {"version": VERSION, **asdict(self)}

    def score(self, distance: float, signals: PairSignals) -> float:
        """The weighted sum; :meth:`agrees` asks that it is not negative."""
        return (
            self.bias
            + self.distance * distance
            + self.patches * signals.patches
            + self.worst_patches * signals.worst_patches
            + self.chroma * signals.chroma
        )

    def agrees(self, distance: float, a: bytes, b: bytes) -> bool:
        """Whether images with signals ``a`` and ``b``, ``distance`` apart, are the same picture.

        Symmetric and pure. Without comparable signals on both sides the embedding alone decides.
        """
        if not (comparable(a) and comparable(b)):
            return True
        if _hash_bits(a, b) > self.max_hash_bits or _chroma_levels(a, b) > self.max_chroma:
            return False
        return self.score(distance, compare(a, b)) >= 0

    def explain(self, distance: float, a: bytes, b: bytes) -> dict[str, Any]:
        """The pair's signals, score and verdict, for ``pixsift explain``."""
        if not (comparable(a) and comparable(b)):
            return {"agrees": True, "signals": None, "why": "no comparable signals on both sides"}
        signals = compare(a, b)
        return {
            "agrees": self.agrees(distance, a, b),
            "score": self.score(distance, signals),
            "signals": asdict(signals),
        }


def comparable(look: bytes) -> bool:
    """Whether ``look`` holds signals of this version."""
    return len(look) == SIGNAL_BYTES and look[0] == VERSION


def compare(a: bytes, b: bytes) -> PairSignals:
    """The pair's signals. Raises ValueError when either side is not :func:`comparable`."""
    if not (comparable(a) and comparable(b)):
        raise ValueError("signals of another version, or none")
    if b < a:  # one order for both directions; which one does not matter
        a, b = b, a
    luminance_a, luminance_b = _luminance(a), _luminance(b)
    mean, worst = _patch_agreement(luminance_a, luminance_b, _align(luminance_a, luminance_b))
    return PairSignals(
        patches=mean,
        worst_patches=worst,
        chroma=_chroma_levels(a, b),
        hash_bits=_hash_bits(a, b),
    )


def _hash_bits(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a[1:_CELLS_AT]) ^ int.from_bytes(b[1:_CELLS_AT])).bit_count()


def _chroma_levels(a: bytes, b: bytes) -> float:
    return float(np.abs(_chroma(a) - _chroma(b)).mean())


def _perceptual_hash(luminance: NDArray[np.float32]) -> bytes:
    basis = _cosine_basis()
    low = (basis @ luminance @ basis.T).ravel()
    bits = low > np.median(low[1:]) + HASH_FLOOR
    bits[0] = False  # the mean brightness
    return np.packbits(bits).tobytes()


def _luminance(look: bytes) -> Floats:
    cells = np.frombuffer(look, np.uint8, SIDE * SIDE, _CELLS_AT)
    return cells.reshape(SIDE, SIDE).astype(np.float64)


def _chroma(look: bytes) -> Floats:
    return np.frombuffer(look, np.uint8, offset=_CHROMA_AT).astype(np.float64)


@lru_cache(maxsize=1)
def _cosine_basis() -> Floats:
    positions = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    basis: Floats = np.cos(np.arange(8)[:, None] * positions[None, :])
    return basis


# Coordinates run from -1 to 1 over the frame, so that one unit of every alignment parameter moves
# the border by the same half frame.
_HALF = (SIDE - 1) / 2
_Y, _X = (np.mgrid[0:SIDE, 0:SIDE] - _HALF) / _HALF


def _align(fixed: Floats, moving: Floats) -> Floats:
    """(2, 3) affine map from ``fixed`` coordinates to ``moving`` ones; identity when none is found.

    Brightness and contrast are fitted on the way; outliers (an overlay) weigh little.
    """
    identity = np.eye(3)[:2]
    target, source = _smooth(fixed), _smooth(moving)
    across = np.gradient(target, axis=1) * _HALF
    down = np.gradient(target, axis=0) * _HALF
    jacobian = np.stack([across * _X, across * _Y, across, down * _X, down * _Y, down]).reshape(
        6, -1
    )
    # The ridge keeps a flat image, which says nothing about position, from wandering.
    solve = np.linalg.inv(jacobian @ jacobian.T + np.eye(6) * SIDE * SIDE * 0.5) @ jacobian
    warp = np.eye(3)
    for _ in range(STEPS):
        x, y, inside = _warped(warp)
        share = inside.mean()
        if share < 0.5:
            return identity
        a = (target - (target * inside).sum() / (share * SIDE * SIDE)) * inside
        b = _sample(source, x, y)
        b = (b - (b * inside).sum() / (share * SIDE * SIDE)) * inside
        gain = (a * b).sum() / ((b * b).sum() + 1e-6)
        if gain <= 0:
            return identity
        error = gain * b - a
        size = np.abs(error)
        limit = 1 + 1.5 * np.median(size)
        step = solve @ (error * np.minimum(1, limit / np.maximum(size, 1e-6))).ravel() / share
        change = np.eye(3)
        change[:2] += step.reshape(2, 3)
        warp = warp @ np.linalg.inv(change)
        if np.abs(step).max() < 0.002:  # a thirtieth of a cell
            break
    moved = np.abs(warp[:2] - identity)
    return identity if moved[:, :2].max() > MAX_TURN or moved[:, 2].max() > MAX_SHIFT else warp[:2]


def _patch_agreement(fixed: Floats, moving: Floats, warp: Floats) -> tuple[float, float]:
    """Mean agreement over structured patches, and over the worst quarter of them."""
    x, y, inside = _warped(warp, border=0.5)
    details = np.stack([_detail(fixed), _detail(_sample(moving, x, y)), inside])
    count = SIDE // PATCH
    patches = details.reshape(3, count, PATCH, count, PATCH).transpose(0, 1, 3, 2, 4)
    patches = patches.reshape(3, count * count, PATCH * PATCH)
    a, b, covered = patches
    common = covered.mean(axis=1) > 0.6
    variance_a, variance_b = (a * a).mean(axis=1)[common], (b * b).mean(axis=1)[common]
    agreement = (a * b).mean(axis=1)[common] / (np.sqrt(variance_a * variance_b) + NOISE)
    structure = np.maximum(variance_a, variance_b)
    weight = np.clip((structure - NOISE) / (TEXTURED - NOISE), 0, 1)
    if weight.sum() < 1:  # two flat images: nothing speaks against them
        return 1.0, 1.0
    order = np.argsort(agreement, kind="stable")
    quarter = order[: int(np.searchsorted(np.cumsum(weight[order]), weight.sum() / 4)) + 1]
    return (
        float((agreement * weight).sum() / weight.sum()),
        float((agreement * weight)[quarter].sum() / weight[quarter].sum()),
    )


def _warped(warp: Floats, border: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Cell coordinates (x, y) in the moving image, and 1.0 where they lie inside of it."""
    x = (warp[0, 0] * _X + warp[0, 1] * _Y + warp[0, 2]) * _HALF + _HALF
    y = (warp[1, 0] * _X + warp[1, 1] * _Y + warp[1, 2]) * _HALF + _HALF
    low, high = -border, SIDE - 1 + border
    inside = (x >= low) & (x <= high) & (y >= low) & (y <= high)
    return x, y, inside.astype(np.float64)


def _sample(image: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear values at (x, y), clamped to the image."""
    x = np.clip(x, 0, SIDE - 1.001)
    y = np.clip(y, 0, SIDE - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right_share, bottom_share = x - left, y - top
    flat, index = image.ravel(), top * SIDE + left
    upper = flat[index] * (1 - right_share) + flat[index + 1] * right_share
    lower = flat[index + SIDE] * (1 - right_share) + flat[index + SIDE + 1] * right_share
    values: Floats = upper * (1 - bottom_share) + lower * bottom_share
    return values


def _smooth(image: Floats) -> Floats:
    """Binomial 3x3."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smoothed: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return smoothed


def _detail(image: Floats) -> Floats:
    """The image less its local means."""
    size = 2 * MEAN_RADIUS + 1
    padded = np.pad(image, MEAN_RADIUS, mode="edge")
    rows = np.sum([padded[i : i + SIDE] for i in range(size)], axis=0)
    means = np.sum([rows[:, i : i + SIDE] for i in range(size)], axis=0) / (size * size)
    detail: Floats = image - means
    return detail


def _area_resample(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (side, side, 3) float32, each cell the mean over its area."""
    height, width = pixels.shape[:2]
    rows = _area_weights(height, side) @ pixels.reshape(height, width * 3).astype(np.float32)
    columns = rows.reshape(side, width, 3).transpose(0, 2, 1) @ _area_weights(width, side).T
    return np.ascontiguousarray(columns.transpose(0, 2, 1))


@lru_cache(maxsize=64)
def _area_weights(length: int, side: int) -> NDArray[np.float32]:
    """(side, length): row i averages the stretch [i, i+1) * length / side; rows sum to one."""
    edges = np.arange(side + 1) * (length / side)
    starts, ends = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None, :]
    overlap = np.clip(np.minimum(ends, pixel + 1) - np.maximum(starts, pixel), 0, None)
    weights: NDArray[np.float32] = (overlap * (side / length)).astype(np.float32)
    return weights


def _to_bytes(values: NDArray[np.float32]) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()
