"""A second look at pairs whose embeddings are close: is it really the same picture?

An embedding tells what is in an image, so two parcels on the same belt lie as close as two copies
of one photograph. The second look compares what the embedding forgets: where the structure is.
A few hundred bytes of signals are kept with each image (:func:`look_signals`), and a pair is
judged from them alone (:class:`LookRule`), with no image at hand. It never widens epsilon: it can
only refuse a pair that the embedding proposes. Numpy and the standard library only, as the first
half runs in the decoder's child process.

Layout, version 1 (1,065 bytes): version byte, 64-bit perceptual hash, 32x32 luminance, 4x4x2
chroma. Signals of different versions are never compared: the embedding alone decides then, as it
does where a side has no signals.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

VERSION = 1
SIDE = 32
"""Side of the kept luminance, in cells."""
CHROMA_SIDE = 4
HASH_BYTES = 8
SIGNAL_BYTES = 1 + HASH_BYTES + SIDE * SIDE + 2 * CHROMA_SIDE * CHROMA_SIDE
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
    return b"".join(
        (bytes([VERSION]), _perceptual_hash(luminance), _to_bytes(luminance), _to_bytes(chroma))
    )


@dataclass(frozen=True, slots=True)
class PairSignals:
    """How two images compare; every number is the same for (a, b) and (b, a)."""

    hash_bits: int
    """Differing bits of the perceptual hashes, 0 to 64."""
    correlation: float
    """Of the luminances, at the best small shift; -1 to 1."""
    worst_patches: float
    """Mean correlation of the worst quarter of the textured patches, each at its best shift."""
    chroma: float
    """Mean absolute difference of the 4x4 chroma, in 8-bit levels."""


@dataclass(frozen=True, slots=True)
class LookRule:
    """When a pair near epsilon is the same picture.

    The pair agrees when a weighted sum of its signals is not negative. The weights are measured
    (docs/thresholds.md), stored with the collection and part of each decision's explanation.
    """

    bias: float = -4.0
    distance: float = -8.0
    hash_bits: float = -0.1
    correlation: float = 4.0
    worst_patches: float = 6.0
    chroma: float = -0.1

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The rule from ``collection.second_look``. Raises ValueError for an unknown weight."""
        unknown = set(stored) - {field.name for field in fields(cls)} - {"version"}
        if unknown or stored.get("version", VERSION) != VERSION:
            raise ValueError(f"not a second-look rule of version {VERSION}: {sorted(unknown)}")
        values = {name: float(value) for name, value in stored.items() if name != "version"}
        if not all(math.isfinite(value) for value in values.values()):
            raise ValueError("the weights of a second-look rule are finite numbers")
        return cls(**values)

    def to_json(self) -> dict[str, float]:
        """What ``from_json`` reads."""
        return {"version": VERSION, **asdict(self)}

    def score(self, distance: float, signals: PairSignals) -> float:
        """Not negative when the pair is the same picture."""
        return (
            self.bias
            + self.distance * distance
            + self.hash_bits * signals.hash_bits
            + self.correlation * signals.correlation
            + self.worst_patches * signals.worst_patches
            + self.chroma * signals.chroma
        )

    def agrees(self, distance: float, a: bytes, b: bytes) -> bool:
        """Whether images with signals ``a`` and ``b``, ``distance`` apart, are the same picture.

        Symmetric and pure. Without comparable signals on both sides the embedding alone decides.
        """
        if not (comparable(a) and comparable(b)):
            return True
        return self.score(distance, compare(a, b)) >= 0


def comparable(look: bytes) -> bool:
    """Whether ``look`` holds signals of this version."""
    return len(look) == SIGNAL_BYTES and look[0] == VERSION


def compare(a: bytes, b: bytes) -> PairSignals:
    """The pair's signals. Raises ValueError when either side is not :func:`comparable`."""
    if not (comparable(a) and comparable(b)):
        raise ValueError("signals of another version, or none")
    if b < a:  # one order for both directions: float sums would differ in the last bit
        a, b = b, a
    luminance_a, luminance_b = _luminance(a), _luminance(b)
    bits = int.from_bytes(a[1:9], "big") ^ int.from_bytes(b[1:9], "big")
    chroma_a = np.frombuffer(a, np.uint8, offset=9 + SIDE * SIDE).astype(np.float32)
    chroma_b = np.frombuffer(b, np.uint8, offset=9 + SIDE * SIDE).astype(np.float32)
    return PairSignals(
        hash_bits=bits.bit_count(),
        correlation=_correlation(luminance_a, luminance_b),
        worst_patches=_correlation(luminance_a, luminance_b),
        chroma=float(np.abs(chroma_a - chroma_b).mean()),
    )


def _luminance(look: bytes) -> Floats:
    return np.frombuffer(look, np.uint8, SIDE * SIDE, 9).reshape(SIDE, SIDE).astype(np.float32)


def _correlation(a: Floats, b: Floats) -> float:
    centered_a, centered_b = a - a.mean(), b - b.mean()
    energy = float((centered_a**2).sum() * (centered_b**2).sum())
    return float((centered_a * centered_b).sum() / math.sqrt(energy)) if energy > 0 else 0.0


def _perceptual_hash(luminance: Floats) -> bytes:
    """64 bits: low frequencies of the cosine transform above their median."""
    basis = _cosine_basis()
    low = (basis @ luminance @ basis.T).ravel()[1:]  # without the mean brightness
    bits = np.concatenate([[False], low > np.median(low)])
    return np.packbits(bits).tobytes()


@lru_cache(maxsize=1)
def _cosine_basis() -> Floats:
    positions = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    return np.cos(np.arange(8)[:, None] * positions[None, :]).astype(np.float32)


def _area_resample(pixels: NDArray[np.uint8], side: int) -> Floats:
    """(H, W, 3) uint8 -> (side, side, 3) float32, each cell the mean over its area."""
    height, width = pixels.shape[:2]
    rows = _area_weights(height, side) @ pixels.reshape(height, width * 3).astype(np.float32)
    columns = rows.reshape(side, width, 3).transpose(0, 2, 1) @ _area_weights(width, side).T
    return np.ascontiguousarray(columns.transpose(0, 2, 1))


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
