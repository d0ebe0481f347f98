"""Identity of writes, and their order."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.core.identity import (
    ListedVersion,
    ObjectVersion,
    sequencer_order,
    version_id_of,
    versions_hidden_by_markers,
)

SEQUENCERS = st.text("0123456789ABCDEF", min_size=1, max_size=32)


def test_sequencer_order__shorter_ones_are_padded_right() -> None:
    """As integers these two compare the other way round."""
    assert sequencer_order("0055AED6DCD90282") > sequencer_order("0055AED6DCD90281FF")


@settings(max_examples=10_000, deadline=None)
@given(SEQUENCERS, SEQUENCERS, SEQUENCERS)
def test_sequencer_order__is_a_total_order(a: str, b: str, c: str) -> None:
    x, y, z = map(sequencer_order, (a, b, c))
    assert (x < y) + (x == y) + (x > y) == 1
    assert not (x <= y <= z) or x <= z
    assert sequencer_order(a.lower()) == x
    assert sequencer_order(a + "0") == x  # padding: a trailing zero says nothing
    assert sequencer_order(a + "1") > x


@pytest.mark.parametrize(
    ("version_id", "etag", "expected"),
    [
        ("v1", "abc", "v1"),
        (None, '"abc"', "etag:abc"),
        ("null", "abc", "etag:abc"),  # overwritten in place: identifies no write
        (None, None, None),
        ("null", '""', None),
    ],
)
def test_version_id_of(version_id: str | None, etag: str | None, expected: str | None) -> None:
    assert version_id_of(version_id, etag) == expected


def test_object_version__knows_its_etag_only_without_versioning() -> None:
    assert ObjectVersion("b", "k", "v1").etag is None
    assert ObjectVersion("b", "k", "etag:abc").etag == "abc"
    assert ObjectVersion("b", "k", "v1").uri == "s3://b/k?versionId=v1"


def test_versions_hidden_by_markers__only_what_lies_under_one() -> None:
    listing = [
        ListedVersion("v3"),
        ListedVersion("m2", is_delete_marker=True),
        ListedVersion("v2"),
        ListedVersion("m1", is_delete_marker=True),
        ListedVersion("v1"),
        ListedVersion("null", etag="abc"),
    ]
    assert versions_hidden_by_markers(listing) == ["v2", "v1", "etag:abc"]
    assert versions_hidden_by_markers(listing[:1]) == []
    for order in permutations([ListedVersion("a"), ListedVersion("b")]):
        assert versions_hidden_by_markers(order) == []
