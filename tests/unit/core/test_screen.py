"""The screen proposes exactly the rows that a plain product finds, clustered or not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.core.screen import Rows, Screen, where_true


def rows(seed: int, count: int, clusters: int, spread: float, dimension: int = 24) -> Rows:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dimension))
    found = centers[rng.integers(clusters, size=count)] + spread * rng.normal(
        size=(count, dimension)
    )
    unit: Rows = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    clusters=st.sampled_from([1, 5, 40, 300]),
    spread=st.sampled_from([0.0, 0.05, 0.3, 2.0]),
    distance=st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.2]),
    block=st.sampled_from([1, 7, 100]),
)
def test_near__equals_the_plain_product(
    seed: int, clusters: int, spread: float, distance: float, block: int
) -> None:
    stored = rows(seed, 300, clusters, spread)
    screen = Screen(24)
    for start in range(0, len(stored), block):
        screen.add(stored[start : start + block])
    queries = np.concatenate([stored[:20], rows(seed + 1, 20, clusters, spread)])
    # Products of other shapes differ in the last bits: what lies on the edge may go either way.
    plain = queries @ stored.T
    found = set(screen.near(queries, 1.0 - distance))
    assert found >= set(where_true(plain >= 1.0 - distance + 1e-5))
    assert found <= set(where_true(plain >= 1.0 - distance - 1e-5))
    assert len(list(screen.near(queries, 1.0 - distance))) == len(found)


def test_near__more_clusters_than_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixsift.core.screen._MAX_CELLS", 8)
    stored = rows(3, 400, 10, 0.02)
    screen = Screen(24)
    screen.add(stored)
    assert len(screen) == 400
    monkeypatch.setattr(screen, "_plain", None)  # the cells and the loose ones suffice
    assert set(screen.near(stored, 0.95)) >= set(where_true(stored @ stored.T >= 0.95 + 1e-5))


def test_near__tight_scenes_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(24)
    screen.add(rows(5, 2000, 100, 0.02))

    def refuse(*arguments: object) -> None:
        raise AssertionError("compared with everything")

    monkeypatch.setattr(screen, "_plain", refuse)
    assert list(screen.near(rows(5, 2000, 100, 0.02)[:10], 0.97))


def test_near__nothing_stored() -> None:
    assert list(Screen(24).near(rows(1, 3, 1, 0.1), 0.9)) == []
