"""Splits: nothing straddles, and what cannot be is refused with its numbers."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counts import examples
from pixsift.core.choosing.splits import _deal, assign
from pixsift.core.dedup import cosine_distance
from pixsift.errors import UserError
from pixsift.messages import Split
from pools import make_pool, unit_rows

THREE = Split(train=0.8, val=0.1, test=0.1)


def test_assign__one_split_takes_all() -> None:
    pool = make_pool(unit_rows(3, 4))
    assert assign(pool, np.array([2, 0]), Split()) == ["train", "train"]


def test_assign__shares_are_met_without_groups() -> None:
    pool = make_pool(unit_rows(50, 4))
    counts = Counter(assign(pool, np.arange(50), THREE))
    assert counts == {"train": 40, "val": 5, "test": 5}


def test_assign__the_seed_decides_who() -> None:
    pool = make_pool(unit_rows(50, 4))
    first, again, other = (assign(pool, np.arange(50), THREE, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(20, 120),
    recordings=st.integers(5, 40),
    min_distance=st.sampled_from([None, 0.01, 0.05]),
)
def test_assign__nothing_straddles(
    seed: int, count: int, recordings: int, min_distance: float | None
) -> None:
    rng = np.random.default_rng(seed)
    rows = unit_rows(count, 8, seed=seed)
    twins = rng.integers(count, size=count // 4)
    rows[: twins.size] = rows[twins]
    names = [f"rec{i}" for i in rng.integers(recordings, size=count)]
    pool = make_pool(rows, {"recording": names})
    indices = rng.permutation(count)[: count - 3].astype(np.intp)
    split = THREE.model_copy(update={"group_by": ["recording"], "min_distance": min_distance})
    try:
        names_of = assign(pool, indices, split, seed=seed)
    except UserError as refused:
        assert "must stay in one split" in str(refused)
        return
    home: dict[str, str] = {}
    for index, name in zip(indices, names_of, strict=True):
        assert home.setdefault(names[index], name) == name
    for a in range(indices.size):
        for b in range(a):
            if names_of[a] != names_of[b] and min_distance:
                assert cosine_distance(rows[indices[a]], rows[indices[b]]) >= min_distance
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        off = abs(names_of.count(name) / indices.size - share)
        assert off <= max(0.05, 1 / indices.size) + 1e-9


def test_assign__the_bound_itself_may_straddle() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float16)
    half = Split(train=0.5, test=0.5, min_distance=1.0)
    assert Counter(assign(make_pool(rows), np.arange(4), half)) == {"train": 2, "test": 2}
    with pytest.raises(UserError, match=r"pairs nearer than 1\.1 joined 3 more"):
        assign(make_pool(rows), np.arange(4), half.model_copy(update={"min_distance": 1.1}))


def test_assign__refuses_with_numbers() -> None:
    pool = make_pool(unit_rows(10, 4), {"robot": ["a"] * 7 + ["b"] * 2 + [None]})
    split = Split(train=0.5, test=0.5, group_by=["robot"])
    with pytest.raises(
        UserError, match=r"3 groups must stay in one split; the largest has 7 images"
    ):
        assign(pool, np.arange(10), split)
    with pytest.raises(UserError, match="unknown attribute 'site'; there are: robot"):
        assign(pool, np.arange(10), split.model_copy(update={"group_by": ["site"]}))
    with pytest.raises(UserError, match="cannot split 2 images into 3 splits"):
        assign(pool, np.arange(2), THREE)


def test_assign__refuses_an_unknown_attribute_even_of_one_split() -> None:
    with pytest.raises(UserError, match="unknown attribute 'site'"):
        assign(make_pool(unit_rows(3, 4)), np.arange(3), Split(group_by=["site"]))


@settings(max_examples=examples(quick=50, thorough=150), deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=6),
    st.sampled_from([(0.5, 0.5, 0.0), (0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.1, 0.0, 0.9)]),
    st.integers(0, 9),
)
@example([30, 30, 20, 20, 20], (0.5, 0.5, 0.0), 0)
def test_assign__refuses_only_what_cannot_be(
    sizes: list[int], shares: tuple[float, float, float], seed: int
) -> None:
    total, names = sum(sizes), ("train", "val", "test")
    wanted = {name: share for name, share in zip(names, shares, strict=True) if share}
    goals = {name: share * total for name, share in wanted.items()}

    def near(counts: Counter[str]) -> bool:
        return all(counts[n] and abs(counts[n] - goals[n]) <= max(0.05 * total, 1) + 1e-6
                   for n in wanted)  # fmt: skip

    def dealt(home: tuple[str, ...]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, size in zip(home, sizes, strict=True):
            counts[name] += size
        return counts

    possible = any(near(dealt(home)) for home in product(wanted, repeat=len(sizes)))
    groups = [f"{i}" for i, size in enumerate(sizes) for _ in range(size)]
    pool = make_pool(unit_rows(total, 4), {"g": groups})
    split = Split(train=shares[0], val=shares[1], test=shares[2], group_by=["g"])
    try:
        found = assign(pool, np.arange(total), split, seed=seed)
    except UserError:
        assert not possible
        return
    assert near(Counter(found))
    assert len(set(zip(groups, found, strict=True))) == len(sizes)


THIRDS = Split(train=1 / 3, val=1 / 3, test=1 / 3, group_by=["g"])


@pytest.mark.parametrize(
    ("sizes", "split"),
    [
        ([5000, 5000, 4000, 4000, 3000, 3000, 3000], THIRDS),
        # the same, with single images that fill the gaps
        ([5000, 5000, 4000, 4000, 3000, 3000, 3000, *[1] * 300], THIRDS),
        ([60_000, 60_000, 40_000, 40_000, 40_000],
         Split(train=0.5, test=0.5, group_by=["g"])),
        ([5003, 5001, 4007, 4005, 3003, 3002, 3001, *range(40, 60)], THIRDS),
    ],
)  # fmt: skip
def test_deal__few_large_blocks_are_no_excuse(sizes: list[int], split: Split) -> None:
    """Dealt out largest first, each of these misses; another way does not."""
    total = sum(sizes)
    stops = np.cumsum(sizes)
    blocks = [list(range(stop - size, stop)) for size, stop in zip(sizes, stops, strict=True)]
    shares = {name: share for name in ("train", "val", "test")
              if (share := getattr(split, name)) > 0}  # fmt: skip
    found = Counter(_deal(blocks, shares, total, seed=0, story=""))
    assert all(abs(found[name] - share * total) <= 0.05 * total for name, share in shares.items())


def test_deal__a_block_too_large_among_many_is_refused_soon() -> None:
    blocks = [list(range(60_000)), *([i] for i in range(60_000, 100_000))]
    with pytest.raises(UserError, match="cannot split 100000 images"):
        _deal(blocks, {"train": 0.4, "val": 0.3, "test": 0.3}, 100_000, seed=0, story="")


def test_assign__images_without_the_attribute_stay_together() -> None:
    pool = make_pool(unit_rows(8, 4), {"robot": [None] * 4 + ["a", "b", "c", "d"]})
    names = assign(pool, np.arange(8), Split(train=0.5, test=0.5, group_by=["robot"]))
    assert len(set(names[:4])) == 1


def test_assign__a_grown_snapshot_keeps_the_splits_of_the_earlier_ones_groups() -> None:
    rng = np.random.default_rng(3)
    groups = [f"r{i:02d}" for i in rng.integers(30, size=400)]
    pool = make_pool(unit_rows(400, 6, seed=3), {"recording": groups})
    split = Split(train=0.6, val=0.2, test=0.2, group_by=["recording"])
    first = np.sort(rng.choice(400, 120, replace=False))
    earlier = dict(zip(first.tolist(), assign(pool, first, split, seed=1), strict=True))
    rest = np.setdiff1d(np.arange(400), first)
    found = assign(pool, rest, split, seed=2, earlier=earlier)
    homes: dict[str, set[str]] = {}
    for row, name in [*earlier.items(), *zip(rest.tolist(), found, strict=True)]:
        homes.setdefault(groups[row], set()).add(name)
    assert all(len(names) == 1 for names in homes.values())


def test_assign__near_copies_of_earlier_images_go_to_their_split() -> None:
    rows = unit_rows(60, 8, seed=4)
    copies = rows[:20].astype(np.float32)
    pool = make_pool(np.concatenate([rows, copies.astype(np.float16)]))
    split = Split(train=0.5, test=0.5, min_distance=0.01)
    earlier = {i: ("train", "test")[i % 2] for i in range(20)}
    found = assign(pool, np.arange(20, 80), split, earlier=earlier)
    assert found[40:] == [earlier[i] for i in range(20)]
    assert abs(found.count("train") - 30) <= 3


def test_assign__a_group_that_the_earlier_snapshot_tore_is_refused_by_name() -> None:
    pool = make_pool(unit_rows(12, 4), {"robot": ["a"] * 6 + ["b"] * 6})
    split = Split(train=0.5, test=0.5, group_by=["robot"])
    with pytest.raises(UserError, match=r"3 images .* in test and train, e.g. object 103 of robot"):
        assign(pool, np.arange(3, 12), split, earlier={0: "train", 1: "test", 2: "train"})


def test_assign__the_rest_makes_up_for_what_the_earlier_groups_took() -> None:
    groups = ["old"] * 20 + [f"new{i}" for i in range(80)]
    pool = make_pool(unit_rows(100, 4), {"run": groups})
    split = Split(train=0.5, val=0.25, test=0.25, group_by=["run"])
    found = assign(pool, np.arange(5, 100), split, earlier=dict.fromkeys(range(5), "train"))
    assert found[:15] == ["train"] * 15
    assert abs(found.count("train") - 47) <= 3
    assert abs(found.count("val") - 24) <= 3
