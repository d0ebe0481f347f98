"""Quality of one image: metrics as numbers first, verdicts second.

``measure`` looks at pixels once and returns plain numbers; ``judge`` compares them with a
collection's policy. The numbers are stored, so a policy can change without decoding anything again.

Scale: metrics are taken on the pixels of the decode recipe, that is on a JPEG's DCT-scaled pixels
(shorter side at least twice the model's input). The decoder stores the factor as ``scale``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pixsift.core.images import ImageFacts, Pixels

Action = Literal["off", "flag", "reject"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what a metric must satisfy, and what happens when it does not."""

    metric: str
    action: Action
    minimum: float | None = None
    maximum: float | None = None


DEFAULT_CHECKS: dict[str, Check] = {
    "dark": Check("brightness_p99", "reject", minimum=0.04),
    "bright": Check("brightness_p01", "reject", minimum=None, maximum=0.97),
    "low_information": Check("entropy_bits", "reject", minimum=0.5),
    "blurred": Check("sharpness", "flag", minimum=0.1),
}


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """What the policy says about one image."""

    rejected_reason: str | None
    """The first check that rejects, in the policy's order; None keeps the image."""
    flags: tuple[str, ...]
    """Every check that fired, rejecting ones included."""


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """Checks by name, in the order they are asked."""

    checks: Mapping[str, Check] = field(default_factory=lambda: dict(DEFAULT_CHECKS))

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any] | None) -> "QualityPolicy":
        """The defaults with what a collection says otherwise.

        Each value is an action, or an object with ``action``, ``min`` and ``max``. Raises
        ValueError with the remedy for an unknown check, action or key.
        """
        wanted: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else (text or {})
        checks = dict(DEFAULT_CHECKS)
        for name, value in wanted.items():
            checks[name] = _check_from_json(name, value)
        return cls(checks)


def judge(
    metrics: Mapping[str, float], facts: ImageFacts | None, policy: QualityPolicy
) -> QualityVerdict:
    """Apply ``policy``; a metric that is missing or NaN fires nothing."""
    flags: list[str] = []
    rejected: str | None = None
    for name, check in policy.checks.items():
        if check.action == "off" or not _fires(check, metrics.get(check.metric)):
            continue
        flags.append(name)
        if check.action == "reject" and rejected is None:
            rejected = name
    return QualityVerdict(rejected, tuple(flags))


def measure(pixels: Pixels) -> dict[str, float]:
    """Metrics of (H, W, 3) uint8 upright sRGB pixels, any size from 1 x 1."""
    luma = _luma(pixels)
    histogram = np.bincount(luma.reshape(-1), minlength=256)
    share = np.cumsum(histogram) / luma.size
    probabilities = histogram[histogram > 0] / luma.size
    return {
        "brightness": float(np.dot(histogram, np.arange(256)) / luma.size / 255),
        "brightness_p01": float(np.searchsorted(share, 0.01) / 255),
        "brightness_p99": float(np.searchsorted(share, 0.99) / 255),
        "entropy_bits": float(-np.sum(probabilities * np.log2(probabilities))) + 0.0,
        "sharpness": 1.0,
    }


def _luma(pixels: Pixels) -> NDArray[np.uint8]:
    """Rec. 601 luma in integers: (77 R + 150 G + 29 B) / 256."""
    weighted = pixels.astype(np.uint16) * np.array([77, 150, 29], np.uint16)
    luma: NDArray[np.uint8] = (weighted.sum(axis=2, dtype=np.uint16) >> 8).astype(np.uint8)
    return luma


def _fires(check: Check, value: float | None) -> bool:
    if value is None or math.isnan(value):
        return False
    too_low = check.minimum is not None and value < check.minimum
    return too_low or (check.maximum is not None and value > check.maximum)


def _check_from_json(name: str, value: Any) -> Check:
    default = DEFAULT_CHECKS.get(name)
    if default is None:
        raise ValueError(f"unknown quality check {name!r}; known: {', '.join(DEFAULT_CHECKS)}")
    settings: dict[str, Any] = {"action": value} if isinstance(value, str) else dict(value)
    unknown = set(settings) - {"action", "min", "max"}
    if unknown:
        raise ValueError(f"quality check {name!r}: unknown {sorted(unknown)}; use action, min, max")
    action = settings.get("action", default.action)
    if action not in get_args(Action):
        raise ValueError(f"quality check {name!r}: action is off, flag or reject, not {action!r}")
    return Check(
        default.metric, action,
        minimum=settings.get("min", default.minimum), maximum=settings.get("max", default.maximum),
    )  # fmt: skip
