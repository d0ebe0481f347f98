"""Strategies: what they choose, what they never choose, and what they refuse."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pixsift.core.choosing.clusters import cluster
from pixsift.core.choosing.coverage import compare
from pixsift.core.choosing.outliers import most_isolated
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.rows import ArrayRows, Float32s, Float64s, Indices, RowSource
from pixsift.core.choosing.sampling import select
from pixsift.errors import UserError
from pixsift.messages import Quota, Select, Strategy
from pools import make_pool, unit_rows
from textbook import textbook

ROBOTS: list[str | None] = [*["a"] * 60, *["b"] * 30, *["c"] * 6, *[None] * 4]
POOL = make_pool(unit_rows(100, 8, seed=1, centers=9), {"robot": ROBOTS})


def requests() -> list[Select]:
    """One of each strategy, for 20 images."""
    return [
        Select(k=20),
        Select(k=20, strategy="balanced", clusters=5),
        Select(k=20, strategy="balanced", cluster_share="sqrt"),
        *(Select(k=20, strategy="stratified", quota=Quota(by="robot", inside=inside))
          for inside in ("k_center", "balanced", "random")),
        Select(k=20, strategy="random"),
        Select(k=20, strategy="similar", similar_to=["s3://raw/t"], dissimilar_to=["s3://raw/d"]),
    ]  # fmt: skip


def named(pool: Pool = POOL) -> Pool:
    """The pool, with names for three of its images."""
    return replace(pool, named={"s3://raw/t": (103,), "s3://raw/d": (150,), "s3://raw/x": (107,)})


@pytest.mark.parametrize("request_", requests(), ids=lambda r: f"{r.strategy}-{r.cluster_share}")
def test_select__is_whole_deterministic_and_keeps_away(request_: Select) -> None:
    asked = request_.model_copy(update={"exclude": ["s3://raw/x"]})
    before = [101, 102, 160]
    first, again = (select(named(), asked, preselected=before) for _ in range(2))
    ids = first.object_ids.tolist()
    assert ids == again.object_ids.tolist()
    assert len(set(ids)) == 20 == len(first.reasons)
    assert not set(ids) & {*before, 107}
    assert first.report["candidates"] == 96
    assert np.array_equal(POOL.object_ids[first.indices], first.object_ids)


def test_select__k_center_is_the_textbooks() -> None:
    rows = unit_rows(100, 8, seed=1, centers=9)
    before = [4, 40]
    chosen = select(POOL, Select(k=30), preselected=[100 + i for i in before])
    centers, radii = textbook(rows, 30, preselected=before)
    assert chosen.indices.tolist() == centers[2:]
    assert chosen.radii == pytest.approx(np.square(radii[1:]) / 2, abs=1e-15)
    assert chosen.report["covering_radius"] == pytest.approx(radii[-1] ** 2 / 2, abs=1e-15)
    assert chosen.report["best_possible_radius_at_least"] == pytest.approx(radii[-1] ** 2 / 8)


def test_select__the_seed_picks_the_start() -> None:
    starts = {int(select(POOL, Select(k=3, seed=seed)).object_ids[0]) for seed in range(8)}
    assert len(starts) > 4


def test_select__growing_goes_on_where_it_stopped() -> None:
    whole = select(POOL, Select(k=30, seed=3))
    first = select(POOL, Select(k=10, seed=3))
    more = select(POOL, Select(k=20, seed=3), preselected=first.object_ids.tolist())
    # Preselected are taken as a set; the picks after them are the same.
    assert [*first.object_ids, *more.object_ids] == whole.object_ids.tolist()


def test_select__all() -> None:
    chosen = select(POOL, Select(strategy="all"), preselected=[100])
    assert chosen.object_ids.tolist() == list(range(101, 200))


def test_select__stratified_meets_its_quotas() -> None:
    def count(**quota: Any) -> dict[str | None, int]:
        asked = Select(k=20, strategy="stratified", quota=Quota(by="robot", **quota))
        chosen = select(POOL, asked)
        return dict(Counter(ROBOTS[i] for i in chosen.indices))

    assert count() == {"a": 5, "b": 6, "c": 5, None: 4}
    assert count(share="proportional") == {"a": 12, "b": 6, "c": 1, None: 1}
    assert count(share="proportional", cap=11) == {"a": 11, "b": 7, "c": 1, None: 1}
    assert count(share="explicit", counts={"a": 1, "c": 19}) == {"a": 14, "c": 6}


@pytest.mark.parametrize("inside", ["k_center", "balanced", "random"])
def test_select__a_quota_makes_any_strategy_choose_inside_of_strata(inside: Any) -> None:
    stratified = Select(k=20, strategy="stratified", quota=Quota(by="robot", inside=inside))
    chosen = select(POOL, Select(k=20, strategy=inside, quota=Quota(by="robot")))
    assert chosen.object_ids.tolist() == select(POOL, stratified).object_ids.tolist()


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (Select(k=500, at_most=True), 100),
        (Select(k=500, at_most=True, max_pool=30), 30),
        (Select(k=500, at_most=True, strategy="balanced", clusters=3), 100),
        (Select(k=500, at_most=True, strategy="random"), 100),
        (Select(k=500, at_most=True, strategy="similar", similar_to=["s3://raw/t"]), 99),
        (Select(k=500, at_most=True, quota=Quota(by="robot", cap=10)), 30),
    ],
)
def test_select__at_most_takes_all_there_are_and_says_so(asked: Select, count: int) -> None:
    chosen = select(named(), asked)
    assert chosen.indices.size == count == chosen.report["k"]
    told = f"all {count} there are, where 500 were asked for at most"
    assert chosen.report["fewer"] == told
    assert "fewer" not in select(named(), asked.model_copy(update={"k": count})).report


def test_select__a_value_named_like_the_missing_loses_no_image() -> None:
    pool = make_pool(unit_rows(6, 4), {"robot": ["(missing)", None, "a", "(missing)", None, "a"]})
    chosen = select(pool, Select(strategy="stratified", k=6, quota=Quota(by="robot")))
    assert sorted(chosen.indices) == list(range(6))


def test_select__strata_keep_away_from_what_other_strata_chose_before() -> None:
    rows = unit_rows(20, 8)
    rows[15] = rows[2]  # the twin of an image of the other stratum
    pool = make_pool(rows, {"robot": ["a"] * 10 + ["b"] * 10})
    asked = Select(strategy="stratified", k=18, quota=Quota(by="robot"))
    chosen = [i for i in select(pool, asked, preselected=[102]).object_ids if i >= 110]
    assert 115 not in chosen[:-1]  # last of its stratum, or left out


def test_select__the_preselected_are_rows_of_no_stratum() -> None:
    """Else the work grows with strata x preselected²: a minute where a tenth of a second does."""

    class Counted(ArrayRows):
        pairs = 0

        def lower(self, nearest: Float32s, centers: Float64s) -> None:
            Counted.pairs += nearest.size * len(centers)
            super().lower(nearest, centers)

        def subset(self, indices: Indices) -> RowSource:
            return Counted(self.gather(indices))

    n, before = 600, 300
    pool = make_pool(unit_rows(n, 8), {"robot": [f"r{i % 20}" for i in range(n)]})
    asked = Select(k=40, quota=Quota(by="robot"))
    ids = pool.object_ids[:before].tolist()
    expected = select(pool, asked, preselected=ids).object_ids.tolist()
    counted = replace(pool, rows=Counted(unit_rows(n, 8)))
    assert select(counted, asked, preselected=ids).object_ids.tolist() == expected
    assert Counted.pairs <= (n - before) * (before + 40)


def test_select__tells_which_strata_ran_short() -> None:
    asked = Select(k=40, strategy="stratified", quota=Quota(by="robot"))
    report = select(POOL, asked).report
    assert report["exhausted"] == ["(missing)", "c"]
    assert report["groups"] == {
        "(missing)": {"images": 4, "chosen": 4}, "a": {"images": 60, "chosen": 15},
        "b": {"images": 30, "chosen": 15}, "c": {"images": 6, "chosen": 6},
    }  # fmt: skip


def test_select__prefixes_of_a_stratified_choice_are_balanced() -> None:
    chosen = select(POOL, Select(k=18, strategy="stratified", quota=Quota(by="robot", cap=6)))
    early = Counter(ROBOTS[i] for i in chosen.indices[:8])
    assert set(early) == {"a", "b", "c", None}


def test_select__balanced_takes_equally_from_clusters() -> None:
    rows = np.repeat(np.eye(4), [70, 20, 7, 3], axis=0)
    rows += 0.01 * np.random.default_rng(0).normal(size=rows.shape)
    chosen = select(make_pool(rows), Select(k=12, strategy="balanced", clusters=4))
    assert Counter(np.argmax(rows[chosen.indices], axis=1).tolist()) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_select__similar_is_nearest_first_and_away_from_counterexamples() -> None:
    rows = unit_rows(100, 8, seed=1, centers=9).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = select(named(), Select(k=5, strategy="similar", similar_to=["s3://raw/t"]))
    nearest = [i for i in np.argsort(-(rows @ rows[3]), kind="stable") if i != 3][:5]
    assert plain.indices.tolist() == nearest
    assert plain.reasons[0] == (
        f"cosine distance {1 - rows[nearest[0]] @ rows[3]:.4f} to the nearest target"
    )
    asked = Select(k=5, strategy="similar", similar_to=["s3://raw/t"], dissimilar_to=["s3://raw/d"])
    scores = rows @ rows[3] - rows @ rows[50]
    best = [i for i in np.argsort(-scores, kind="stable") if i not in (3, 50)][:5]
    away = select(named(), asked)
    assert away.indices.tolist() == best
    assert away.reasons[0] == (
        f"cosine distance to the nearest target {scores[best[0]]:.4f} less than to the nearest "
        "counterexample"
    )


def test_select__similar_inside_of_strata_is_nearest_first_in_each() -> None:
    asked = Select(k=8, strategy="similar", similar_to=["s3://raw/t"], quota=Quota(by="robot"))
    chosen = select(named(), asked)
    plain = select(named(), Select(k=99, strategy="similar", similar_to=["s3://raw/t"]))
    robots = [ROBOTS[i] for i in chosen.indices]
    for robot in set(robots):
        nearest = [i for i in plain.indices if ROBOTS[i] == robot][: robots.count(robot)]
        assert [i for i in chosen.indices if ROBOTS[i] == robot] == nearest
    assert (
        max(robots.count(r) for r in set(robots)) - min(robots.count(r) for r in set(robots)) <= 1
    )


def test_select__max_pool_says_what_it_does() -> None:
    chosen = select(POOL, Select(k=10, max_pool=30))
    assert chosen.candidates.size == 30
    assert set(chosen.indices) <= set(chosen.candidates)
    assert "drawn at random" in str(chosen.report["cap_effect"])


def test_select__outliers_are_left_out_and_listed() -> None:
    rows = unit_rows(80, 16, seed=2, centers=2).astype(np.float32)
    rows[[5, 50]] = -rows.mean(axis=0) * 4  # a pair: each other's near neighbor, far from all
    pool = make_pool(rows)
    assert {105, 150} & set(select(pool, Select(k=3)).object_ids)
    trimmed = select(pool, Select(k=3, trim_outliers=0.025))
    assert trimmed.outliers.tolist() == [105, 150]
    assert not {105, 150} & set(trimmed.object_ids)


def test_select__a_share_of_less_than_one_outlier_says_so() -> None:
    report = select(POOL, Select(k=3, trim_outliers=0.009)).report
    assert "0.009 of 100 candidates is less than one image" in str(report["trim_effect"])
    assert "trim_effect" not in select(POOL, Select(k=3)).report


def test_most_isolated__pairs_count_as_isolated_for_every_seed() -> None:
    rows = unit_rows(200, 16, seed=3, centers=2).astype(np.float32)
    rows[[7, 8]] = -rows.mean(axis=0) * 4
    for seed in range(10):
        assert most_isolated(ArrayRows(rows), 2, seed=seed).tolist() == [7, 8]


def test_cluster__finds_what_is_there() -> None:
    truth = np.random.default_rng(1).integers(6, size=500)
    rows = np.eye(8)[truth] + 0.03 * np.random.default_rng(2).normal(size=(500, 8))
    labels = cluster(ArrayRows(rows), 6, seed=0)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 6


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Select(k=101), r"cannot choose 101 of 100 candidates \(100 in the pool"),
        (Select(k=96, trim_outliers=0.1), "10 trimmed as outliers"),
        (Select(k=50, max_pool=30), "cannot choose 50 of 30 candidates .* max_pool is 30"),
        (Select(k=100, exclude=["s3://raw/x"]), "0 preselected, 1 excluded, 0 trimmed"),
        (Select(k=5, exclude=["s3://raw/?"]), r"does not know s3://raw/\?"),
        (Select(k=5, strategy="similar", similar_to=["s3://raw/no"]), "does not know s3://raw/no"),
        (Select(k=5, strategy="stratified", quota=Quota(by="site")), "unknown attribute 'site'"),
        (
            Select(k=90, strategy="stratified", quota=Quota(by="robot", cap=10)),
            "cannot choose 90: the 4 groups hold 100 images, 30 with at most 10 each",
        ),
    ],
)
def test_select__refuses_with_numbers(asked: Select, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(named(), asked)


@pytest.mark.parametrize("strategy", ["k_center", "random", "all"])
def test_select__refuses_broken_pools(strategy: Strategy) -> None:
    asked = Select(k=None if strategy == "all" else 2, strategy=strategy)
    rows = unit_rows(5, 4)
    rows[3, 0] = np.nan
    with pytest.raises(UserError, match=r"1 embeddings contain NaN or infinity, .* object 103"):
        select(make_pool(rows), asked)
    pool = make_pool(unit_rows(5, 4))
    pool.object_ids[2] = 101
    with pytest.raises(UserError, match=r"object ids repeat .* 101"):
        select(pool, asked)
    with pytest.raises(UserError, match="5 images but 4 embeddings"):
        select(replace(make_pool(unit_rows(5, 4)), rows=ArrayRows(unit_rows(4, 4))), asked)
    empty = replace(make_pool(unit_rows(5, 4)), eligible=np.zeros(5, dtype=bool))
    with pytest.raises(UserError, match="the pool is empty"):
        select(empty, asked)
    with pytest.raises(UserError, match="no candidates left: 2 images in the pool, 2 presel"):
        select(make_pool(unit_rows(2, 4)), asked, preselected=[100, 101])
    with pytest.raises(UserError, match=r"1 objects have no embedding in this pool.* of another"):
        select(make_pool(unit_rows(5, 4)), asked, preselected=[99])


def test_compare__k_center_covers_better_than_chance() -> None:
    pool = make_pool(unit_rows(2000, 16, seed=5, centers=60))
    chosen = select(pool, Select(k=60))
    compared = compare(pool, chosen, by=None, seed=0)
    assert compared.selection.covering_radius == pytest.approx(float(chosen.radii[-1]), abs=1e-3)
    assert compared.selection.covering_radius < 0.8 * compared.random.covering_radius
    assert compared.measured_on == 2000
    assert sum(compared.stratified_random.strata.values()) == 60
    radii = [p.covering_radius for p in compared.selection.curve]
    assert radii == sorted(radii, reverse=True)


def test_compare__costs_a_few_bytes_a_row() -> None:
    n = 50_000
    pool = make_pool(unit_rows(n, 4), {"robot": [f"r{i % 20}" for i in range(n)]})
    chosen = select(pool, Select(k=10, strategy="random"))
    tracemalloc.start()
    try:
        compare(pool, chosen, by="robot", seed=0)
        assert tracemalloc.get_traced_memory()[1] < 90 * n
    finally:
        tracemalloc.stop()


def test_compare__by_attribute_counts_all() -> None:
    chosen = select(POOL, Select(k=20, strategy="stratified", quota=Quota(by="robot")))
    compared = compare(POOL, chosen, by="robot", seed=0)
    assert compared.pool_strata == {"a": 60, "b": 30, "c": 6, "(missing)": 4}
    assert compared.selection.strata == {"a": 5, "b": 6, "c": 5, "(missing)": 4}
    assert compared.stratified_random.strata == {"a": 12, "b": 6, "c": 1, "(missing)": 1}
    assert compared.selection.curve[-1].strata_covered == 4
