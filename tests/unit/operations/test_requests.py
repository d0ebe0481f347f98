"""Requests as they come: parsed or refused, never a crash; the example in the docs is one."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.messages import SnapshotRequest, parse_snapshot_request
from pixsift.operations.requests import InvalidRequest, parse_request
from pixsift.operations.resolve import spec_hash
from snapshot_world import request

DOCS = Path(__file__).resolve().parents[3] / "docs" / "snapshots.md"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=8,
)
_FIELDS = sorted({*request(), "at_seq", "where", "split", "export", "unknown"})


def parsed(body: dict[str, Any]) -> SnapshotRequest:
    found = parse_request(json.dumps(body))
    assert isinstance(found, SnapshotRequest), found
    return found


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), _JSON.map(json.dumps)))
def test_parse_request__whatever_comes_is_refused_in_one_line(body: str) -> None:
    found = parse_request(body)
    assert isinstance(found, InvalidRequest)
    assert found.reason
    assert "\n" not in found.reason


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_FIELDS), _JSON)
def test_parse_request__a_request_with_one_wild_field_never_crashes(name: str, value: Any) -> None:
    found = parse_request(json.dumps(request(**{name: value})))
    if isinstance(found, InvalidRequest):
        assert found.request_id in ("r1", None) or name == "request_id"
    else:
        assert "\x00" not in found.model_dump_json()


@pytest.mark.parametrize(
    "wild",
    [
        {"at_seq": 2**63},
        {"select": {"k": 3, "seed": 2**63}},
        {"where": {"quality": {"sharpness": {"min": float("nan")}}}},
        {"where": {"quality": {"sharpness": {"max": float("inf")}}}},
    ],
)
def test_parse_request__numbers_the_ledger_cannot_hold_are_refused(wild: dict[str, Any]) -> None:
    assert isinstance(parse_request(json.dumps(request(**wild))), InvalidRequest)


def test_parse_request__a_reference_with_the_bytes_after_all_is_refused() -> None:
    formats = ["parquet", "webdataset"]
    found = parse_request(json.dumps(request(export={"mode": "reference", "formats": formats})))
    assert isinstance(found, InvalidRequest)
    assert "webdataset" in found.reason


def test_spec_hash__is_of_what_decides_the_list() -> None:
    base = spec_hash(parsed(request()))
    assert spec_hash(parsed(request(request_id="other", at_seq=5))) == base
    assert spec_hash(parsed(dict(reversed(request().items())))) == base
    for change in (
        {"collection": "d"}, {"name": "other"}, {"where": {"prefix": "x"}},
        {"select": {"k": 3, "seed": 8}}, {"split": {"train": 0.5, "val": 0.5}},
        {"export": {"mode": "reference"}},
    ):  # fmt: skip
        assert spec_hash(parsed(request(**change))) != base


def test_docs__the_example_is_a_valid_request() -> None:
    match = re.search(r"json\.dumps\(\s*(\{.*?\n\s*\})\s*\),", DOCS.read_text("utf-8"), re.DOTALL)
    assert match is not None
    body = eval(match.group(1), {"uuid": uuid})  # noqa: S307 - our own page
    assert parsed(body).select.k == 5000


def test_spec_hash__of_version_1_never_changes() -> None:
    """What is new (flags, labels of duplicates) exists in version 2 only."""
    asked = parse_snapshot_request({
        "request_id": "a", "collection": "c", "name": "n",
        "where": {"attributes": {"robot": ["r1"]}, "prefix": "x/"},
        "select": {"strategy": "k_center", "k": 5},
    })  # fmt: skip
    assert spec_hash(asked) == "622458f946df9f4971e55cca33878388cc5856b820540cb6cfe8f74cc4c8694e"
