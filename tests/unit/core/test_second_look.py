"""The second look: signals of one image, and the rule for a pair."""

import numpy as np
import pytest

from pixsift.core.second_look import SIGNAL_BYTES, LookRule, compare, look_signals


def noise(
    seed: int, height: int = 64, width: int = 80
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (31, 33), (224, 224), (480, 640)])
def test_look_signals__any_size_gives_signals_of_one_size(shape: tuple[int, int]) -> None:
    signals = look_signals(noise(0, *shape))
    assert len(signals) == SIGNAL_BYTES
    assert signals == look_signals(noise(0, *shape))


def test_compare__is_symmetric_and_perfect_with_itself() -> None:
    a, b = look_signals(noise(1)), look_signals(noise(2))
    assert compare(a, b) == compare(b, a)
    assert compare(a, a).hash_bits == 0
    assert compare(a, a).correlation == pytest.approx(1)


def test_look_rule__survives_storage_and_refuses_what_it_does_not_know() -> None:
    rule = LookRule(bias=-1.5, chroma=0.25)
    assert LookRule.from_json(rule.to_json()) == rule
    with pytest.raises(ValueError, match="version"):
        LookRule.from_json({"version": 99})
    with pytest.raises(ValueError, match="surprise"):
        LookRule.from_json({"surprise": 1.0})
    with pytest.raises(ValueError, match="finite"):
        LookRule.from_json({"bias": float("nan")})


def test_look_rule__without_signals_the_embedding_alone_decides() -> None:
    a = look_signals(noise(1))
    assert LookRule().agrees(0.1, a, b"")
    assert LookRule().agrees(0.1, b"", a)
    assert LookRule().agrees(0.1, b"", b"")


def test_look_rule__same_picture_agrees_and_another_does_not() -> None:
    a, b = look_signals(noise(1)), look_signals(noise(2))
    assert LookRule().agrees(0.05, a, a)
    assert not LookRule().agrees(0.05, a, b)
