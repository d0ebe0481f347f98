"""Rows kept apart: the greedy by index, whatever the block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.core.choosing import apart as module
from pixsift.core.choosing.apart import apart
from pixsift.core.choosing.rows import ArrayRows
from pools import unit_rows
from textbook_facility import similarities


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 90), st.sampled_from([0.001, 0.02, 0.3]))
def test_apart__keeps_what_the_plain_walk_keeps(seed: int, count: int, distance: float) -> None:
    rows = unit_rows(count, 3, seed=seed, centers=8)
    others = unit_rows(2, 3, seed=seed + 1)
    between = similarities(rows, rows)
    taken = similarities(rows, others).max(axis=1) > 1 - distance
    kept: list[int] = []
    for i in range(count):
        if not taken[i] and all(between[i, j] <= 1 - distance for j in kept):
            kept.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", 16)
        found = apart(ArrayRows(rows), distance, outside=ArrayRows(others))
    assert np.flatnonzero(found).tolist() == kept
