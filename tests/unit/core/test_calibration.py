"""Precision, recall, intervals and the proposal, on pairs small enough to count by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.calibration import (
    Calibration,
    CurvePoint,
    LabeledPairs,
    bootstrap_recall,
    curve,
    exceeds_noise,
    noise_warning,
    propose,
    recall_by_edit,
    vouches_for,
    wilson,
)
from pixsift.core.second_look import LookRule
from pixsift.pages.calibration_chart import chart

# distance, second look agrees, positive, edit, grade, picture
ROWS = [
    (0.01, True, True, "crop", 0, 0),
    (0.05, True, True, "crop", 1, 0),
    (0.20, True, True, "crop", 2, 0),
    (0.02, False, True, "blur", 0, 1),  # a copy that the second look misses
    (0.05, False, False, "distinct", -1, 1),  # a look-alike that it refuses
    (0.10, True, False, "distinct", -1, 2),  # one that it does not
]


def labeled(rows: list[tuple[float, bool, bool, str, int, int]], far: int = 0) -> LabeledPairs:
    distance, agrees, positive, kind, grade, picture = zip(*rows, strict=True)
    return LabeledPairs(
        np.array(distance),
        np.array(agrees, np.bool_),
        np.array(positive, np.bool_),
        kind,
        np.array(grade, np.intp),
        np.array(picture, np.intp),
        np.array(picture, np.intp),
        far_distinct=far,
    )


def test_curve__counts_by_hand() -> None:
    pairs = labeled(ROWS, far=100)
    assert (pairs.positives, pairs.distinct) == (4, 102)
    alone = curve(pairs, [0.0, 0.05, 0.1, 0.3], second_look=False)
    assert [(p.found, p.wrong) for p in alone] == [(0, 0), (3, 1), (3, 2), (4, 2)]
    looked = curve(pairs, [0.0, 0.05, 0.1, 0.3], second_look=True)
    assert [(p.found, p.wrong) for p in looked] == [(0, 0), (2, 0), (2, 1), (3, 1)]
    assert looked[3].precision == 0.75
    assert looked[3].recall == 0.75
    assert looked[0].precision == 1.0  # nothing called, nothing wrong; but nothing sure either
    assert looked[0].precision_interval == (0.0, 1.0)


def test_wilson__agrees_with_the_textbook() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, doi:10.1002/(SICI)1097-0258, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[0] == pytest.approx(0.8389, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson__holds_the_share_and_narrows_with_trials(trials: int, share: float) -> None:
    successes = round(share * trials)
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    wider_low, wider_high = wilson(successes * 4, trials * 4)
    assert wider_high - wider_low < high - low


def point(epsilon: float, precision_low: float, recall: float) -> CurvePoint:
    return CurvePoint(epsilon, 0, 0, 1.0, (precision_low, 1.0), recall, (0.0, 1.0))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # the smallest that is sure and finds enough
        ([point(0.1, 0.995, 0.8), point(0.2, 0.992, 0.95), point(0.3, 0.991, 0.99)], 0.2),
        # a wider one that is not sure does not count
        ([point(0.1, 0.995, 0.8), point(0.2, 0.98, 0.95)], 0.1),
        # recall out of reach: the most of it, and of equals the smaller epsilon
        ([point(0.1, 0.995, 0.8), point(0.2, 0.995, 0.85), point(0.3, 0.995, 0.85)], 0.2),
        ([point(0.1, 0.9, 1.0)], None),
        ([], None),
    ],
)
def test_propose(points: list[CurvePoint], expected: float | None) -> None:
    found = propose(points, precision=0.99, recall=0.9)
    assert (found.epsilon if found else None) == expected


def test_recall_by_edit__by_grade() -> None:
    table = recall_by_edit(labeled(ROWS), 0.06, second_look=False)
    assert table == {"crop": [1.0, 1.0, 0.0], "blur": [1.0, None, None]}
    assert recall_by_edit(labeled(ROWS), 0.06, second_look=True)["blur"][0] == 0.0


def test_bootstrap_recall__draws_pictures_not_pairs() -> None:
    """Ten pictures, each found in all of its many pairs or in none: as uncertain as ten draws."""
    rows = [
        (0.01 if p < 7 else 0.9, True, True, "crop", 0, p) for p in range(10) for _ in range(50)
    ]
    low, high = bootstrap_recall(labeled(rows), 0.1, second_look=True)
    assert low < 0.5
    assert high > 0.9
    assert bootstrap_recall(labeled(rows), 0.1, second_look=True) == (low, high)


def test_of_pictures__keeps_their_pairs_only() -> None:
    own = labeled(ROWS, far=100).of_pictures({1})
    assert own.distance.tolist() == [0.02, 0.05]
    assert own.kind == ("blur", "distinct")
    assert own.far_distinct == 0


def test_of_pictures__a_pair_counts_for_both_sides() -> None:
    """Else a camera's epsilon would depend on the order of the folders."""
    pairs = replace(labeled(ROWS), other=np.full(len(ROWS), 7))
    assert len(pairs.of_pictures({7}).distance) == len(ROWS)


def calibration() -> Calibration:
    return Calibration(
        model="m",
        weights_sha256="0" * 64,
        recipe_id="px1-224",
        epsilon=0.1,
        second_look=LookRule().to_json(),
        calibrated=True,
    )


def test_calibration__survives_storage() -> None:
    stored = json.loads(json.dumps(calibration().to_json()))
    assert Calibration.from_json(stored) == calibration()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "pixsift.calibration/9"},
        {"surprise": 1},
        {"epsilon": 3.0},
        {"epsilon": "0.1"},
        {"epsilon": None},
        {"epsilon": float("nan")},
        {"noise": "little"},
        {"second_look": [1]},
        {"second_look": {"bias": None}},
        {"second_look": {"unknown": 1}},
    ],
)
def test_calibration__what_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"calibration|epsilon|second-look"):
        Calibration.from_json(calibration().to_json() | change)


@pytest.mark.parametrize(
    ("epsilon", "second_look", "vouches"),
    [
        (0.1, LookRule().to_json(), True),
        (0.1, {"version": 1} | LookRule().to_json(), True),
        (0.2, LookRule().to_json(), False),
        (0.1, None, False),  # the embedding alone is another rule
        (0.1, LookRule(bias=-0.4).to_json(), False),
    ],
)
def test_vouches_for__the_rule_it_measured(
    epsilon: float, second_look: dict[str, float] | None, vouches: bool
) -> None:
    assert vouches_for(calibration().summary(), epsilon, second_look) is vouches
    assert not vouches_for(None, epsilon, second_look)


def test_noise_warning__below_ten_times_the_noise() -> None:
    assert noise_warning(0.1, 0.0099) is None
    assert "own noise (0.011)" in (noise_warning(0.1, 0.011) or "")
    assert noise_warning(0.0, None) is None  # not measured


def test_exceeds_noise__tenfold() -> None:
    assert exceeds_noise(0.1, 0.0099)
    assert not exceeds_noise(0.1, 0.0101)


def test_chart__is_sound_xml_and_shows_epsilon() -> None:
    from xml.etree import ElementTree as ET

    points = curve(labeled(ROWS), [0.05, 0.1, 0.2], second_look=True)
    svg = chart("a <b> & c", points, [replace(p, recall=0.5) for p in points], epsilon=0.1)
    root = ET.fromstring(svg)  # noqa: S314  (our own text)
    assert "a <b> & c" in "".join(root.itertext())
    assert "0.100" in "".join(root.itertext())
    assert "<script" not in svg
