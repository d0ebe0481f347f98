"""Camera health: frozen frames and drift, from stored facts alone."""

from collections.abc import Callable

import numpy as np
import pytest

from pixsift.core.camera_health import (
    Frame,
    HealthLimits,
    camera_health,
    exposure_drift,
    stuck_runs,
)


def frames(
    brightness: list[float], *, camera: str = "front", pixels: list[int] | None = None
) -> list[Frame]:
    """One frame a minute; distinct pixels unless given."""
    numbers = pixels or list(range(len(brightness)))
    return [
        Frame(f"s3://raw/{camera}/{i}.jpg", camera, i * 60.0, number.to_bytes(32, "big"), value)
        for i, (value, number) in enumerate(zip(brightness, numbers, strict=True))
    ]


def series(shape: Callable[[float], float], count: int = 200, noise: float = 0.02) -> list[float]:
    rng = np.random.default_rng(5)
    return [float(shape(i / (count - 1)) + rng.normal(0, noise)) for i in range(count)]


def test_stuck__run_of_equal_frames_is_found_with_its_ends() -> None:
    run = frames([0.5] * 10, pixels=[1, 2, 3, 3, 3, 3, 3, 4, 5, 6])
    (stuck,) = stuck_runs(run, 5)
    assert (stuck.first.uri, stuck.frames, stuck.seconds) == ("s3://raw/front/2.jpg", 5, 240.0)


def test_stuck__a_shorter_run_or_a_returning_frame_is_no_run() -> None:
    assert stuck_runs(frames([0.5] * 8, pixels=[1, 1, 1, 1, 2, 1, 1, 1]), 5) == []


def test_stuck__order_of_arrival_does_not_matter_and_cameras_do_not_mix() -> None:
    left = frames([0.5] * 6, camera="left", pixels=[9] * 6)
    right = frames([0.5] * 6, camera="right")
    mixed = [frame for pair in zip(left[::-1], right, strict=True) for frame in pair]
    by_name = {health.camera: health for health in camera_health(mixed)}
    assert by_name["left"].stuck[0].frames == 6
    assert by_name["right"].healthy


@pytest.mark.parametrize(
    ("shape", "drifts"),
    [
        (lambda t: 0.5, False),
        (lambda t: 0.6 - 0.3 * t, True),  # a lens getting dirty
        (lambda t: 0.3 + 0.3 * t, True),
        (lambda t: 0.5 + 0.2 * np.sin(4 * np.pi * t), False),  # whole days
        (lambda t: 0.5 - 0.03 * t, False),  # below the limit
    ],
)
def test_drift__shapes(shape: Callable[[float], float], drifts: bool) -> None:
    (health,) = camera_health(frames(series(shape)))
    assert health.drifts is drifts


def test_drift__change_and_rate() -> None:
    drift = exposure_drift(frames(series(lambda t: 0.6 - 0.3 * t, count=121, noise=0.001)))
    assert drift is not None
    assert drift.change == pytest.approx(-0.3, abs=0.01)
    assert drift.per_hour == pytest.approx(-0.15, abs=0.005)  # 120 minutes


def test_drift__grows_with_the_dose() -> None:
    changes = []
    for dose in (0.0, 0.1, 0.2, 0.4):
        drift = exposure_drift(frames(series(lambda t, d=dose: 0.8 - d * t)))  # type: ignore[misc]
        assert drift is not None
        changes.append(drift.change)
    assert all(np.diff(changes) < 0)


def test_drift__outliers_do_not_make_a_trend() -> None:
    values = series(lambda t: 0.5)
    values[-40::2] = [0.0] * 20  # a hand before the lens, now and then
    (health,) = camera_health(frames(values))
    assert not health.drifts


def test_drift__too_few_frames_or_no_span_say_nothing() -> None:
    assert exposure_drift(frames([0.5] * 19)) is None
    assert exposure_drift([Frame("u", "c", 7.0, bytes(32), 0.5)] * 30) is None


def test_drift__long_series_are_thinned_not_refused() -> None:
    (health,) = camera_health(
        frames(series(lambda t: 0.7 - 0.4 * t, count=5_000)), HealthLimits(stuck_frames=3)
    )
    assert health.drifts
