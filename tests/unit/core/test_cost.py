"""A month's price: against figures worked out by hand, and its proportions."""

import math

import pytest

from pixsift.core.cost import DAYS, PRICES, estimate


def test_estimate__of_a_million_images_by_hand() -> None:
    found = {line.name: line.dollars for line in estimate(1e6 / DAYS).lines}
    assert found["read objects"] == pytest.approx(0.40)
    assert found["write thumbnails"] == pytest.approx(5.00)
    assert found["queue"] == pytest.approx(0.4828)
    assert found["judge"] == pytest.approx(10.7 / 1000 * 1e6 / 8 / 3600 * 0.752)
    assert found["thumbnails"] == pytest.approx(0.184)
    assert found["ledger"] == pytest.approx(0.621)


def test_estimate__nothing_arrives_and_the_idle_stage_is_paid_for() -> None:
    idle = estimate(0)
    assert idle.month == PRICES["database_month"] + PRICES["nat_month"] + PRICES["alarms_month"]
    assert idle.per_million == 0


def test_estimate__grows_with_images_but_a_million_costs_the_same() -> None:
    few, many = estimate(1000), estimate(100_000)
    assert many.month > few.month
    assert many.per_million == pytest.approx(few.per_million)
    assert estimate(1000, megapixels=12).per_million > few.per_million


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_estimate__refuses_what_is_no_amount(bad: float) -> None:
    with pytest.raises(ValueError, match="images_per_day must be from 0"):
        estimate(bad)
