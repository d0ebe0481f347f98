"""Matches against the plain definition, on random vectors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixsift.core.retrieval import unit
from pixsift.core.watching import Aim, Match, Matcher, modes_of

DIMENSION = 8


def halves(chance: np.random.Generator, count: int) -> NDArray[np.float16]:
    return unit(chance.standard_normal((count, DIMENSION))).astype(np.float16)


def distance(a: NDArray[np.float16], b: NDArray[np.float16]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return max(0.0, round(1.0 - float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y)), 9))


def by_definition(aims: list[Aim], vector: NDArray[np.float16]) -> dict[int, tuple[int, float]]:
    found: dict[int, tuple[int, float]] = {}
    for watch_id in {aim.watch_id for aim in aims}:
        mine = [aim for aim in aims if aim.watch_id == watch_id]
        near = [(distance(aim.vector, vector), aim.mode) for aim in mine if not aim.is_against]
        far = [distance(aim.vector, vector) for aim in mine if aim.is_against]
        best, mode = min(near)
        if best <= mine[0].max_distance and not any(d <= best for d in far):
            found[watch_id] = (mode, best)
    return found


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 40))
def test_match__is_the_definition(seed: int, watches: int, images: int) -> None:
    chance = np.random.default_rng(seed)
    aims: list[Aim] = []
    for watch_id in range(watches):
        limit = float(chance.choice([0.0, 0.2, 0.7, 1.0, 2.0]))
        for is_against, count in ((False, chance.integers(1, 4)), (True, chance.integers(0, 3))):
            aims += [Aim(watch_id, mode, is_against, limit, False, vector)
                     for mode, vector in enumerate(halves(chance, int(count)))]  # fmt: skip
    rows = halves(chance, images)
    if images:
        rows[0] = aims[0].vector  # the example itself arrives
    found = Matcher(aims).match(rows)
    assert len(found) == images
    for row, matches in zip(rows, found, strict=True):
        expected = by_definition(aims, row)
        assert [match.watch_id for match in matches] == sorted(expected)
        for match in matches:
            mode, far = expected[match.watch_id]
            assert match.mode == mode and abs(match.distance - far) < 1e-12


def test_match__without_watches_or_images_is_empty() -> None:
    assert Matcher.empty().match(halves(np.random.default_rng(1), 2)) == [[], []]
    one = Matcher([Aim(7, 0, False, 2.0, True, halves(np.random.default_rng(1), 1)[0])])
    assert one.match(np.empty((0, DIMENSION), np.float16)) == []
    assert one and not Matcher.empty()


def test_match__a_watch_that_wants_everything_costs_no_memory() -> None:
    chance = np.random.default_rng(3)
    aims = [Aim(n, 0, False, 2.0, False, v) for n, v in enumerate(halves(chance, 300))]
    found = Matcher(aims).match(halves(chance, 64))
    assert all(len(matches) == 300 for matches in found)
    assert isinstance(found[0][0], Match)


def test_nearest__agrees_with_match() -> None:
    chance = np.random.default_rng(4)
    aims = [Aim(1, n, False, 2.0, False, v) for n, v in enumerate(halves(chance, 3))]
    aims += [Aim(1, n, True, 2.0, False, v) for n, v in enumerate(halves(chance, 2))]
    rows = halves(chance, 50)
    matcher = Matcher(aims)
    distances, modes = matcher.nearest(rows)
    for number, matches in enumerate(matcher.match(rows)):
        if matches:
            assert abs(matches[0].distance - distances[number]) < 1e-12
            assert matches[0].mode == modes[number]
        else:
            assert np.isinf(distances[number])


def test_modes_of__each_example_the_mean_or_groups() -> None:
    examples = unit(np.array([[1, 0.1, 0], [1, -0.1, 0], [0, 0, 1.0]]))
    mean = np.full(3, 0.3)
    each, groups = modes_of(examples, mean, "nearest")
    assert len(each) == 3 and [g.tolist() for g in groups] == [[0], [1], [2]]
    one, groups = modes_of(examples, mean, "mean")
    assert len(one) == 1 and groups[0].tolist() == [0, 1, 2]
    two, groups = modes_of(examples, mean, "modes")
    assert [g.tolist() for g in groups] == [[0, 1], [2]]
    assert two.dtype == np.float16
    assert np.allclose(two, [[1, 0, 0], [0, 0, 1]], atol=1e-3)
