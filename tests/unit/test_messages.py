"""Snapshot requests: what the first version means is frozen; what the second adds is checked."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pixsift.messages import Select2, SnapshotRequest, SnapshotRequest2, parse_snapshot_request
from pixsift.operations.resolve import spec_hash

FROZEN: dict[str, tuple[dict[str, Any], str]] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "snapshot-request-1.json").read_text("utf-8")
)
BASE = {"request_id": "r", "collection": "c", "name": "n"}


@pytest.mark.parametrize("name", FROZEN)
def test_spec_hash__of_the_first_version_never_changes(name: str) -> None:
    body, digest = FROZEN[name]
    named = {**BASE, **body, "schema": "pixsift.snapshot-request/1"}
    assert spec_hash(parse_snapshot_request(named)) == digest
    assert spec_hash(parse_snapshot_request({**BASE, **body})) == digest


@pytest.mark.parametrize(
    "select",
    [
        {"strategy": "typical", "k": 3},
        {"strategy": "auto", "k": 3},
        {"strategy": "stratified", "k": 3, "quota": {"by": "a", "inside": "typical"}},
        {"strategy": "balanced", "k": 3, "cluster_share": "proportional"},
    ],
)
def test_select__new_strategies_need_the_second_version(select: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="snapshot-request/2"):
        SnapshotRequest.model_validate({**BASE, "select": select})
    second = {**BASE, "schema": "pixsift.snapshot-request/2", "select": select}
    assert isinstance(parse_snapshot_request(second), SnapshotRequest2)


def test_select2__trimming_is_said_in_the_request() -> None:
    assert Select2(strategy="k_center", k=5).trim_outliers > 0
    assert Select2(strategy="farthest", k=5).trim_outliers == 0
    assert Select2(strategy="random", k=5).trim_outliers == 0
    assert Select2(strategy="k_center", k=5, trim_outliers=0.0).trim_outliers == 0
    asked = Select2(strategy="mixed", k=5)
    assert Select2.model_validate(asked.model_dump()) == asked


@pytest.mark.parametrize(
    ("select", "named"),
    [
        ({"strategy": "k_center", "k": 3, "prefer": [{"metric": "sharpness"}]}, "prefer"),
        ({"strategy": "random", "k": 3, "emphasize": {"attribute": "loss"}}, "emphasize"),
        ({"strategy": "typical", "k": 3, "novelty": 0.5}, "preselected_snapshot"),
        ({"k": 3, "balance": {"by": "a"}, "quota": {"by": "a"}}, "soft target"),
        ({"strategy": "random", "k": 3, "exact": True}, "exact"),
        ({"strategy": "all", "min_distance": 0.1}, "min_distance"),
        ({"strategy": "auto"}, "needs k"),
    ],
)
def test_select2__what_a_strategy_would_ignore_is_refused(
    select: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        Select2.model_validate(select)
