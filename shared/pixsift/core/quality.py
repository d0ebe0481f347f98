"""Quality of one image: metrics as numbers first, verdicts second.

``measure`` looks at pixels once and returns plain numbers; ``judge`` compares them with a
collection's policy. The numbers are stored with the object, so a policy can change without
decoding anything again.

Scale: metrics are taken on the pixels of the decode recipe, upright sRGB. A large JPEG is decoded
at 1/2, 1/4 or 1/8 of its size (``scale``). Sharpness, motion and blockiness are taken at that scale
on up to 160,000 pixels, of a larger image in a grid of patches; tone and color on an evenly spaced
subsample (``TONE_PIXELS``). Blur finer than that scale is not seen there: ``sharpness_full`` and
``motion_evenness_full`` are those of tiles at full size, taken only where ``hidden_detail`` gives
reason to suspect blur.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pixsift.core.images import ImageFacts, Pixels
from pixsift.core.sharpness import Luma, sharpness

Action = Literal["off", "flag", "reject"]

TONE_PIXELS: Final = 2**16
COLOR_PIXELS: Final = 2**14
BLOCK: Final = 16
"""Side of the smallest thing that counts as shown; hot pixels are smaller."""

METRICS: Final[Mapping[str, str]] = {
    "brightness": "mean luma, 0 to 1",
    "brightness_p01": "luma that 1 % of the pixels do not exceed",
    "brightness_p05": "luma that 5 % of the pixels do not exceed",
    "brightness_p95": "luma that 95 % of the pixels do not exceed",
    "brightness_p99": "luma that 99 % of the pixels do not exceed",
    "brightest_block": "mean luma of the brightest block of 16 x 16 pixels",
    "darkest_block": "mean luma of the darkest block of 16 x 16 pixels",
    "contrast": "brightness_p95 - brightness_p05",
    "over_exposed": "share of pixels with luma of 250 or more",
    "under_exposed": "share of pixels with luma of 5 or less",
    "entropy_bits": "entropy of the luma histogram, 0 to 8 bits",
    "shown_bits": "entropy_bits, or twice brightest_block - darkest_block where that is more",
    "colorfulness": "Hasler and Suesstrunk 2003, 0 (gray) to about 100",
    "channel_balance": "brightest of the weakest color channel over that of the strongest",
    "sharpness": "fine over coarse detail where there is texture; absent without texture",
    "motion_evenness": "sharpness of the least sharp direction over the sharpest",
    "textured_share": "share of tiles with enough structure to judge sharpness",
    "noise": "standard deviation of noise on the calmest tiles, gray levels",
    "blockiness": "steps at the 8-pixel grid over steps elsewhere, minus 1",
    "shorter_side": "of the file's picture, pixels",
    "aspect": "longer side over shorter",
    "bits_per_pixel": "coded size of a JPEG over its full-size pixels; depends on the encoder",
    "hidden_detail": "coded size per pixel of a JPEG over that of its scaled picture coded alike",
    "sharpness_full": "sharpness at full size of a scaled JPEG; absent where no blur is suspected",
    "motion_evenness_full": "motion_evenness at full size of a scaled JPEG; absent likewise",
    "gray_band": "share of a JPEG's rows, from the bottom up, in a decoder's gray for missing data",
    "range_used": "share of a deep frame's declared range that it uses; absent unless stretched",
    "stray_bytes": "bytes too many before a JPEG's restart and end markers; absent if none",
    "missing_end": "1 where only the file's end is missing; absent otherwise",
    "bad_checksum": "chunks of a PNG other than its picture with a wrong checksum; absent if none",
    "header_warning": "oddities in a JPEG's header; absent if none",
    "scale": "factor at which a JPEG was decoded: 1, 0.5, 0.25 or 0.125",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what a metric must satisfy, and what happens when it does not."""

    metric: str
    action: Action
    minimum: float | None = None
    maximum: float | None = None


DEFAULT_CHECKS: Final[Mapping[str, Check]] = {
    # certainly useless: nothing can be seen
    "black": Check("brightest_block", "reject", minimum=0.02),
    "white": Check("darkest_block", "reject", maximum=0.98),
    "blank": Check("shown_bits", "reject", minimum=0.05),
    # worth a look; a team decides per collection
    "dark": Check("brightness_p99", "flag", minimum=0.25),
    "bright": Check("brightness", "flag", maximum=0.85),
    "over_exposed": Check("over_exposed", "flag", maximum=0.5),
    "under_exposed": Check("under_exposed", "flag", maximum=0.5),
    "low_contrast": Check("contrast", "flag", minimum=0.08),
    "low_information": Check("entropy_bits", "flag", minimum=3.0),
    "blurred": Check("sharpness", "flag", minimum=0.1),
    "motion_blurred": Check("motion_evenness", "flag", minimum=0.35),
    "blurred_full": Check("sharpness_full", "flag", minimum=0.05),
    "motion_blurred_full": Check("motion_evenness_full", "flag", minimum=0.25),
    "noisy": Check("noise", "off", maximum=4.0),
    "blocky": Check("blockiness", "off", maximum=1.5),
    "low_detail": Check("bits_per_pixel", "off", minimum=0.5),
    "gray": Check("colorfulness", "off", minimum=1.0),
    "dead_channel": Check("channel_balance", "flag", minimum=0.02),
    "gray_band": Check("gray_band", "flag", maximum=1 / 16),
    "odd_size": Check("shorter_side", "flag", minimum=32),
    "odd_aspect": Check("aspect", "flag", maximum=5.0),
    # every pixel is right, but the file was written wrongly
    "stray_bytes": Check("stray_bytes", "flag", maximum=0.0),
    "missing_end": Check("missing_end", "flag", maximum=0.0),
    "bad_checksum": Check("bad_checksum", "flag", maximum=0.0),
    "header_warning": Check("header_warning", "off", maximum=0.0),
    "stretched": Check("range_used", "off", minimum=0.5),
}
FILE_CHECKS: Final = frozenset(
    {"stray_bytes", "missing_end", "bad_checksum", "header_warning", "stretched"}
)
"""Checks of how the file was written: their flags do not exclude a picture."""


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
        ValueError with the remedy for an unknown check, action, key or a limit that is not a
        number.
        """
        wanted: Any = json.loads(text) if isinstance(text, str) else text
        wanted = {} if wanted is None else wanted
        if not isinstance(wanted, Mapping):
            raise ValueError('a quality policy is an object such as {"blurred": "reject"}')
        checks = dict(DEFAULT_CHECKS)
        for name, value in wanted.items():
            checks[name] = _check_from_json(name, value)
        return cls(checks)

    @classmethod
    def from_stored(cls, stored: str | Mapping[str, Any] | None) -> "QualityPolicy":
        """As ``from_json``, for a policy that a newer release may have stored.

        A check that this release does not know never fires; ``unknown_in`` names it. Never raises:
        images must not wait for a deployment.
        """
        wanted: Any = json.loads(stored) if isinstance(stored, str) else stored
        unknown = set(unknown_in(wanted))
        known = wanted if isinstance(wanted, Mapping) else {}
        return cls.from_json({name: known[name] for name in known if name not in unknown})

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Every check in full, as ``from_json`` reads it."""
        return {
            name: {
                "action": check.action,
                **({} if check.minimum is None else {"min": check.minimum}),
                **({} if check.maximum is None else {"max": check.maximum}),
            }
            for name, check in self.checks.items()
        }


def unknown_in(stored: Any) -> list[str]:
    """Names of the checks in a stored policy that this release cannot read."""
    if not isinstance(stored, Mapping):
        return []
    unknown = []
    for name, value in stored.items():
        try:
            _check_from_json(name, value)
        except ValueError:
            unknown.append(str(name))
    return unknown


def judge(
    metrics: Mapping[str, float], facts: ImageFacts | None, policy: QualityPolicy
) -> QualityVerdict:
    """Apply ``policy`` to the stored ``metrics``; a missing or NaN metric fires no check.

    facts: fill in size and aspect where the metrics lack them.
    """
    known = {
        **(size_metrics(facts.width, facts.height) if facts else {}),
        **_blocks_of_older(metrics),
        **metrics,
    }
    flags: list[str] = []
    rejected: str | None = None
    for name, check in policy.checks.items():
        if check.action == "off" or not _fires(check, known.get(check.metric)):
            continue
        flags.append(name)
        if check.action == "reject" and rejected is None:
            rejected = name
    return QualityVerdict(rejected, tuple(flags))


def measure(pixels: Pixels, *, luma: Luma | None = None, scale: float = 1.0) -> dict[str, float]:
    """Metrics of upright sRGB pixels; every value is finite, some may be absent.

    pixels: (H, W, 3) uint8, any size from 1 x 1. luma: the same as ``to_luma(pixels)``, where the
    caller has it already. scale: of these pixels to the file's.
    """
    if luma is None:
        luma = to_luma(pixels)
    height, width = luma.shape
    detail = sharpness(luma)
    blocks = _blocks(luma)
    metrics = {
        **_tone(_subsample(luma, TONE_PIXELS)),
        **blocks,
        **_color(_subsample(pixels, COLOR_PIXELS)),
        **size_metrics(width, height),
        "shorter_side": float(round(min(width, height) / scale)),
        "scale": scale,
        "textured_share": detail.textured_share,
        "noise": detail.noise,
        "blockiness": _blockiness(luma),
    }
    difference = blocks["brightest_block"] - blocks["darkest_block"]
    metrics["shown_bits"] = max(metrics["entropy_bits"], 2 * difference)
    return metrics | detail.metrics()


def to_luma(pixels: Pixels) -> Luma:
    """ITU-R BT.601 luma in the 16-bit arithmetic of Pillow's ``convert("L")``, bit for bit."""
    total = pixels[..., 0].astype(np.uint32) * 19595
    total += pixels[..., 1].astype(np.uint32) * 38470
    total += pixels[..., 2].astype(np.uint32) * 7471
    luma: Luma = ((total + 0x8000) >> 16).astype(np.uint8)
    return luma


def size_metrics(width: int, height: int) -> dict[str, float]:
    """The values for the checks of size and shape, of the file's picture, not the scaled one."""
    short, long = sorted((width, height))
    return {"shorter_side": float(short), "aspect": long / short}


def _blocks_of_older(metrics: Mapping[str, float]) -> dict[str, float]:
    """Objects decoded by older releases have percentiles instead of blocks; they were judged by
    those, with 0.02 where the limit for black is 0.05."""
    found = {}
    if "brightness_p99" in metrics:
        found["brightest_block"] = metrics["brightness_p99"] * (0.02 / 0.05)
    if "brightness_p01" in metrics:
        found["darkest_block"] = metrics["brightness_p01"]
    if "entropy_bits" in metrics:
        found["shown_bits"] = metrics["entropy_bits"]
    return found


def _blocks(luma: Luma) -> dict[str, float]:
    """The brightest and darkest block; a percentile does not see a lamp in a dark hall. Whole
    blocks from the top left, and from the bottom right, so that no edge is passed over."""
    height, width = luma.shape
    down, across = min(BLOCK, height), min(BLOCK, width)
    tall, wide = height // down * down, width // across * across
    least, most = 255.0, 0.0
    for part in (luma[:tall, :wide], luma[height - tall :, width - wide :]):
        # rows first: they are long, and sums of 16 bytes fit 16 bits
        rows = part.reshape(-1, down, wide).sum(axis=1, dtype=np.uint16)
        sums = rows.reshape(-1, across).sum(axis=1, dtype=np.uint32)
        least = min(least, float(sums.min()) / (down * across))
        most = max(most, float(sums.max()) / (down * across))
        if (tall, wide) == (height, width):
            break
    return {"brightest_block": most / 255, "darkest_block": least / 255}


def _tone(luma: Luma) -> dict[str, float]:
    histogram = np.bincount(luma.reshape(-1), minlength=256)
    share = np.cumsum(histogram) / luma.size
    p01, p05, p95, p99 = (
        float(np.searchsorted(share, level) / 255) for level in (0.01, 0.05, 0.95, 0.99)
    )
    probabilities = histogram[histogram > 0] / luma.size
    return {
        "brightness": float(np.dot(histogram, np.arange(256)) / luma.size / 255),
        "brightness_p01": p01,
        "brightness_p05": p05,
        "brightness_p95": p95,
        "brightness_p99": p99,
        "contrast": p95 - p05,
        "over_exposed": float(histogram[250:].sum() / luma.size),
        "under_exposed": float(histogram[:6].sum() / luma.size),
        "entropy_bits": abs(float(np.sum(probabilities * np.log2(probabilities)))),
    }


def _color(pixels: Pixels) -> dict[str, float]:
    """Colorfulness after Hasler and Suesstrunk 2003 (doi:10.1117/12.477378), and dead channels."""
    red, green, blue = (pixels[..., i].astype(np.float32).reshape(-1) for i in range(3))
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = math.hypot(float(red_green.std()), float(yellow_blue.std()))
    offset = math.hypot(float(red_green.mean()), float(yellow_blue.mean()))
    tops = sorted(_percentile_99(pixels[..., i]) for i in range(3))
    return {
        "colorfulness": spread + 0.3 * offset,
        "channel_balance": tops[0] / tops[2] if tops[2] > 0 else 1.0,
    }


def _percentile_99(channel: NDArray[np.uint8]) -> float:
    share = np.cumsum(np.bincount(channel.reshape(-1), minlength=256)) / channel.size
    return float(np.searchsorted(share, 0.99))


def _blockiness(luma: Luma) -> float:
    """Mean step across the strongest of eight grid phases over that across the others, minus 1."""
    return max(0.0, sum(_grid_excess(_subrows(image)) for image in (luma, luma.T)) / 2)


def _grid_excess(rows: NDArray[np.uint8]) -> float:
    if rows.shape[1] < 24:
        return 0.0
    steps = np.abs(np.diff(rows.astype(np.int16), axis=1)).mean(axis=0)
    whole = steps[: len(steps) // 8 * 8].reshape(-1, 8).mean(axis=0)
    strongest = float(whole.max())
    others = (float(whole.sum()) - strongest) / 7
    return min(strongest / others - 1.0, 100.0) if others > 0.05 else 0.0


def _subrows(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Up to about 64 evenly spaced rows."""
    return luma[:: max(1, luma.shape[0] // 64)]


def _subsample(array: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Every n-th row and column, with n such that about ``pixels`` remain."""
    step = max(1, round(math.sqrt(array.shape[0] * array.shape[1] / pixels)))
    return array[::step, ::step]


def _fires(check: Check, value: float | None) -> bool:
    if value is None or math.isnan(value):
        return False
    too_low = check.minimum is not None and value < check.minimum
    return too_low or (check.maximum is not None and value > check.maximum)


def _check_from_json(name: str, value: Any) -> Check:
    default = DEFAULT_CHECKS.get(name)
    if default is None:
        raise ValueError(f"unknown quality check {name!r}; known: {', '.join(DEFAULT_CHECKS)}")
    settings: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"action": value}
    unknown = sorted(set(settings) - {"action", "min", "max"})
    if unknown:
        raise ValueError(f"quality check {name!r}: unknown {unknown}; use action, min, max")
    action = settings.get("action", default.action)
    if action not in get_args(Action):
        raise ValueError(f"quality check {name!r}: action is off, flag or reject, not {action!r}")
    limits = [settings.get("min", default.minimum), settings.get("max", default.maximum)]
    for limit in limits:
        if limit is not None and not _is_number(limit):
            raise ValueError(f"quality check {name!r}: min and max are numbers, not {limit!r}")
    return Check(default.metric, action, minimum=limits[0], maximum=limits[1])


def _is_number(value: Any) -> bool:
    """A finite number: JSON of Python knows NaN and Infinity, that of the ledger does not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
