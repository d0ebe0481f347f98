"""Presets: rules that people choose by what their cameras do, instead of by numbers.

A calibration says up to which distance the embedding and the second look can be trusted: the narrow
epsilon. A preset uses a wider epsilon, since the test for change protects it, and says how large a
difference must be to count as a change. Measured in docs/thresholds.md.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pixsift.core.change import ChangeLimits
from pixsift.core.second_look import WITHOUT_CHANGE, LookRule

REACH: Final = 0.20
"""Epsilon of a calibrated model: beyond this distance, near images are rarely the same picture."""
UNCALIBRATED_REACH: Final = 0.15
"""For a model without calibration: narrower; the test for change still finds second shots."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One choice."""

    name: str
    description: str
    limits: ChangeLimits | None
    """None: no test for change, so a caption or another state does not keep a picture."""


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset(
            "static_camera", "a camera that stands still: the smallest changes count",
            replace(ChangeLimits(), small=1.6, large=4.0, peak=9.0),
        ),
        Preset(
            "moving_camera", "robots and vehicles: what enters or changes counts", ChangeLimits()
        ),
        Preset(
            "photos", "bursts and copies: captions and small changes do not count", None
        ),
    )
}  # fmt: skip
DEFAULT: Final = "moving_camera"


def apply(
    name: str, *, narrow: float, second_look: Mapping[str, Any] | None, calibrated: bool
) -> tuple[float, dict[str, Any] | None]:
    """Epsilon and second look of a collection.

    narrow, second_look: of the calibration. Without a second look nothing protects a wider epsilon,
    so both stay as they are. Raises ValueError for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: use {', '.join(PRESETS)}")
    if second_look is None:
        return narrow, None
    limits = PRESETS[name].limits
    rule = replace(LookRule.from_json(second_look), narrow=narrow)
    rule = replace(rule, **_fields(limits)) if limits else replace(rule, **_no_limits())
    return max(narrow, REACH if calibrated else UNCALIBRATED_REACH), rule.to_json()


def preset_of(epsilon: float, second_look: Mapping[str, Any] | None) -> str | None:
    """The name of the preset that a collection's rule is of; None: a rule of its own.

    A mask changes nothing about it.
    """
    if second_look is None or epsilon not in (REACH, UNCALIBRATED_REACH):
        return None
    rule = LookRule.from_json(second_look)
    for preset in PRESETS.values():
        if rule.limits == preset.limits and rule.narrow <= epsilon:
            return preset.name
    return None


def scaled(rule: LookRule, factor: float) -> LookRule:
    """``rule`` with every limit of change times ``factor``: below 1 it keeps more, above 1 less."""
    limits = rule.limits
    if limits is None:
        return rule
    values = {f.removeprefix("max_"): v for f, v in _fields(limits).items()}
    return replace(rule, **{f"max_{name}": value * factor for name, value in values.items()})


def _fields(limits: ChangeLimits) -> dict[str, Any]:
    return {
        f"max_{name}_change": value for name, value in asdict(limits).items() if name != "unsure"
    }


def _no_limits() -> dict[str, Any]:
    return {name: value for name, value in WITHOUT_CHANGE.items() if name != "narrow"}
