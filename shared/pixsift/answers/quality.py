"""Image quality, the health of cameras, and calibrations."""

from typing import Any

from pydantic import RootModel

from pixsift.answers.base import Answer
from pixsift.core.camera_health import Drift


class FileQuality(Answer):
    """One file of a folder."""

    image: str
    outcome: str
    reason: str | None
    checks: list[str]
    metrics: dict[str, float]


class FolderQuality(Answer):
    """The quality of a folder's images."""

    outcomes: dict[str, int]
    checks: dict[str, int]
    refusals: dict[str, int]
    policy: dict[str, Any]
    images: list[FileQuality]


class StuckRun(Answer):
    """Equal frames in a row."""

    first: str
    last: str
    frames: int
    seconds: float


class CameraReport(Answer):
    """The health of one camera over time."""

    camera: str
    frames: int
    healthy: bool
    stuck: list[StuckRun]
    drifts: bool
    drift: Drift | None


class CalibrationFile(RootModel[dict[str, Any]]):
    """A calibration, as ``Calibration.to_json`` writes it."""
