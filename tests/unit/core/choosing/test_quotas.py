"""Quotas: whole numbers that add up, within the rooms there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.choosing.quotas import Share, allocate
from pixsift.errors import UserError

SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 60), min_size=1)


@given(SIZES, st.integers(0, 400), st.sampled_from(["equal", "sqrt", "proportional"]),
       st.none() | st.integers(1, 30))  # fmt: skip
def test_allocate__adds_up_within_rooms(
    sizes: dict[str, int], k: int, share: Share, cap: int | None
) -> None:
    rooms = {name: min(size, cap or size) for name, size in sizes.items()}
    if k > sum(rooms.values()):
        with pytest.raises(UserError, match=f"cannot choose {k}"):
            allocate(sizes, k, share=share, cap=cap)
        return
    taken = allocate(sizes, k, share=share, cap=cap)
    assert sum(taken.values()) == k
    assert all(0 <= taken[name] <= rooms[name] for name in sizes)


@given(SIZES, st.integers(0, 200))
def test_allocate__equal_means_equal_where_there_is_room(sizes: dict[str, int], k: int) -> None:
    k = min(k, sum(sizes.values()))
    taken = allocate(sizes, k)
    open_ = [count for name, count in taken.items() if count < sizes[name]]
    if open_:
        assert max(open_) - min(open_) <= 1
        assert max(taken.values()) <= max(open_) + 1


@pytest.mark.parametrize(
    ("sizes", "k", "options", "expected"),
    [
        # b runs short: the rest goes to the others
        ({"a": 10, "b": 1, "c": 10}, 9, {}, {"a": 4, "b": 1, "c": 4}),
        ({"a": 90, "b": 10}, 10, {"share": "proportional"}, {"a": 9, "b": 1}),
        ({"a": 64, "b": 4}, 10, {"share": "sqrt"}, {"a": 8, "b": 2}),
        ({"a": 90, "b": 10}, 10, {"share": "proportional", "cap": 6}, {"a": 6, "b": 4}),
        ({"a": 5, "b": 5}, 6, {"share": "explicit", "counts": {"a": 4, "b": 2}}, {"a": 4, "b": 2}),
        # explicit, and a runs short: the report says so, never a shorter list
        ({"a": 3, "b": 9}, 6, {"share": "explicit", "counts": {"a": 5, "b": 1}}, {"a": 3, "b": 3}),
        ({"a": 3, "b": 9}, 4, {"share": "explicit", "counts": {"a": 4}}, {"a": 3, "b": 1}),
    ],
)  # fmt: skip
def test_allocate__cases(
    sizes: dict[str, int], k: int, options: dict[str, object], expected: dict[str, int]
) -> None:
    assert allocate(sizes, k, **options) == expected  # type: ignore[arg-type]


def test_allocate__the_seed_says_who_gets_the_odd_ones() -> None:
    sizes = {f"r{i:04d}": 10 for i in range(1000)}
    taken = [allocate(sizes, 500, share="proportional", seed=seed) for seed in (1, 1, 2)]
    assert taken[0] == taken[1] != taken[2]
    assert all(set(each.values()) == {0, 1} for each in taken)
    for each in taken:  # about half of any part of the alphabet
        assert 200 < sum(each[f"r{i:04d}"] for i in range(500)) < 300


def test_allocate__refuses() -> None:
    with pytest.raises(UserError, match=r"hold 20 images, 6 with at most 3 each"):
        allocate({"a": 10, "b": 10}, 7, cap=3)
    with pytest.raises(UserError, match=r"quota names 'z', which no image .* there are: a, b"):
        allocate({"a": 1, "b": 1}, 1, share="explicit", counts={"z": 1})
    with pytest.raises(UserError, match="explicit counts add up to 3, but k is 2"):
        allocate({"a": 5}, 2, share="explicit", counts={"a": 3})
