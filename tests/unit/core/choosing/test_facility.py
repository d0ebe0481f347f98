"""The lazy facility location against the textbook loop: same picks, whatever the memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixsift.core.choosing import facility, pairs, similarities
from pixsift.core.choosing.facility import Facility, Terms, facility_location
from pixsift.core.choosing.rows import ArrayRows
from pools import unit_rows
from textbook_facility import similarities as all_similarities
from textbook_facility import textbook_facility

Rows = NDArray[np.floating]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles and batches, so that a small pool meets every path."""
    monkeypatch.setattr(similarities, "TILE", 16)
    monkeypatch.setattr(facility, "_FIRST", 2)
    monkeypatch.setattr(facility, "_BATCH", 4)
    monkeypatch.setattr(pairs, "_FEWEST_COLUMNS", 8)


@st.composite
def pools(draw: st.DrawFn) -> Rows:
    """Clusters, copies, coarse values that tie, and rows without a length."""
    seed = draw(st.integers(0, 10_000))
    count = draw(st.integers(2, 70))
    rows = unit_rows(count, draw(st.integers(1, 12)), seed=seed, centers=draw(st.integers(0, 5)))
    if draw(st.booleans()):  # copies
        again = np.random.default_rng(seed).integers(0, max(1, count // 3), size=count)
        rows = rows[again]
    if draw(st.booleans()):  # ties, and zeros
        rows = np.asarray(np.round(rows * 2), dtype=np.float16)
    return rows


@settings(max_examples=120, deadline=None)
@given(pools(), st.data())
def test_facility_location__picks_are_the_textbooks_at_any_memory(
    rows: Rows, data: st.DataObject
) -> None:
    n = len(rows)
    k = data.draw(st.integers(0, n))
    outside = unit_rows(3, rows.shape[1], seed=5) if data.draw(st.booleans()) else None
    weights = np.random.default_rng(n).random(n) if data.draw(st.booleans()) else None
    own = np.random.default_rng(k).uniform(-1, 1, n) if data.draw(st.booleans()) else None
    apart = data.draw(st.sampled_from([0.0, 0.05, 0.4]))
    memory = data.draw(st.sampled_from([1 << 30, 9 * n * max(2, n // 8), 9]))
    picks, gains = textbook_facility(rows, k, outside=outside, weights=weights, min_distance=apart,
                                     own=own)  # fmt: skip
    found = facility_location(
        ArrayRows(rows), k, outside=None if outside is None else ArrayRows(outside),
        terms=Terms(weights=weights, own=own), min_distance=apart, memory_bytes=memory,
    )  # fmt: skip
    assert found.picks.tolist() == picks
    np.testing.assert_allclose(found.gains * 2, gains, rtol=1e-3, atol=1e-3)


def test_facility_location__near_ties_below_float32_are_told_apart() -> None:
    # Three pairs; what tells the six rows apart lies at 1e-9, far below float32.
    rng = np.random.default_rng(3)
    base = np.linalg.qr(rng.normal(size=(40, 3)))[0].T
    rows = np.concatenate([base + 1e-5 * rng.normal(size=base.shape) for _ in range(8)])
    for memory in (1 << 30, 400):
        found = facility_location(ArrayRows(rows), 24, memory_bytes=memory)
        assert found.picks.tolist() == textbook_facility(rows, 24)[0]


def near_ties() -> Rows:
    """Three directions, eight rows each; what tells rows apart lies far below float32."""
    rng = np.random.default_rng(0)
    base = np.linalg.qr(rng.normal(size=(40, 3)))[0].T
    return np.concatenate([base + 1e-5 * rng.normal(size=base.shape) for _ in range(8)])


def without_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gains are bounded as if products were exact."""
    sound = facility._Greedy._evaluate

    def broken(self: Any, candidate: int, bound: float) -> tuple[float, float]:
        low, _ = sound(self, candidate, bound)
        return low, low

    monkeypatch.setattr(facility._Greedy, "_evaluate", broken)


def bounds_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate may gain a little more than its bound says."""
    sound = facility._Greedy._pile

    def broken(self: Any, bounds: NDArray[np.float64]) -> None:
        sound(self, bounds * np.linspace(0.8, 1.0, bounds.size))

    monkeypatch.setattr(facility._Greedy, "_pile", broken)


def bounds_before_the_pick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain measured for one pick counts as known for the next."""

    def broken(bound: float, candidate: int, lowest: float, lowest_at: int) -> bool:
        return lowest >= 0

    monkeypatch.setattr(facility, "_is_beaten", broken)


def low_clients_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only listed pairs count, also for clients that have less than these."""
    sound = pairs.Pairs.listed

    def broken(self: Any, lists: Any, floor: Any, needs: Any) -> None:
        sound(self, lists, floor, np.full_like(needs, 2))

    monkeypatch.setattr(pairs.Pairs, "listed", broken)


@pytest.mark.parametrize(
    ("mutate", "rows", "memory"),
    [
        (without_errors, near_ties(), 1 << 30),
        (bounds_too_low, unit_rows(70, 6, seed=3, centers=5), 1 << 30),
        (bounds_before_the_pick, unit_rows(70, 6, seed=3, centers=5), 1 << 30),
        (low_clients_forgotten, unit_rows(70, 6, seed=3, centers=5), 9 * 70 * 8),
    ],
)
def test_facility_location__a_bound_that_does_not_hold_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None],
    rows: Rows,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mutations of the lazy bound: each of them picks other rows than the textbook."""
    truth = textbook_facility(rows, 24)[0]
    assert facility_location(ArrayRows(rows), 24, memory_bytes=memory).picks.tolist() == truth
    mutate(monkeypatch)
    assert facility_location(ArrayRows(rows), 24, memory_bytes=memory).picks.tolist() != truth


def test_facility_location__value_and_bound_are_what_brute_force_finds() -> None:
    from itertools import combinations

    rows = unit_rows(13, 4, seed=7, centers=3)
    sims = all_similarities(rows, rows)
    for k in (1, 2, 3):
        found = facility_location(ArrayRows(rows), k)
        values = {
            chosen: float((1 + sims[:, chosen].max(axis=1)).mean() / 2)
            for chosen in combinations(range(13), k)
        }
        best = max(values.values())
        assert found.value == pytest.approx(values[tuple(sorted(found.picks.tolist()))])
        assert (1 - 1 / np.e) * best - 1e-9 <= found.value <= best + 1e-9
        assert best <= found.best_possible + 1e-9


def test_facility_location__every_prefix_is_the_selection_for_a_smaller_k() -> None:
    rows = ArrayRows(unit_rows(80, 8, seed=1, centers=6))
    whole = facility_location(rows, 40).picks
    for k in (1, 7, 25):
        assert facility_location(rows, k).picks.tolist() == whole[:k].tolist()


def pruned(rows: Rows, k: int, neighbors: int, **more: Any) -> Facility:
    return facility_location(ArrayRows(rows), k, neighbors=neighbors, **more)


def test_facility_location__pruning_loses_no_more_than_it_reports() -> None:
    rows = unit_rows(300, 8, seed=2, centers=12)
    sims = all_similarities(rows, rows)
    for k in (3, 20, 60):
        exact = facility_location(ArrayRows(rows), k)
        found = pruned(rows, k, 30)
        truth = float((1 + sims[:, found.picks].max(axis=1)).mean() / 2)
        assert found.value == pytest.approx(truth, abs=1e-5)
        assert exact.value <= found.best_possible + 1e-6
        assert found.pruned_loss >= 0
        assert found.pairs < 0.4 * 300 * 300
    # Once every row has a pick among its neighbors, nothing is lost.
    assert pruned(rows, 150, 60).pruned_loss == pytest.approx(0, abs=1e-3)


def test_facility_location__pruning_to_all_neighbors_is_exact() -> None:
    rows = unit_rows(90, 6, seed=4, centers=4)
    assert pruned(rows, 30, 90).picks.tolist()[1:] == textbook_facility(rows, 30)[0][1:]


def test_facility_location__no_two_picks_lie_nearer_than_min_distance() -> None:
    rows = unit_rows(200, 4, seed=6, centers=5)
    sims = all_similarities(rows, rows)
    for neighbors in (None, 20):
        found = facility_location(ArrayRows(rows), 60, min_distance=0.03, neighbors=neighbors).picks
        between = sims[np.ix_(found, found)] - np.eye(len(found))
        assert found.size < 60  # none is left
        assert (1 - between).min() >= 0.03


def test_facility_location__targets_are_met_before_more_of_the_common_is_taken() -> None:
    rows = unit_rows(120, 6, seed=8, centers=2)
    strata = np.array([0] * 110 + [1] * 10, np.int32)
    targets = np.array([0, 5], np.int64)
    alone = facility_location(ArrayRows(rows), 12).picks
    terms = Terms(strata=strata, targets=targets, reward=20.0)
    found = facility_location(ArrayRows(rows), 12, terms=terms).picks
    assert (strata[found] == 1).sum() >= 5 > (strata[alone] == 1).sum()
    assert (strata[found[:5]] == 1).all()


def test_facility_location__a_bonus_prefers_candidates_and_barred_rows_are_not_picked() -> None:
    rows = unit_rows(60, 5, seed=9)
    bonus = np.zeros(60)
    bonus[[7, 30]] = 50.0
    found = facility_location(
        ArrayRows(rows), 10, terms=Terms(bonus=bonus), barred=np.arange(20, 25)
    ).picks
    assert sorted(found[:2].tolist()) == [7, 30]
    assert not set(found.tolist()) & set(range(20, 25))
    with pytest.raises(ValueError, match="cannot choose 58 of 55"):
        facility_location(ArrayRows(rows), 58, barred=np.arange(5))
