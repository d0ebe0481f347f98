"""Health of a camera over time: frozen frames and drifting exposure, from facts already stored.

No image is read again. Equal pixel hashes mean a frozen camera: even a still scene has sensor
noise, so equal pixels mean that nothing new was captured. Drift is found from the stored
brightness.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MAD_TO_SIGMA: Final = 1.4826
"""Median absolute deviation of a normal distribution to its standard deviation."""
_MOST_POINTS: Final = 400
"""Theil-Sen looks at all pairs: longer series are thinned evenly to this many."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera."""

    uri: str
    camera: str
    seconds: float
    """When it was captured, seconds since the epoch (or when it arrived, if nothing is known)."""
    pixel_sha256: bytes
    brightness: float | None
    """Mean luma, 0 to 1."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """From where on a camera is reported."""

    stuck_frames: int = 5
    """Equal frames in a row that count as frozen."""
    drift: float = 0.1
    """Change of mean brightness over the whole span, 0 to 1."""
    drift_scatter: float = 2.0
    """The change must also be this many times the scatter around the trend."""
    least_frames: int = 20
    """With fewer, no drift is reported."""


@dataclass(frozen=True, slots=True)
class StuckRun:
    """Frames in a row with equal pixels."""

    first: Frame
    last: Frame
    frames: int

    @property
    def seconds(self) -> float:
        """How long the camera has shown the same."""
        return self.last.seconds - self.first.seconds


@dataclass(frozen=True, slots=True)
class Drift:
    """The trend of the brightness: a robust line through all frames."""

    change: float
    """Over the whole span; below 0 the images get darker."""
    per_hour: float
    scatter: float
    """Standard deviation around the line, estimated robustly."""


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """What is known of one camera."""

    camera: str
    frames: int
    stuck: tuple[StuckRun, ...] = field(default=())
    drift: Drift | None = None
    drifts: bool = False
    """Whether ``drift`` is beyond the limits."""

    @property
    def healthy(self) -> bool:
        """Nothing to report."""
        return not self.stuck and not self.drifts


def camera_health(
    frames: Iterable[Frame], limits: HealthLimits | None = None
) -> list[CameraHealth]:
    """Judge every camera among ``frames``, in any order; sorted by name."""
    limits = limits or HealthLimits()
    ordered = sorted(frames, key=lambda frame: (frame.camera, frame.seconds, frame.uri))
    return [
        _judge(camera, list(own), limits)
        for camera, own in groupby(ordered, key=lambda frame: frame.camera)
    ]


def stuck_runs(frames: Sequence[Frame], least: int) -> list[StuckRun]:
    """Runs of at least ``least`` equal frames; frames of one camera in order of time."""
    runs = [list(run) for _, run in groupby(frames, key=lambda frame: frame.pixel_sha256)]
    return [StuckRun(run[0], run[-1], len(run)) for run in runs if len(run) >= least]


def exposure_drift(frames: Sequence[Frame], least: int = 20) -> Drift | None:
    """Theil-Sen line through the brightness of one camera; None for too few frames or no span.

    The median of all pairwise slopes tolerates up to 29 % of outliers (Sen 1968,
    doi:10.1080/01621459.1968.10480934). A full cycle of day and night does not count as drift; half
    a cycle does.
    """
    known = [(f.seconds, f.brightness) for f in frames if f.brightness is not None]
    if len(known) < least:
        return None
    times, values = np.array(known, np.float64).T
    span = float(times.max() - times.min())
    if span <= 0:
        return None
    slope = _median_slope(*_thinned(times, values))
    residuals = values - slope * (times - times[0])
    scatter = _MAD_TO_SIGMA * float(np.median(np.abs(residuals - np.median(residuals))))
    return Drift(slope * span, slope * 3600, scatter)


def _judge(camera: str, frames: list[Frame], limits: HealthLimits) -> CameraHealth:
    drift = exposure_drift(frames, limits.least_frames)
    drifts = drift is not None and abs(drift.change) >= max(
        limits.drift, limits.drift_scatter * drift.scatter
    )
    stuck = stuck_runs(frames, limits.stuck_frames)
    return CameraHealth(camera, len(frames), tuple(stuck), drift, drifts)


def _thinned(
    times: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(times) <= _MOST_POINTS:
        return times, values
    chosen = np.linspace(0, len(times) - 1, _MOST_POINTS).astype(int)
    return times[chosen], values[chosen]


def _median_slope(times: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    first, second = np.triu_indices(len(times), k=1)
    elapsed = times[second] - times[first]
    apart = elapsed > 0
    if not apart.any():
        return 0.0
    return float(np.median((values[second] - values[first])[apart] / elapsed[apart]))
