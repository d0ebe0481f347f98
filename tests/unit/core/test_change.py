"""What has changed, and what has only been taken again: pictures that are made here."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from pixsift.core import presets
from pixsift.core.change_signals import CLIPPED_HIGH, CLIPPED_LOW, change_signals, unpack
from pixsift.core.second_look import SIGNAL_BYTES, LookRule, has_change, look_signals

Image = NDArray[np.uint8]
SIDE = 224
RULE = LookRule()


def scene(seed: int) -> NDArray[np.float64]:
    """Walls, edges and texture at many scales, with room above and below."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((SIDE, SIDE, 3))
    for scale, strength in ((40, 60), (12, 25), (3, 12)):
        field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), scale)
        picture += (field / field.std() * strength)[..., None] * rng.uniform(0.97, 1.03, 3)
    for _ in range(8):
        y, x = rng.integers(0, SIDE - 30, 2)
        h, w = rng.integers(20, 90, 2)
        picture[y : y + h, x : x + w] += rng.uniform(-40, 40) + rng.uniform(-4, 4, 3)
    return np.clip(picture * 0.6 + 125, 20, 235)


def shot(picture: NDArray[np.float64], seed: int, *, gain: float = 1.0) -> Image:
    """Taken again: half a pixel of shake, noise, another exposure with clipping."""
    rng = np.random.default_rng(seed)
    moved: NDArray[np.float64] = ndimage.shift(
        picture, (*rng.uniform(-0.4, 0.4, 2), 0), order=1, mode="nearest"
    )
    taken = moved * gain + rng.normal(0, 2, picture.shape)
    image: Image = np.clip(np.rint(taken), 0, 255).astype(np.uint8)
    return image


def entered(
    picture: NDArray[np.float64], share: float, at: tuple[float, float]
) -> NDArray[np.float64]:
    """Something dark and light of ``share`` of the frame, its middle at (x, y)."""
    side = round(np.sqrt(share) * SIDE)
    top, left = (round(SIDE * place - side / 2) for place in (at[1], at[0]))
    changed = picture.copy()
    part = changed[top : top + side, left : left + side]
    light = part.mean() < 128
    part[:] = 215 if light else 40
    part[side // 3 : side // 2] = 150 if light else 100
    return changed


def agrees(a: Image, b: Image, rule: LookRule = RULE) -> bool:
    return rule.agrees(0.05, look_signals(a), look_signals(b))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("gain", [1.0, 0.8, 1.25])
def test_agrees__a_second_shot_is_the_same_picture(seed: int, gain: float) -> None:
    picture = scene(seed)
    assert agrees(shot(picture, 1), shot(picture, 2, gain=gain))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.005, 0.02, 0.10])
def test_agrees__what_enters_is_seen(seed: int, share: float) -> None:
    at = tuple(np.random.default_rng(seed).uniform(0.25, 0.75, 2))
    there = entered(scene(seed), share, (at[0], at[1]))
    assert not agrees(shot(scene(seed), 1), shot(there, 2))
    assert agrees(shot(there, 3), shot(there, 2))


@pytest.mark.parametrize("seed", range(6))
def test_agrees__what_enters_is_seen_by_a_camera_that_moved(seed: int) -> None:
    picture = scene(seed)
    there = entered(picture, 0.02, (0.5, 0.4))
    moved: NDArray[np.float64] = ndimage.shift(there, (2.6, -3.1, 0), order=1, mode="nearest")
    assert not agrees(shot(picture, 1), shot(moved, 2))
    plain = ndimage.shift(picture, (2.6, -3.1, 0), order=1, mode="nearest")
    assert agrees(shot(picture, 1), shot(plain, 2))


def test_agree__a_pair_has_its_answer_whoever_is_asked_with_it() -> None:
    looks = [
        look_signals(shot(entered(scene(s % 3), 0.01, (0.3, 0.6)) if s % 2 else scene(s % 3), s))
        for s in range(9)
    ]
    pairs = [(0.05, a, b) for a in looks for b in looks]
    together = RULE.agree(pairs)
    assert together == [RULE.agrees(*pair) for pair in pairs]
    assert together == RULE.agree([(d, b, a) for d, a, b in pairs])
    assert any(together)
    assert not all(together)


def test_agree__without_the_test_for_change_decides_as_before_there_was_one() -> None:
    a, b = (
        look_signals(shot(scene(1), 1)),
        look_signals(shot(entered(scene(1), 0.01, (0.5, 0.5)), 2)),
    )
    before = LookRule.without_change()
    assert before.agrees(0.05, a, b)
    assert before.agrees(0.05, a[:SIGNAL_BYTES], b[:SIGNAL_BYTES])
    assert not has_change(a[:SIGNAL_BYTES])


def test_explain__says_where_on_both_pictures() -> None:
    there = entered(scene(4), 0.01, (0.3, 0.7))
    a, b = look_signals(shot(scene(4), 1)), look_signals(shot(there, 2))
    for pair in ((a, b), (b, a)):
        told = RULE.explain(0.05, *pair)
        assert told["change"]["changed"]
        assert not told["agrees"]
        for place in ("place", "place_in_other"):
            assert np.abs(np.array(told["change"][place]) - (0.3, 0.7)).max() < 0.08


def test_mask__a_stamp_is_no_change() -> None:
    picture = scene(5)
    stamped = picture.copy()
    stamped[-22:, :90] = 12
    stamped[-16:-8, 10:80:4] = 240
    a, b = shot(picture, 1), shot(stamped, 2)
    masked = replace(RULE, mask=((0.0, 0.88, 0.45, 1.0),))
    assert not agrees(a, b)
    assert agrees(a, b, masked)
    assert not agrees(a, shot(entered(stamped, 0.02, (0.5, 0.5)), 2), masked)


def test_presets__are_told_from_one_another() -> None:
    look = LookRule.without_change().to_json()
    for name in presets.PRESETS:
        epsilon, rule = presets.apply(name, narrow=0.1, second_look=look, calibrated=True)
        assert presets.preset_of(epsilon, rule) == name
        assert LookRule.from_json(rule or {}).narrow == 0.1
    assert presets.preset_of(0.115, look) is None
    with pytest.raises(ValueError, match="static_camera"):
        presets.apply("movies", narrow=0.1, second_look=look, calibrated=True)


def test_presets__photos_find_captions_again() -> None:
    picture = scene(6)
    captioned = picture.copy()
    captioned[-18:, 5:95] = 20
    look = LookRule.without_change().to_json()
    rules = [
        LookRule.from_json(
            presets.apply(name, narrow=0.1, second_look=look, calibrated=True)[1] or {}
        )
        for name in ("photos", "moving_camera")
    ]
    a, b = shot(picture, 1), shot(captioned, 2)
    assert [agrees(a, b, rule) for rule in rules] == [True, False]


def test_scaled__a_larger_limit_keeps_less() -> None:
    there = entered(scene(7), 0.004, (0.5, 0.5))
    a, b = shot(scene(7), 1), shot(there, 2)
    assert not agrees(a, b)
    assert agrees(a, b, presets.scaled(RULE, 100))
    assert presets.scaled(LookRule.without_change(), 2) == LookRule.without_change()


def test_change_signals__a_cell_is_clipped_where_its_brightest_channel_is_extreme() -> None:
    low, high, inside = CLIPPED_LOW, CLIPPED_HIGH, 100
    colors = {
        (low, low, low): True, (low + 1, 0, 0): False, (0, low + 1, 0): False,
        (0, 0, low + 1): False, (high, 0, 0): True, (0, high, 0): True, (0, 0, high): True,
        (high - 1, high - 1, high - 1): False, (inside, inside, inside): False,
    }  # fmt: skip
    for color, expected in colors.items():
        pixels = np.full((37, 61, 3), color, np.uint8)
        assert unpack([change_signals(pixels)]).clipped.all() == expected, color
        assert unpack([change_signals(pixels)]).clipped.any() == expected, color
