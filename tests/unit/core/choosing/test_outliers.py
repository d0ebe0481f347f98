"""Odd images: alone or in small clumps they are left out, a class of their own is not."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixsift.core.choosing import outliers
from pixsift.core.choosing.outliers import isolation
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.rows import ArrayRows
from pixsift.core.choosing.sampling import select
from pixsift.messages import Select2
from pools import make_pool

Floats = NDArray[np.float64]
_DIMENSION = 32


def pool(count: int, *others: Floats, seed: int = 0) -> ArrayRows:
    """``count`` rows of ten classes, then others."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(10, _DIMENSION))
    rows = centers[rng.integers(10, size=count)] + 0.7 * rng.normal(size=(count, _DIMENSION))
    rows = np.concatenate([rows, *others])
    return ArrayRows((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))


def alone(count: int, *, seed: int = 50) -> Floats:
    """Rows that are like nothing."""
    return np.asarray(np.random.default_rng(seed).normal(size=(count, _DIMENSION)))


def clumps(sizes: list[int], *, spread: float = 0.3, seed: int = 60) -> Floats:
    """Groups of rows that are like each other and like nothing else."""
    rng = np.random.default_rng(seed)
    middles = np.repeat(rng.normal(size=(len(sizes), _DIMENSION)), sizes, axis=0)
    return np.asarray(middles + spread * rng.normal(size=middles.shape))


@pytest.mark.parametrize("count", [540, 1900])
def test_isolation__what_is_like_nothing_is_odd(count: int) -> None:
    rows = pool(count, alone(count // 9))
    found = isolation(rows, seed=0)
    assert found.odd[count:].mean() > 0.95
    assert found.odd[:count].mean() < 0.12
    # The junk comes first.
    assert (found.farthest(count // 9) >= count).mean() > 0.9
    assert (np.diff(found.distances[found.farthest(rows.count)]) <= 0).all()


@pytest.mark.parametrize("count", [540, 1900])
def test_isolation__clumps_of_two_to_five_are_odd_together(count: int) -> None:
    sizes = [2, 3, 4, 5] * (count // 120)
    rows = pool(count, clumps(sizes))
    assert isolation(rows, seed=0).odd[count:].mean() > 0.9


@pytest.mark.parametrize(("count", "size"), [(540, 40), (1900, 16), (1900, 40)])
def test_isolation__junk_of_one_kind_is_a_class(count: int, size: int) -> None:
    rows = pool(count, clumps([size], spread=0.7), alone(count // 10))
    found = isolation(rows, seed=0)
    assert found.odd[count : count + size].mean() < 0.4
    assert found.odd[count + size :].mean() > 0.9


@pytest.mark.parametrize("count", [600, 1000, 1200, 4000])
def test_isolation__a_class_of_half_a_percent_stays(count: int) -> None:
    """However far it is from all others; three images in a pool of 600."""
    size = count // 200
    rows = pool(count - size, clumps([size]))
    assert not isolation(rows, seed=0).odd[-size:].any()


def test_isolation__bursts_do_not_make_single_images_odd() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=(10, _DIMENSION))[rng.integers(10, size=160)]
    scenes += 0.7 * rng.normal(size=scenes.shape)
    frames = np.repeat(scenes[:40], 12, axis=0)
    frames += 0.05 * rng.normal(size=frames.shape)
    rows = np.concatenate([frames, scenes[40:]])
    found = isolation(ArrayRows(rows / np.linalg.norm(rows, axis=1, keepdims=True)), seed=0)
    assert found.odd[480:].mean() < 0.25  # a fifth of the pool is single


def test_isolation__neighbors_drawn_find_the_same_junk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pool(3600, alone(400))
    whole = isolation(rows, seed=0)
    monkeypatch.setattr(outliers, "_REFERENCES", 1000)
    drawn = isolation(rows, seed=0)
    assert (whole.odd == drawn.odd).mean() > 0.95
    assert drawn.odd[3600:].mean() > 0.95


def test_isolation__far_junk_beside_tight_classes_is_extreme() -> None:
    rng = np.random.default_rng(1)
    tight = np.repeat(rng.normal(size=(9, _DIMENSION)), 30, axis=0)
    tight += 0.2 * rng.normal(size=tight.shape)
    rows = np.concatenate([tight, alone(30)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = isolation(ArrayRows(rows), seed=0, beyond=outliers.EXTREME)
    assert found.odd[270:].all()
    assert found.odd[:270].mean() < 0.01


def test_isolation__copies_and_tiny_pools_have_no_odd_rows() -> None:
    assert not isolation(ArrayRows(np.ones((40, 4), np.float32)), seed=0).odd.any()
    assert not isolation(pool(8), seed=0).odd.any()
    zeros = ArrayRows(np.zeros((40, 4), np.float32))
    assert isolation(zeros, seed=0).odd.size == 40


def classed(common: int, rare: int) -> tuple[Pool, int]:
    """A pool with an attribute ``class``; the rare ones come last, far apart from all others."""
    rows = pool(common, 2 * alone(rare))
    values = ["common"] * common + ["rare"] * rare
    return make_pool(np.asarray(rows.take(np.arange(rows.count))), {"class": values}), common


@pytest.mark.parametrize(
    "asked",
    [
        {"strategy": "stratified", "k": 20, "quota": {"by": "class", "share": "equal"}},
        {"strategy": "typical", "k": 20, "balance": {"by": "class", "strength": 5.0}},
    ],
)  # fmt: skip
def test_trimming__leaves_a_class_that_is_asked_for_its_images(asked: dict[str, Any]) -> None:
    classes, common = classed(1995, 5)
    found = select(classes, Select2.model_validate(asked))
    assert not (found.outliers >= 100 + common).any()


@pytest.mark.parametrize(("strategy", "k"), [("k_center", 95), ("typical", 100)])
def test_trimming__never_makes_a_choice_too_large(strategy: str, k: int) -> None:
    few = make_pool(np.asarray(pool(100).take(np.arange(100))))
    assert select(few, Select2.model_validate({"strategy": strategy, "k": k})).indices.size == k


def test_trimming__counts_what_was_chosen_earlier_as_neighbors() -> None:
    rows = pool(1988, clumps([12]))
    grown = make_pool(np.asarray(rows.take(np.arange(rows.count))))
    earlier = list(range(100 + 1988, 100 + 1997))
    found = select(
        grown, Select2.model_validate({"strategy": "k_center", "k": 20}), preselected=earlier
    )
    assert not (found.outliers >= 100 + 1988).any()
