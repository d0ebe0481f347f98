"""Pairs near a rule's limits: how much a limit would have to move, and who is just beyond it."""

import numpy as np
import pytest

from pixsift.core import presets
from pixsift.core.border import nearest_earlier
from pixsift.core.dedup import cosine_distance
from pixsift.core.second_look import LookRule, look_signals


def pictures() -> list[bytes]:
    """A scene as it is, lit, shifted, with things painted in, and another scene."""
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(40, 210, (28, 28, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    painted = []
    for side, level in ((6, 90), (10, 250), (24, 10), (60, 250)):
        copy = scene.copy()
        copy[90 : 90 + side, 60 : 60 + side] = level
        painted.append(copy)
    lit = np.clip(scene * 1.15, 0, 255).astype(np.uint8)
    moved = np.roll(scene, (5, 7), axis=(0, 1))
    other = np.random.default_rng(4).integers(0, 255, scene.shape).astype(np.uint8)
    return [look_signals(image) for image in (scene, lit, moved, *painted, other)]


@pytest.mark.parametrize("rule", [LookRule(), LookRule.without_change()])
def test_change_factors__are_where_a_scaled_rule_changes_its_mind(rule: LookRule) -> None:
    looks = [*pictures(), b""]
    pairs = [(0.05, a, b) for i, a in enumerate(looks) for b in looks[:i]]
    pairs += [(0.19, looks[0], looks[3]), (0.19, looks[0], b"")]
    factors = rule.change_factors(pairs)
    assert {None} < set(factors)
    for pair, factor in zip(pairs, factors, strict=True):
        for tried in (0.2, 0.7, 1.0, 1.6, 4.0, 30.0):
            expected = factor is not None and factor <= tried
            assert presets.scaled(rule, tried).agrees(*pair) == expected, (factor, tried)


def test_nearest_earlier__is_what_a_loop_over_all_pairs_finds() -> None:
    rng = np.random.default_rng(5)
    halves = rng.normal(size=(60, 16)).astype(np.float16)
    expected = []
    for later in range(1, 60):
        distance, earlier = min(
            (cosine_distance(halves[later], halves[i]), i) for i in range(later)
        )
        expected.append((later, earlier, distance))
    expected.sort(key=lambda pair: (pair[2], pair[0]))
    assert nearest_earlier(halves, 10) == expected[:10]
    assert nearest_earlier(halves[:1], 10) == []
