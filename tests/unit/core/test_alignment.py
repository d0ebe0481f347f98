"""Where one small picture lies over another; and that shortcuts change no number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.alignment import align, median
from pixsift.core.change import _any_of_four
from pixsift.core.change_signals import SIDE


@given(seed=st.integers(0, 2**32 - 1), pairs=st.integers(1, 5), half=st.integers(1, 40))
def test_median__is_that_of_numpy(seed: int, pairs: int, half: int) -> None:
    values = np.random.default_rng(seed).integers(0, 9, (pairs, 2 * half)).astype(np.float64)
    assert np.array_equal(median(values), np.median(values, axis=1))


def pictures(count: int, seed: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Smooth random luminance, some flat, some of noise."""
    rng = np.random.default_rng(seed)
    rough = rng.uniform(0, 255, (count, 6, 6))
    smooth = np.kron(rough, np.ones((6, 6)))[:, :32, :32]
    smooth[::5] = 100.0
    smooth[1::5] = rng.uniform(0, 255, smooth[1::5].shape)
    return smooth + rng.normal(0, 1, smooth.shape)


def test_align__an_answer_does_not_depend_on_the_company() -> None:
    """Pairs that settle or fail leave the others' arrays: nothing else may change."""
    fixed, moving = pictures(40, 1), np.roll(pictures(40, 1), 1, axis=2) * 0.9 + 5
    moving[::3] = pictures(40, 2)[::3]
    together = align(fixed, moving)
    alone = np.concatenate([align(fixed[i : i + 1], moving[i : i + 1]) for i in range(40)])
    assert np.allclose(together, alone, rtol=0, atol=1e-9)
    assert not np.array_equal(together, np.broadcast_to(np.eye(3)[:2], together.shape))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_any_of_four__is_the_four_cells_asked_one_by_one(share: float) -> None:
    clipped = np.random.default_rng(3).uniform(size=(4, SIDE, SIDE)) < share
    flat = clipped.reshape(-1)
    near = _any_of_four(flat).reshape(clipped.shape)
    expected = clipped[:, :-1, :-1] | clipped[:, 1:, :-1] | clipped[:, :-1, 1:] | clipped[:, 1:, 1:]
    assert np.array_equal(near[:, :-1, :-1], expected)
