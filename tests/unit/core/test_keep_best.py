"""Which of two images is better: one total order, with a margin where they first differ."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.keep_best import Merit, beats

MERITS = st.builds(Merit, st.floats(0, 1) | st.none(), st.integers(0, 3_000_000), st.integers(0, 3))


@pytest.mark.parametrize(
    ("new", "old", "is_better"),
    [
        (Merit(0.5), Merit(0.4), True),
        (Merit(0.5), Merit(0.41), False),  # sharper, but not by the margin
        (Merit(0.4, 9_000_000), Merit(0.5, 100), False),  # sharpness goes before pixels
        (Merit(0.5, 110), Merit(0.5, 100), True),
        (Merit(0.5, 109), Merit(0.5, 100), False),
        (Merit(0.5, 100, 0), Merit(0.5, 100, 1), True),
        (Merit(0.5, 100, 1), Merit(0.5, 100, 0), False),
        (Merit(0.5, 200, 3), Merit(0.5, 100, 0), True),
        (Merit(None, 200), Merit(None, 100), True),
        (Merit(None, 200), Merit(0.1, 100), False),
        (Merit(0.9, 200), Merit(None, 100), False),
        (Merit(0.5, 100), Merit(0.5, 0), False),  # its size is not known
        (Merit(0.5, 100), Merit(0.5, 100), False),
    ],
)
def test_beats(new: Merit, old: Merit, is_better: bool) -> None:
    assert beats(new, old, 0.1 - 1e-12) == is_better


@given(MERITS, MERITS, MERITS, st.floats(0.001, 1))
def test_beats__of_any_three_no_circle(a: Merit, b: Merit, c: Merit, margin: float) -> None:
    assert not (beats(a, b, margin) and beats(b, a, margin))
    for one, two, three in permutations((a, b, c)):
        assert not (beats(one, two, margin) and beats(two, three, margin)
                    and beats(three, one, margin))  # fmt: skip
