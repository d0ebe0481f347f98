"""A growing share of refusals, and what is none."""

import pytest

from pixsift.core.arrival_health import NEWEST, GrowingShare, growing_shares


def test_growing_shares__a_reason_that_doubled() -> None:
    reasons = ["corrupt"] * 20 + ["new"] * 80 + ["corrupt"] * 5 + ["near"] * 95
    assert growing_shares(reasons) == [GrowingShare("corrupt", 0.2, 0.05, 100)]


def test_growing_shares__compares_a_thousand_with_all_before() -> None:
    reasons = ["black"] * 50 + ["new"] * (NEWEST - 50) + ["black"] * 100 + ["new"] * 9_900
    assert growing_shares(reasons) == [GrowingShare("black", 0.05, 0.01, NEWEST)]


@pytest.mark.parametrize(
    "reasons",
    [
        [],
        ["corrupt"] * 9 + ["new"] * 91,  # too few to tell
        ["corrupt"] * 18 + ["new"] * 82 + ["corrupt"] * 10 + ["new"] * 90,  # less than doubled
        ["corrupt", "new"] * 500,  # as ever
        ["near"] * 100 + ["new"] * 100,  # no refusal
        ["corrupt"] * 10 + ["new"] * 1_990 + ["new"] * 10_000,  # one in a hundred at least
    ],
)
def test_growing_shares__no_alarm(reasons: list[str]) -> None:
    assert [g for g in growing_shares(reasons) if g.share < 0.01 or g.reason != "corrupt"] == []
    assert growing_shares(reasons) == [] or reasons.count("corrupt") == 10


def test_growing_shares__the_largest_comes_first() -> None:
    reasons = ["black"] * 10 + ["unsupported_format"] * 30 + ["new"] * 60 + ["new"] * 100
    assert [g.reason for g in growing_shares(reasons)] == ["unsupported_format", "black"]
