"""Finding by example over plain arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.choosing.rows import Float64s
from pixsift.core.choosing.similar import most_similar
from pixsift.core.retrieval import (
    Way,
    aims_of,
    grouped,
    nearest_example,
    ranked,
    scores,
    taken_in_turn,
    unit,
)
from pools import make_pool


def bunch(center: int, count: int, seed: int) -> Float64s:
    """Rows around one axis, all with a share of a common one."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.05, (count, 16))
    rows[:, center] += 1
    rows[:, 0] += 1
    return unit(rows)


def test_grouped__scenes_apart_once_the_common_part_is_out() -> None:
    rows = np.concatenate([bunch(3, 4, 1), bunch(7, 2, 2)])
    mean = rows.mean(axis=0)
    groups = grouped(unit(rows - mean), 0.9)
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3], [4, 5]]
    assert [group.tolist() for group in grouped(rows, 0.9)] == [[0, 1, 2, 3, 4, 5]]


def test_aims__modes_find_both_kinds_however_many_there_are() -> None:
    pool = np.concatenate([bunch(3, 50, 3), bunch(7, 5, 4), bunch(11, 50, 5)])
    examples = np.concatenate([bunch(3, 4, 6), bunch(7, 2, 7)])
    aims = aims_of(examples, pool.mean(axis=0), "modes")
    best, by = ranked(scores(pool, aims.vectors, pool[:0]), 10, in_turn=aims.in_turn)
    assert sorted(np.searchsorted([50, 55], best, side="right").tolist()) == [0] * 5 + [1] * 5
    assert by.tolist() == [0, 1] * 5
    # By the mean alone, the smaller kind is crowded out.
    mean = aims_of(examples, np.zeros(16), "mean")
    crowd, _ = ranked(scores(pool, mean.vectors, pool[:0]), 10, in_turn=mean.in_turn)
    assert (np.searchsorted([50, 55], crowd, side="right") == 1).sum() < 5


def test_aims__one_example_is_its_own_aim_in_every_way() -> None:
    example = bunch(3, 1, 1)
    ways: tuple[Way, ...] = ("nearest", "modes", "mean")
    for way in ways:
        aims = aims_of(example, example[0], way)
        np.testing.assert_allclose(aims.vectors, example)


def test_scores__a_counterexample_pushes_its_kind_back() -> None:
    pool = np.concatenate([bunch(3, 5, 3), bunch(7, 5, 4)])
    example = unit(pool[:1] + pool[5:6])
    plain, _ = ranked(scores(pool, example, pool[:0]), 5, in_turn=False)
    assert len(set(np.searchsorted([5], plain, side="right").tolist())) == 2
    pushed, _ = ranked(scores(pool, example, pool[5:6]), 5, in_turn=False)
    assert sorted(pushed.tolist()) == [0, 1, 2, 3, 4]


@given(st.lists(st.permutations(range(8)), min_size=1, max_size=4), st.integers(0, 10))
def test_taken_in_turn__nothing_twice_and_each_in_turn(orders: list[list[int]], k: int) -> None:
    rows, by = taken_in_turn([np.array(order) for order in orders], k)
    assert len(set(rows.tolist())) == len(rows) == min(k, 8)
    assert by.tolist() == [n % len(orders) for n in range(len(by))]


def test_most_similar__is_the_very_ranking_of_a_search() -> None:
    rng = np.random.default_rng(5)
    halves = unit(rng.normal(size=(300, 16))).astype(np.float16)
    halves[100:110] = halves[:10]  # ties
    targets, against = halves[:3].astype(np.float64), halves[50:52].astype(np.float64)
    pool = make_pool(halves, {})
    chosen, _ = most_similar(pool.rows, targets, against, 40)
    aims = aims_of(targets, np.zeros(16), "nearest")
    found, _ = ranked(
        scores(halves.astype(np.float64), aims.vectors, against), 40, in_turn=aims.in_turn
    )
    assert chosen.tolist() == found.tolist()


def test_nearest_example__in_float64_over_the_stored_halves() -> None:
    rows = np.eye(16)[:2]
    near, distances = nearest_example(rows, np.eye(16)[[1, 5]])
    assert near.tolist() == [0, 0]
    assert distances == pytest.approx([1.0, 0.0])
