"""Identity of writes, and what delete markers hide."""

from itertools import permutations

import pytest

from pixsift.core.identity import (
    ListedVersion,
    ObjectVersion,
    version_id_of,
    versions_hidden_by_markers,
)


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
