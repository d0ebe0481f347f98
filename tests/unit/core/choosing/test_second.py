"""The strategies and terms of snapshot-request/2, on pools of known structure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixsift.core.choosing.auto import HANDFUL, resolved
from pixsift.core.choosing.pool import Facts, Pool
from pixsift.core.choosing.rows import Indices
from pixsift.core.choosing.sampling import Selection, select
from pixsift.errors import UserError
from pixsift.messages import Select, Select2
from pools import make_pool, unit_rows
from textbook_facility import similarities, textbook_facility

Rows = NDArray[np.floating]


def choose(pool: Pool, preselected: list[int] | None = None, **request: Any) -> Selection:
    return select(pool, Select2.model_validate(request), preselected=preselected or [])


def with_junk(seed: int = 0) -> tuple[Rows, NDArray[np.bool_]]:
    """270 rows of nine classes and 30 of nothing at all."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([unit_rows(270, 24, seed=seed, centers=9), unit_rows(30, 24, seed=77)])
    order = rng.permutation(300)
    return rows[order], order >= 270


def test_select__typical_is_the_textbooks_and_says_how_good_it_is() -> None:
    rows = unit_rows(150, 8, seed=1, centers=6)
    pool = make_pool(rows)
    found = choose(pool, strategy="typical", k=20, trim_outliers=0.0)
    assert found.indices.tolist() == textbook_facility(rows, 20)[0]
    best, least = (
        found.report[name] for name in ("mean_distance", "best_possible_mean_distance_at_least")
    )
    assert isinstance(best, float)
    assert isinstance(least, float)
    sims = similarities(rows, rows)[:, found.indices].max(axis=1)
    assert best == pytest.approx((1 - sims).mean(), abs=1e-5)
    assert least <= best


def test_select__typical_stands_for_what_an_earlier_choice_does_not() -> None:
    rows = unit_rows(150, 8, seed=1, centers=6)
    pool = make_pool(rows)
    earlier = [100 + i for i in range(0, 30)]
    found = choose(pool, earlier, strategy="typical", k=10, trim_outliers=0.0)
    rest = rows[30:]
    expected = textbook_facility(rest, 10, outside=rows[:30])[0]
    assert (found.indices - 30).tolist() == expected


def test_select__typical_takes_no_junk_and_k_center_says_when_it_does() -> None:
    rows, junk = with_junk()
    pool = make_pool(rows)
    assert junk[choose(pool, strategy="typical", k=40).indices].sum() == 0
    assert junk[choose(pool, strategy="auto", k=20).indices].sum() == 0
    raw = choose(pool, strategy="farthest", k=40)
    assert junk[raw.indices].sum() > 20
    assert "odd images" in str(raw.report["warning"])
    assert not raw.outliers.size
    tidy = choose(pool, strategy="k_center", k=40)
    assert 25 <= tidy.outliers.size <= 45
    assert junk[tidy.outliers[:25] - 100].mean() > 0.9
    assert junk[tidy.indices].sum() <= 4


def test_select__the_raw_traversal_is_the_first_versions_k_center() -> None:
    pool = make_pool(with_junk()[0])
    first = select(pool, Select(strategy="k_center", k=30, seed=4))
    assert choose(pool, strategy="farthest", k=30, seed=4).indices.tolist() == (
        first.indices.tolist()
    )


def test_select__mixed_is_typical_without_what_stands_for_itself_alone() -> None:
    rows = unit_rows(200, 8, seed=3, centers=10)
    found = choose(make_pool(rows), strategy="mixed", k=40, trim_outliers=0.0)
    sims = similarities(rows, rows)
    others = np.round(np.where(np.eye(200) > 0, -1, sims).max(axis=1), 5)
    picks = textbook_facility(rows, 40, own=others + 0.1 * (1 - others))[0]
    assert found.indices.tolist() == picks
    plain = choose(make_pool(rows), strategy="typical", k=40, trim_outliers=0.0).indices
    assert others[found.indices].mean() > others[plain].mean()


def test_select__balanced_shares_by_clusters_and_takes_their_middles() -> None:
    rows = np.concatenate(
        [unit_rows(160, 16, seed=1, centers=1), unit_rows(40, 16, seed=2, centers=1)]
    )
    found = choose(make_pool(rows), strategy="balanced", k=15, clusters=2, trim_outliers=0.0)
    small = int((found.indices >= 160).sum())
    assert small == 5  # in step with the roots of 160 and 40
    even = choose(
        make_pool(rows),
        strategy="balanced",
        k=15,
        clusters=2,
        cluster_share="proportional",
        trim_outliers=0.0,
    )
    assert int((even.indices >= 160).sum()) == 3


@pytest.mark.parametrize(
    "request_",
    [
        {"strategy": "typical"},
        {"strategy": "mixed"},
        {"strategy": "k_center"},
        {"strategy": "random"},
        {"strategy": "balanced"},
        {"strategy": "stratified", "quota": {"by": "robot"}},
        {"strategy": "typical", "quota": {"by": "robot"}},
    ],
)
def test_select__no_two_chosen_lie_nearer_than_min_distance(request_: dict[str, Any]) -> None:
    rows = unit_rows(240, 4, seed=6, centers=6)
    pool = make_pool(rows, {"robot": ["a", "b"] * 120})
    found = choose(pool, [100, 101], k=30, min_distance=0.01, at_most=True, **request_)
    together = np.concatenate([[0, 1], found.indices])
    between = 1 - similarities(rows[together], rows[together]) + 2 * np.eye(together.size)
    between[0, 1] = between[1, 0] = 2  # the earlier two may be as they are
    assert between.min() >= 0.01
    with pytest.raises(UserError, match=r"min_distance|too near"):
        choose(pool, k=150, min_distance=0.2, **request_)


def test_resolved__says_why() -> None:
    few, reason = resolved(Select2(k=HANDFUL), 1000)
    assert few.strategy == "balanced"
    assert reason is not None
    assert "4 of 1000 images (0.4 %)" in reason
    assert resolved(Select2(k=100), 1000)[0].strategy == "typical"
    assert resolved(Select2(k=300), 1000)[0].strategy == "mixed"
    many, _ = resolved(Select2(k=500, seed=3), 1000)
    assert (many.strategy, many.seed) == ("balanced", 3)
    assert many.trim_outliers == 0.1
    rare, _ = resolved(Select2(k=10, purpose="rare"), 1000)
    assert rare.strategy == "k_center"
    assert rare.trim_outliers == 0.15
    # Terms are of facility location, at any size.
    for term in ({"novelty": 0.5, "preselected_snapshot": "s"}, {"balance": {"by": "robot"}}):
        most, _ = resolved(Select2.model_validate({"k": 500, **term}), 1000)
        assert most.strategy == "mixed"
        few, _ = resolved(Select2.model_validate({"k": 2, **term}), 1000)
        assert few.strategy == "typical"
    named = Select2(strategy="random", k=10)
    assert resolved(named, 1000) == (named, None)
    quota = Select2.model_validate({"k": 10, "quota": {"by": "robot"}})
    assert resolved(quota, 1000)[0].inside == "typical"


def weighed_pool(rows: Rows, attributes: dict[str, Sequence[str | None]], sharp: Rows) -> Pool:
    pool = make_pool(rows, attributes)
    facts = Facts(
        pool.facts.object_ids, pool.facts.attributes, {"sharpness": sharp.astype(np.float32)},
        pool.facts.captured_at, pool.facts.is_s3_time,
    )  # fmt: skip
    return Pool(facts, pool.rows, pool.eligible)


def test_select__terms_pull_the_choice_their_way() -> None:
    rows = unit_rows(200, 8, seed=5, centers=4)
    rng = np.random.default_rng(2)
    sharp = rng.random(200)
    sharp[::10] = np.nan
    far = unit_rows(1, 8, seed=9)[0].astype(np.float64)
    loss: list[str | None] = [f"{value:.6f}" for value in rows.astype(np.float64) @ far]
    loss[3] = None
    site: Sequence[str | None] = ["common"] * 180 + ["rare"] * 20
    columns: dict[str, Sequence[str | None]] = {"loss": loss, "site": site}
    pool = weighed_pool(rows, columns, sharp)
    plain = choose(pool, strategy="typical", k=20).indices

    def mean_of(values: Rows, picks: Indices) -> float:
        return float(np.nanmean(values[picks]))

    preferred = choose(
        pool, strategy="typical", k=20, prefer=[{"metric": "sharpness", "strength": 1.0}]
    ).indices
    assert mean_of(sharp, preferred) > mean_of(sharp, plain) + 0.1
    losses = rows.astype(np.float64) @ far
    emphasized = choose(
        pool, strategy="typical", k=20, emphasize={"attribute": "loss", "strength": 1.0}
    )
    assert mean_of(losses, emphasized.indices) > mean_of(losses, plain)
    assert emphasized.report["without_emphasis"] == 1
    balanced = choose(pool, strategy="typical", k=20, balance={"by": "site", "strength": 5.0})
    assert (balanced.indices >= 180).sum() >= 9 > (plain >= 180).sum()
    near = similarities(rows, rows[:20]).max(axis=1)
    earlier = [100 + i for i in range(20)]
    new = choose(
        pool, earlier, strategy="typical", k=20, novelty=1.0, preselected_snapshot="s"
    ).indices
    old = choose(pool, earlier, strategy="typical", k=20).indices
    assert near[new].mean() < near[old].mean()
    with pytest.raises(UserError, match="holds no numbers"):
        choose(pool, strategy="typical", k=2, emphasize={"attribute": "site"})
    with pytest.raises(UserError, match="unknown quality metric 'blur'"):
        choose(pool, strategy="typical", k=2, prefer=[{"metric": "blur"}])
