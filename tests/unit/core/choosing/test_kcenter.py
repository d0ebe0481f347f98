"""k-center: the picks of the textbook loop, in its order, whatever the data and the batches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from counts import examples
from pixsift.core.choosing.kcenter import CENTERS_PER_PASS, k_center_greedy
from pixsift.core.choosing.rows import ArrayRows, Float64s, Indices
from textbook import textbook

Rows = NDArray[np.floating]
KINDS = ("random", "sphere", "clustered", "copies", "grid", "line", "shifted", "tiny", "one_point")


def make(kind: str, n: int, d: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, D) rows of one kind."""
    rows: NDArray[np.float64] = rng.normal(size=(n, d))
    match kind:
        case "sphere":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        case "clustered":
            rows = 0.01 * rows + rows[rng.integers(max(1, n // 8), size=n)]
        case "copies":
            rows = rows[rng.integers(max(1, n // 2), size=n)]
        case "grid":
            rows = rng.integers(-2, 3, size=(n, d)).astype(np.float64)
        case "line":
            rows = np.outer(rng.integers(-9, 10, size=n), rng.normal(size=d))
        case "shifted":
            rows = rows * 1e-3 + 50
        case "tiny":
            rows *= 1e-25
        case "one_point":
            rows[:] = rows[0]
    return rows


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Rows, k, anchors or a start, and a batch size."""
    n, d = draw(st.integers(1, 70)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    rows = make(draw(st.sampled_from(KINDS)), n, d, rng).astype(dtype)
    anchors = rng.permutation(n)[: draw(st.sampled_from([0, 0, 1, 3]))].tolist()
    k = draw(st.integers(0, n - len(anchors)))
    start = None if anchors or draw(st.booleans()) else draw(st.integers(0, n - 1))
    return {"rows": rows, "k": k, "preselected": anchors, "start": start,
            "batch": draw(st.sampled_from([1, 2, 7, 64, 4096]))}  # fmt: skip


@settings(max_examples=examples(quick=100, thorough=600), deadline=None)
@given(problems())
def test_k_center_greedy__centers_outside_count_like_those_inside(problem: dict[str, Any]) -> None:
    rows, anchors = problem["rows"], problem["preselected"]
    others = np.setdiff1d(np.arange(len(rows)), anchors)
    if not anchors or not others.size:
        return
    k = min(problem["k"], others.size)
    inside = k_center_greedy(rows, k, preselected=anchors)
    outside = k_center_greedy(
        rows[others], k, outside=ArrayRows(rows[anchors]), largest_batch=problem["batch"]
    )
    assert others[outside.centers].tolist() == inside.centers[len(anchors) :].tolist()
    assert np.array_equal(outside.radii, inside.radii)
    assert outside.start_radius == inside.start_radius


@settings(max_examples=examples(quick=250, thorough=1_500), deadline=None)
@given(problems())
def test_k_center_greedy__equals_the_textbook(problem: dict[str, Any]) -> None:
    rows, k, anchors = problem["rows"], problem["k"], problem["preselected"]
    found = k_center_greedy(
        rows, k, preselected=anchors, start=problem["start"], largest_batch=problem["batch"]
    )
    centers, values = textbook(rows, k, preselected=anchors, start=problem["start"])
    assert found.centers.tolist() == centers
    assert np.array_equal(found.radii, values[1:])
    assert (np.diff([found.start_radius, *found.radii]) <= 0).all() or not k


@pytest.mark.full
@settings(max_examples=20_000, deadline=None)
@given(problems())
def test_k_center_greedy__equals_the_textbook_at_length(problem: dict[str, Any]) -> None:
    test_k_center_greedy__equals_the_textbook.hypothesis.inner_test(problem)  # type: ignore[attr-defined]


@settings(max_examples=examples(quick=40, thorough=100), deadline=None)
@given(problems(), st.data())
def test_k_center_greedy__prefixes_and_growth(problem: dict[str, Any], data: st.DataObject) -> None:
    rows, k, anchors, start = (problem[name] for name in ("rows", "k", "preselected", "start"))
    whole = k_center_greedy(rows, k, preselected=anchors, start=start)
    few = data.draw(st.integers(0, k))
    first = k_center_greedy(rows, few, preselected=anchors, start=start)
    assert first.centers.tolist() == whole.centers.tolist()[: len(anchors) + few]
    if few or anchors:
        grown = k_center_greedy(rows, k - few, preselected=first.centers)
        assert grown.centers.tolist() == whole.centers.tolist()


@settings(max_examples=examples(quick=40, thorough=100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_k_center_greedy__order_of_rows_does_not_matter(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6)).astype(np.float32)  # without ties
    order = rng.permutation(n)
    k = int(rng.integers(1, n + 1))
    plain = k_center_greedy(rows, k, start=int(order[0]))
    shuffled = k_center_greedy(rows[order], k, start=0)
    assert order[shuffled.centers].tolist() == plain.centers.tolist()
    assert np.array_equal(plain.radii, shuffled.radii)


def test_k_center_greedy__batches_save_passes() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(6000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    batched = k_center_greedy(rows, 300)
    single = k_center_greedy(rows, 300, largest_batch=1)
    assert batched.centers.tolist() == single.centers.tolist() == textbook(rows, 300)[0]
    assert single.passes == 302  # the summary, the mean, and one per pick
    assert batched.passes < 20


def test_k_center_greedy__near_ties_are_settled_in_float64() -> None:
    """Many rows within float32 rounding of the farthest: GEMM and GEMV would disagree here."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(3000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:, 0] += 1e-9 * rng.normal(size=3000)
    rows = np.repeat(rows[:1500], 2, axis=0) + 1e-9 * rng.normal(size=(3000, 64))
    found = k_center_greedy(rows, 1600)
    centers, values = textbook(rows, 1600)
    assert found.centers.tolist() == centers
    assert np.array_equal(found.radii, values[1:])


def test_k_center_greedy__lower_bound_holds() -> None:
    """Against the best of all choices, on inputs small enough to try them."""
    from itertools import combinations

    rng = np.random.default_rng(3)
    for _ in range(30):
        rows = rng.normal(size=(9, 2))
        between = np.sqrt(np.square(rows[:, None] - rows).sum(axis=2))
        found = k_center_greedy(rows, 3, preselected=[0])
        best = min(
            between[:, [0, *centers]].min(axis=1).max() for centers in combinations(range(9), 3)
        )
        assert found.lower_bound <= best <= found.covering_radius <= 2 * best + 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 6}, "cannot choose 6 in addition to 0 preselected of 5 rows"),
        ({"k": 4, "preselected": [0, 1]}, "cannot choose 4 in addition to 2 preselected"),
        ({"k": -1}, "cannot choose -1"),
        ({"k": 1, "preselected": [1, 1]}, "occurs twice"),
        ({"k": 1, "preselected": [5]}, "outside 0..4"),
        ({"k": 1, "start": 5}, "start needs an index"),
        ({"k": 1, "start": 0, "preselected": [1]}, "nothing preselected"),
    ],
)
def test_k_center_greedy__refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_center_greedy(np.eye(5), **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_k_center_greedy__refuses_rows_that_are_no_numbers(value: float) -> None:
    rows = np.eye(5)
    rows[3, 1] = value
    with pytest.raises(ValueError, match=r"1 rows are not finite .* e\.g\. 3"):
        k_center_greedy(rows, 2)


def test_k_center_greedy__refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match="rows must be"):
        k_center_greedy(np.zeros((3, 3), dtype=np.int64), 1)


def test_k_center_greedy__very_many_preselected_are_never_all_in_float64() -> None:
    class Counted(ArrayRows):
        most = 0

        def take(self, indices: Indices) -> Float64s:
            self.most = max(self.most, indices.size)
            return super().take(indices)

    rows = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    source = Counted(rows)
    found = k_center_greedy(source, 3, preselected=np.arange(5000))
    assert source.most <= CENTERS_PER_PASS
    centers, _ = textbook(rows, 3, preselected=list(range(5000)))
    assert found.centers[5000:].tolist() == centers[5000:]


def test_k_center_greedy__of_nothing() -> None:
    nothing = k_center_greedy(np.empty((0, 3)), 0)
    assert (nothing.centers.tolist(), nothing.radii.tolist()) == ([], [])
    for count in (0, 3):
        with pytest.raises(ValueError, match="no dimensions"):
            k_center_greedy(np.empty((count, 0)), 0)
