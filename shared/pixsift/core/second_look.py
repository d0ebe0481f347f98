"""The second look: whether two images with close embeddings really show the same picture. An
embedding describes what is in an image, so two parcels on the same belt are as close as two copies
of one photograph. The second look compares what the embedding does not hold: where the structure
is. About a kilobyte of signals is stored with each image (:func:`look_signals`), and a pair is
judged from them alone (:class:`LookRule`), without the images. It never widens epsilon: it can
only refuse a pair that the embedding proposes. Numpy and the standard library only, as the first
half runs in the decoder's child process.

Pairs whose perceptual hashes differ in many bits, or whose colors differ by much, are refused at
once, in microseconds. The others are compared in three steps: one image is laid over the other
(small crop, shift, turn or zoom: :mod:`pixsift.core.alignment`); brightness is
taken out by subtracting local means; then each of 8x8 patches says how well the structures agree.
The worst quarter of the patches with structure decides: copies agree everywhere, look-alikes
disagree somewhere. Measured in docs/thresholds.md.

After these three steps comes the test for change (:mod:`pixsift.core.change`), which sees what is
too small for them.

Layout, version 1 (1,065 bytes): version byte, perceptual hash (Zauner 2010: 8x8 lowest cosine
frequencies against their median), 32x32 luminance, 4x4x2 chroma. Signals of another
version, or none, are not compared: the embedding alone decides then, up to the narrow epsilon.
The signals of the test for change follow, with a version of their own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixsift.core import change, change_signals
from pixsift.core.alignment import align, sample, warped
from pixsift.core.change import ChangeLimits, Changes
from pixsift.core.change_signals import Mask, cells_outside

Floats = NDArray[np.float64]
Place = tuple[float, float]
"""Shares of a frame's width and height, from the left and the top."""
Places = tuple[Place, Place]
"""One place as the two images of a pair show it."""

VERSION = 1
SIDE = 32
"""Side of the kept luminance, in cells. 64 did not separate copies from look-alikes better."""
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
"""Variance from which a patch counts in full."""
ANY_CHROMA = 255.0
"""As ``max_chroma``: colors never refuse a pair."""
ANY_CHANGE = 1e6
"""As ``max_small_change``: there is no test for change."""
_LIMITS = ChangeLimits()
WITHOUT_CHANGE = {
    "narrow": 2.0, "max_small_change": ANY_CHANGE, "max_large_change": ANY_CHANGE,
    "max_peak_change": ANY_CHANGE, "max_moving_change": ANY_CHANGE,
}  # fmt: skip
"""Of a rule without the test for change: one from an older release, or one for photographs."""
_TOGETHER = 16
"""Pairs compared at once: their arrays stay in a processor's cache."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


def look_signals(pixels: NDArray[np.uint8]) -> bytes:
    """The signals of one image.

    pixels: (H, W, 3) uint8, upright sRGB, any size from 1x1; the cost grows with the size, so hand
    in the scaled-down pixels. Returns ``SIGNAL_BYTES`` bytes and behind them those of
    :func:`pixsift.core.change_signals.change_signals`. Deterministic.
    """
    small = _area_resample(pixels, SIDE)
    luminance = small @ _LUMA
    chroma = np.stack([small[..., 0] - luminance, small[..., 2] - luminance], axis=-1) / 2 + 128
    cell = SIDE // CHROMA_SIDE
    chroma = chroma.reshape(CHROMA_SIDE, cell, CHROMA_SIDE, cell, 2).mean(axis=(1, 3))
    parts = (_perceptual_hash(luminance), _to_bytes(luminance), _to_bytes(chroma))
    return bytes([VERSION]) + b"".join(parts) + change_signals.change_signals(pixels)


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
    ``max_chroma`` levels, a weighted sum of its signals is not negative, and nothing has changed
    between the two (:class:`pixsift.core.change.ChangeLimits`). The weighted sum is by default: the
    worst quarter of the patches agrees to at least 0.25. The structure is compared in luminance, so
    a thing of the same shape in another color is recognized by its chroma alone; no strong edit of
    591 pictures reached 6.5 levels. A pair without change signals on both sides is judged up to
    ``narrow`` only, without the test for change. The rule was measured on EfficientNet-Lite0
    (docs/thresholds.md), but does not depend on the embedding, so it also serves other models; fits
    with more weights were not better. It is stored with the collection and is part of each
    decision's explanation.
    """

    bias: float = -0.25
    worst_patches: float = 1.0
    patches: float = 0.0
    chroma: float = 0.0
    distance: float = 0.0
    max_hash_bits: float = 24.0
    max_chroma: float = 6.5
    narrow: float = 0.115
    """Distance up to which pairs without change signals on both sides may agree."""
    max_small_change: float = _LIMITS.small
    max_large_change: float = _LIMITS.large
    max_peak_change: float = _LIMITS.peak
    max_moving_change: float = _LIMITS.moving
    mask: Mask = ()
    """Boxes (left, top, right, bottom) in shares of the frame where changes do not count: time
    stamps."""

    @classmethod
    def without_change(cls) -> Self:
        """The rule that has no test for change, up to any distance."""
        return cls(
            narrow=2.0, max_small_change=ANY_CHANGE, max_large_change=ANY_CHANGE,
            max_peak_change=ANY_CHANGE, max_moving_change=ANY_CHANGE,
        )  # fmt: skip

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The rule from ``collection.second_look``, or typed; missing values are defaults.

        A stored rule names its version and every weight it decides by; a rule from before
        ``max_chroma`` or the test for change works without them. Raises ValueError for an unknown
        weight or no number.
        """
        unknown = set(stored) - {field.name for field in fields(cls)} - {"version"}
        if unknown or stored.get("version", VERSION) != VERSION:
            raise ValueError(f"not a second-look rule of version {VERSION}: {sorted(unknown)}")
        values = {name: value for name, value in stored.items() if name not in ("version", "mask")}
        for name, value in values.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of a second-look rule is a finite number, not {value!r}")
        if "version" in stored:
            values = WITHOUT_CHANGE | {"max_chroma": ANY_CHROMA} | values
        numbers = {name: float(value) for name, value in values.items()}
        return cls(**numbers, mask=read_mask(stored.get("mask", ())))

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {"version": VERSION, **asdict(self), "mask": [list(box) for box in self.mask]}

    @property
    def limits(self) -> ChangeLimits | None:
        """Those of the test for change; None where the rule has none."""
        if self.max_small_change >= ANY_CHANGE:
            return None
        return ChangeLimits(
            small=self.max_small_change, large=self.max_large_change,
            peak=self.max_peak_change, moving=self.max_moving_change,
        )  # fmt: skip

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
        return self.agree([(distance, a, b)])[0]

    def agree(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        """``agrees`` of many pairs: the same answers, in a third of the time."""
        answers = [self._without_looking(*pair) for pair in pairs]
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        for start in range(0, len(waiting), _TOGETHER):
            part = waiting[start : start + _TOGETHER]
            for i, answer in zip(part, self._look([pairs[i] for i in part]), strict=True):
                answers[i] = answer
        return [bool(answer) for answer in answers]

    def _without_looking(self, distance: float, a: bytes, b: bytes) -> bool | None:
        """The verdict where no comparison is needed; None: a comparison is needed."""
        if not (comparable(a) and comparable(b)):
            return distance <= self.narrow
        if distance > self.narrow and not (has_change(a) and has_change(b)):
            return False
        if _hash_bits(a, b) > self.max_hash_bits or _chroma_levels(a, b) > self.max_chroma:
            return False
        return None

    def _look(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        compared = _compare_many([(a, b) for _, a, b in pairs], self.mask)
        agreed = [
            self.score(distance, signals) >= 0
            for (distance, _, _), signals in zip(pairs, compared.signals, strict=True)
        ]
        limits = self.limits
        asked = [
            i for i, (_, a, b) in enumerate(pairs) if agreed[i] and has_change(a) and has_change(b)
        ]
        if limits is None or not asked:
            return agreed
        changes = _changes(compared, asked, limits, self.mask)
        for i, unchanged in zip(asked, limits.unchanged(changes).tolist(), strict=True):
            agreed[i] = unchanged
        return agreed

    def change_factors(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[float | None]:
        """Times how much the limits of change must be for each pair to agree; 1: as they are.

        0: the pair agrees at any factor, as no change is looked for. None: it never does, since
        something else than a change refuses it.
        """
        answers = [self._without_looking(*pair) for pair in pairs]
        found: list[float | None] = [None if answer is False else 0.0 for answer in answers]
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        for start in range(0, len(waiting), _TOGETHER):
            part = waiting[start : start + _TOGETHER]
            for i, factor in zip(part, self._factors([pairs[i] for i in part]), strict=True):
                found[i] = factor
        return found

    def _factors(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[float | None]:
        compared = _compare_many([(a, b) for _, a, b in pairs], self.mask)
        found: list[float | None] = [
            0.0 if self.score(distance, signals) >= 0 else None
            for (distance, _, _), signals in zip(pairs, compared.signals, strict=True)
        ]
        limits = self.limits
        asked = [
            i for i, (_, a, b) in enumerate(pairs)
            if found[i] is not None and has_change(a) and has_change(b)
        ]  # fmt: skip
        if limits is None or not asked:
            return found
        # A pair that seems unchanged is looked at once more: never at the one factor, always at
        # the other, and it must pass both looks.
        first, again = (
            limits.factor(_changes(compared, asked, limits.scaled(factor), self.mask))
            for factor in (0.0, ANY_CHANGE)
        )
        for i, factor in zip(asked, np.maximum(first, again).tolist(), strict=True):
            found[i] = factor
        return found

    def places(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[Places | None]:
        """Where each pair differs most, as ``explain`` says; None: without signals of change."""
        found: list[Places | None] = [None] * len(pairs)
        able = [i for i, pair in enumerate(pairs) if all(map(has_change, pair))]
        limits = self.limits or ChangeLimits()
        for start in range(0, len(able), _TOGETHER):
            part = able[start : start + _TOGETHER]
            compared = _compare_many([pairs[i] for i in part], self.mask)
            changes = _changes(compared, range(len(part)), limits, self.mask)
            for i, (one, other) in zip(part, changes.places.tolist(), strict=True):
                swapped = pairs[i][1] < pairs[i][0]
                first, second = (other, one) if swapped else (one, other)
                found[i] = (first[0], first[1]), (second[0], second[1])
        return found

    def explain(self, distance: float, a: bytes, b: bytes) -> dict[str, Any]:
        """The pair's signals, score and verdict, where it differs most: for ``explain``."""
        if not (comparable(a) and comparable(b)):
            return {"agrees": distance <= self.narrow, "signals": None,
                    "why": "no comparable signals on both sides"}  # fmt: skip
        compared = _compare_many([(a, b)], self.mask)
        signals = compared.signals[0]
        answer: dict[str, Any] = {
            "agrees": self.agrees(distance, a, b),
            "score": self.score(distance, signals),
            "signals": asdict(signals),
        }
        if has_change(a) and has_change(b):
            limits = self.limits or ChangeLimits()
            changes = _changes(compared, [0], limits, self.mask)
            answer["change"] = _change_json(changes, limits, b < a)
            answer["change"]["counts"] = self.limits is not None
        return answer


def _change_json(found: Changes, limits: ChangeLimits, swapped: bool) -> dict[str, Any]:
    """One pair's change as plain values. swapped: the pair was compared the other way round."""
    first, second = found.places[0].tolist()
    return {
        "changed": not bool(limits.unchanged(found)[0]),
        "motion_cells": float(found.motion[0]),
        "small": float(found.small[0]),
        "large": float(found.large[0]),
        "peak": float(found.peak[0]),
        "moving": float(found.moving[0]),
        "limits": asdict(limits),
        "place": second if swapped else first,
        "place_in_other": first if swapped else second,
    }


def read_mask(boxes: Any) -> Mask:
    """Boxes from JSON. Raises ValueError unless each is four shares of the frame in order."""
    try:
        mask = tuple(tuple(float(edge) for edge in box) for box in boxes)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "the mask of a second-look rule is a list of boxes of four numbers"
        ) from error
    for box in mask:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(
                f"a box of the mask is left, top, right, bottom in shares of the frame, not {box}"
            )
    return mask  # type: ignore[return-value]


def comparable(look: bytes) -> bool:
    """Whether ``look`` holds signals of this version."""
    return len(look) >= SIGNAL_BYTES and look[0] == VERSION


def has_change(look: bytes) -> bool:
    """Whether ``look`` holds change signals behind its own."""
    return change_signals.comparable(look[SIGNAL_BYTES:])


def compare(a: bytes, b: bytes) -> PairSignals:
    """The pair's signals. Raises ValueError when either side is not :func:`comparable`."""
    return compare_many([(a, b)])[0]


def compare_many(pairs: Sequence[tuple[bytes, bytes]]) -> list[PairSignals]:
    """``compare`` of many pairs at once: the same numbers, in a third of the time."""
    return _compare_many(pairs, ()).signals


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """Pairs in one order for both directions (which one does not matter), laid over one another."""

    pairs: list[tuple[bytes, bytes]]
    warps: Floats
    signals: list[PairSignals]


def _compare_many(pairs: Sequence[tuple[bytes, bytes]], mask: Mask) -> _Compared:
    if not all(comparable(a) and comparable(b) for a, b in pairs):
        raise ValueError("signals of another version, or none")
    ordered = [(b, a) if b < a else (a, b) for a, b in pairs]
    if not ordered:
        return _Compared([], np.empty((0, 2, 3)), [])
    fixed, moving = (np.stack([_luminance(pair[i]) for pair in ordered]) for i in (0, 1))
    outside = cells_outside(mask, SIDE)
    if outside is not None:  # the same on both sides: a running time stamp must not shift it
        fixed, moving = (np.where(outside, one, (fixed + moving) / 2) for one in (fixed, moving))
    warps = align(fixed, moving)
    mean, worst = _patch_agreement(fixed, moving, warps, outside)
    signals = [
        PairSignals(float(mean[i]), float(worst[i]), _chroma_levels(a, b), _hash_bits(a, b))
        for i, (a, b) in enumerate(ordered)
    ]
    return _Compared(ordered, warps, signals)


def _changes(
    compared: _Compared, which: Sequence[int], limits: ChangeLimits, mask: Mask
) -> Changes:
    first, second = (
        change_signals.unpack([compared.pairs[i][side][SIGNAL_BYTES:] for i in which])
        for side in (0, 1)
    )
    outside = cells_outside(mask, change_signals.SIDE)
    return change.compare(
        first, second, compared.warps[list(which)], SIDE, limits=limits, outside=outside
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
    cells = np.frombuffer(look, np.uint8, SIGNAL_BYTES - _CHROMA_AT, _CHROMA_AT)
    return cells.astype(np.float64)


@lru_cache(maxsize=1)
def _cosine_basis() -> Floats:
    positions = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    basis: Floats = np.cos(np.arange(8)[:, None] * positions[None, :])
    return basis


def _patch_agreement(
    fixed: Floats, moving: Floats, warps: Floats, outside: NDArray[np.bool_] | None = None
) -> tuple[Floats, Floats]:
    """(P,) mean agreement over structured patches, and (P,) over the worst quarter of them.

    outside: (S, S), cells that no mask covers; None: all.
    """
    pairs, count = len(fixed), SIDE // PATCH
    x, y, inside = warped(warps, SIDE, border=0.5)
    if outside is not None:
        inside = inside * outside
    details = np.stack([_detail(fixed), _detail(sample(moving, x, y)), inside])
    patches = details.reshape(3, pairs, count, PATCH, count, PATCH).transpose(0, 1, 2, 4, 3, 5)
    a, b, covered = patches.reshape(3, pairs, count * count, PATCH * PATCH)
    variance_a, variance_b = (a * a).mean(axis=2), (b * b).mean(axis=2)
    agreement = (a * b).mean(axis=2) / (np.sqrt(variance_a * variance_b) + NOISE)
    structure = np.maximum(variance_a, variance_b)
    weight = np.clip((structure - NOISE) / (TEXTURED - NOISE), 0, 1)
    weight = weight * (covered.mean(axis=2) > 0.6)
    total = weight.sum(axis=1)
    order = np.argsort(agreement, axis=1, kind="stable")
    agreement = np.take_along_axis(agreement, order, axis=1)
    weight = np.take_along_axis(weight, order, axis=1)
    before = np.cumsum(weight, axis=1) - weight
    worst = weight * (before < total[:, None] / 4)
    flat = total < 1  # two flat images: nothing contradicts that they are the same
    mean = (agreement * weight).sum(axis=1) / np.where(flat, 1, total)
    low = (agreement * worst).sum(axis=1) / np.where(flat, 1, np.maximum(worst.sum(axis=1), 1e-9))
    return np.where(flat, 1.0, mean), np.where(flat, 1.0, low)


def _detail(images: Floats) -> Floats:
    """(P, S, S): the images less their local means."""
    size = 2 * MEAN_RADIUS + 1
    around = ((0, 0), (MEAN_RADIUS, MEAN_RADIUS), (MEAN_RADIUS, MEAN_RADIUS))
    padded = np.pad(images, around, mode="edge")
    rows = np.sum([padded[:, i : i + SIDE] for i in range(size)], axis=0)
    means = np.sum([rows[:, :, i : i + SIDE] for i in range(size)], axis=0) / (size * size)
    detail: Floats = images - means
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
