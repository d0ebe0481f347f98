"""What the server answers for the console alone: the border, spreads, histograms, redactions."""

import pytest

from server_world import World


def test_border__has_pairs_on_both_sides_with_what_the_rule_sees(world: World) -> None:
    found = world.get("/v1/collections/c/border")
    assert found["epsilon"] == 0.05
    assert not found["has_change_test"]
    sides = {
        (pair["image"]["uri"].split("/")[-1].split("?")[0], pair["outcome"])
        for pair in found["pairs"]
    }
    assert {("near.jpg", "duplicate"), ("nearer.jpg", "duplicate"), ("b.jpg", "kept")} <= sides
    for pair in found["pairs"]:
        assert (pair["distance"] <= 0.05) == (pair["outcome"] == "duplicate")
        assert pair["change"] == 0
        assert pair["place"] is None  # this rule has no second look
        assert pair["place_in_kept"] is None
    assert found["sought_among"] == 3


def test_spread__counts_the_newest_by_value_and_outcome(world: World) -> None:
    found = world.get("/v1/collections/c/spread/robot")
    by_value = {each["value"]: each["outcomes"] for each in found["values"]}
    assert by_value["r1"] == {"kept": 1, "duplicate": 2, "rejected": 1}
    assert by_value["r2"] == {"kept": 1, "failed": 1}
    assert found["newest"] == 7
    assert world.get("/v1/collections/c/spread/robot", params={"newest": 1})["newest"] == 1
    assert world.get("/v1/collections/c/spread/none")["values"][0]["value"] is None


def test_histogram__bins_a_metric_or_the_distance(world: World) -> None:
    found = world.get("/v1/collections/c/histograms/sharpness")
    assert sum(each["images"] for each in found["bins"]) == 2
    assert found["bins"][0]["low"] == pytest.approx(0.1)
    assert found["bins"][-1]["high"] == pytest.approx(0.9)
    far = world.get("/v1/collections/c/histograms/distance", params={"outcome": "duplicate"})
    assert sum(each["images"] for each in far["bins"]) == 2
    assert world.get("/v1/collections/c/histograms/noise")["bins"] == []
    wrong = world.client.get("/v1/collections/c/histograms/magic", headers=world.as_("viewer"))
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unknown_metric")
