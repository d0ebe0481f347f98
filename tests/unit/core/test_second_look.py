"""The second look: signals of one image, and the rule for a pair."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixsift.core import change_signals
from pixsift.core.second_look import (
    ANY_CHROMA,
    SIGNAL_BYTES,
    LookRule,
    comparable,
    compare,
    has_change,
    look_signals,
)

Image = NDArray[np.uint8]


def scene(seed: int, side: int = 224, blobs: int = 40) -> Image:
    """A picture with structure at many scales: soft discs on a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    image = np.stack([120 + 60 * x, 110 + 50 * y, 100 + 40 * x * y], axis=-1)
    for _ in range(blobs):
        center, radius = rng.random(2), rng.uniform(0.03, 0.2)
        outside = (x - center[0]) ** 2 + (y - center[1]) ** 2 - radius**2
        inside = 0.5 - 0.5 * np.tanh(outside * 1000)
        image += inside[..., None] * rng.uniform(-70, 70, 3)
    picture: Image = np.clip(image, 0, 255).astype(np.uint8)
    return picture


def exposed(image: Image, gain: float) -> Image:
    brighter: Image = np.clip(image * gain, 0, 255).astype(np.uint8)
    return brighter


def cropped(image: Image, share: float) -> Image:
    cut = round(len(image) * share)
    return image[cut:, : len(image) - cut // 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (31, 33), (224, 224), (480, 640)])
def test_look_signals__any_size_gives_signals_of_one_size(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    signals = look_signals(image)
    assert len(signals) == SIGNAL_BYTES + change_signals.SIGNAL_BYTES
    assert has_change(signals)
    assert comparable(signals)
    assert signals == look_signals(image)


def test_look_signals__do_not_depend_on_the_scale() -> None:
    small = scene(1)
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    assert look_signals(small) == look_signals(large)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 2))
def test_agrees__is_symmetric_to_the_bit(first: int, second: int, distance: float) -> None:
    a, b = look_signals(scene(first, 64)), look_signals(scene(second, 64))
    assert compare(a, b) == compare(b, a)
    rule = LookRule()
    assert rule.agrees(distance, a, b) == rule.agrees(distance, b, a)
    assert rule.agrees(distance, a, a)


def test_compare__is_perfect_with_itself() -> None:
    a = look_signals(scene(3))
    same = compare(a, a)
    assert (same.hash_bits, same.chroma) == (0, 0)
    assert same.worst_patches > 0.8


@pytest.mark.parametrize("seed", range(6))
def test_agrees__copies_do_and_other_scenes_do_not(seed: int) -> None:
    image, rule = scene(seed), LookRule()
    original = look_signals(image)
    copies = [exposed(image, 0.8), exposed(image, 1.15), cropped(image, 0.05), image[::2, ::2]]
    assert all(rule.agrees(0.1, original, look_signals(copy)) for copy in copies)
    assert not rule.agrees(0.1, original, look_signals(scene(seed + 100)))
    assert not rule.agrees(0.1, original, look_signals(image[::-1]))


def test_worst_patches__falls_with_the_dose_of_cropping() -> None:
    image = scene(7)
    original = look_signals(image)
    doses = [
        compare(original, look_signals(cropped(image, s))).worst_patches
        for s in (0, 0.05, 0.15, 0.3)
    ]
    assert all(more >= less for more, less in pairwise(doses))
    assert doses[1] > 0.5
    assert doses[3] < 0.25


def test_agrees__a_new_object_in_the_same_scene_is_not_a_copy() -> None:
    """Most patches agree; the worst quarter does not."""
    image = scene(8)
    changed = image.copy()
    changed[40:180, 60:190] = scene(9)[40:180, 60:190]
    pair = compare(look_signals(image), look_signals(changed))
    assert not LookRule().agrees(0.02, look_signals(image), look_signals(changed))
    assert pair.patches > pair.worst_patches + 0.2


def test_agrees__flat_images_have_nothing_to_disagree_about() -> None:
    flat = [look_signals(np.full((50, 50, 3), level, np.uint8)) for level in (10, 200)]
    assert LookRule().agrees(0.01, *flat)
    rng = np.random.default_rng(0)
    walls = [
        look_signals(np.clip(rng.normal(120, 4, (224, 224, 3)), 0, 255).astype(np.uint8))
        for _ in range(2)
    ]
    assert LookRule().agrees(0.01, *walls)


@pytest.mark.parametrize("other", [b"", b"\x01", b"\x02" + bytes(SIGNAL_BYTES - 1), bytes(3)])
def test_agrees__without_comparable_signals_the_narrow_embedding_decides(other: bytes) -> None:
    a = look_signals(scene(1))
    assert LookRule().agrees(0.1, a, other)
    assert LookRule().agrees(0.1, other, a)
    assert not LookRule().agrees(0.12, a, other)
    assert not LookRule().agrees(0.12, other, a)
    assert LookRule().explain(0.1, a, other)["signals"] is None
    with pytest.raises(ValueError, match="version"):
        compare(a, other)


def test_agrees__far_hashes_are_refused_whatever_the_weights() -> None:
    a, b = look_signals(scene(1)), look_signals(scene(50))
    bits = compare(a, b).hash_bits
    always = LookRule(bias=100.0, max_hash_bits=bits, max_chroma=ANY_CHROMA)
    assert always.agrees(0, a, b)
    assert not replace(always, max_hash_bits=bits - 1).agrees(0, a, b)


def test_agrees__the_same_shapes_in_other_colors_are_no_copy() -> None:
    image = scene(3)
    image[..., 0] = np.clip(image[..., 0].astype(int) + 40, 0, 255)  # reddish
    a, b = look_signals(image), look_signals(np.roll(image, 1, axis=-1))  # greenish
    rule = LookRule(bias=100.0, max_hash_bits=64)
    assert not rule.agrees(0, a, b)
    assert replace(rule, max_chroma=ANY_CHROMA).agrees(0, a, b)


def test_explain__tells_what_agrees_decided() -> None:
    a, b = look_signals(scene(1)), look_signals(scene(2))
    for pair in ((a, b), (a, a)):
        told = LookRule().explain(0.1, *pair)
        assert told["agrees"] == LookRule().agrees(0.1, *pair)
        assert set(told["signals"]) == {"patches", "worst_patches", "chroma", "hash_bits"}


def test_from_json__survives_storage_and_refuses_what_it_does_not_know() -> None:
    rule = LookRule(bias=-1.5, chroma=0.25)
    assert LookRule.from_json(rule.to_json()) == rule
    with pytest.raises(ValueError, match="version"):
        LookRule.from_json({"version": 99})
    with pytest.raises(ValueError, match="surprise"):
        LookRule.from_json({"surprise": 1.0})
    for value in (float("nan"), None, [1], "0.5", True):
        with pytest.raises(ValueError, match="bias of a second-look rule is a finite number"):
            LookRule.from_json({"bias": value})


def test_agrees__without_change_signals_the_narrow_epsilon_decides() -> None:
    a = look_signals(scene(1))
    before = a[:SIGNAL_BYTES]  # stored by a release that knew no change
    assert LookRule().agrees(0.1, a, before)
    assert not LookRule().agrees(0.12, a, before)
    assert LookRule().agrees(0.12, a, a)


def test_from_json__a_rule_from_before_the_test_for_change_decides_as_it_did() -> None:
    new = LookRule().to_json()
    names = ("narrow", "max_small_change", "max_large_change", "max_peak_change",
             "max_moving_change", "mask")  # fmt: skip
    stored = {name: value for name, value in new.items() if name not in names}
    rule = LookRule.from_json(stored)
    assert rule.limits is None
    assert rule.narrow == 2.0
    assert LookRule.from_json(LookRule(mask=((0.0, 0.0, 0.5, 0.1),)).to_json()).mask == (
        (0.0, 0.0, 0.5, 0.1),
    )


def test_places__mark_the_square_on_both_sides_whichever_comes_first() -> None:
    before = scene(3)
    after = before.copy()
    after[40:70, 150:180] = 255 - after[40:70, 150:180]  # in the middle at 74 %, 25 %
    moved = np.roll(after, 6, axis=1)  # the camera moved: 2.7 % of the frame
    a, b, c = (look_signals(image) for image in (before, after, moved))
    none = a[:SIGNAL_BYTES]
    found = LookRule().places([(a, b), (b, a), (a, c), (c, a), (a, none), (none, none)])
    for pair in found[:2]:
        assert pair is not None
        for place in pair:
            assert place == pytest.approx((0.737, 0.246), abs=0.07)
    one, other = found[2:4]
    assert one is not None and other is not None
    assert one == other[::-1]
    assert one[1][0] - one[0][0] == pytest.approx(6 / 224, abs=0.012)
    assert found[4:] == [None, None]
    change = LookRule().explain(0.1, a, c)["change"]
    assert [change["place"], change["place_in_other"]] == [list(place) for place in one]


@pytest.mark.parametrize("mask", [[[0, 0, 1]], [[0.5, 0, 0.5, 1]], [[0, 0, 2, 1]], "x", 3])
def test_from_json__a_mask_is_boxes_in_shares_of_the_frame(mask: object) -> None:
    with pytest.raises(ValueError, match="mask"):
        LookRule.from_json({"mask": mask})


def test_from_json__a_rule_from_before_the_chroma_limit_decides_as_it_did() -> None:
    stored = LookRule().to_json()
    del stored["max_chroma"]
    assert LookRule.from_json(stored).max_chroma == ANY_CHROMA
    assert LookRule.from_json({"bias": -0.4}) == LookRule(bias=-0.4)  # typed: the rest is default
