"""Copy plans: destinations are unique and stable, part ranges cover the object exactly once."""

from itertools import pairwise
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.copyplan import (
    GIB,
    MAX_KEY_BYTES,
    MAX_PARTS,
    RESERVED_NAMES,
    CopyItem,
    destination_keys,
    needs_parts,
    part_ranges,
)
from pixsift.core.identity import ObjectVersion

_KEYS = st.text(min_size=1, max_size=300).filter(lambda key: 0 < len(key.encode("utf-8")) <= 1024)
_VERSIONS = st.builds(
    ObjectVersion,
    bucket=st.sampled_from(["raw", "other"]),
    key=st.one_of(st.sampled_from([
        "a.jpg", "b/a.jpg", "a.v1.jpg", "metadata.parquet", "b", "b/a.jpg/c", "b.v1", "b.v1/d",
        "metadata.csv/a.jpg", "_hashed", "_hashed/a.jpg",
    ]), _KEYS),
    version_id=st.sampled_from(["v1", "v2", "null", "etag:abc", "etag-abc"]),
)  # fmt: skip


@given(
    size=st.integers(1, 50 * 1024 * GIB), part=st.sampled_from([1, 7, 1024**2, 1024**3, 5 * GIB])
)
def test_part_ranges__cover_the_object_exactly_once(size: int, part: int) -> None:
    ranges = part_ranges(size, part)
    assert ranges[0].first == 0
    assert ranges[-1].last == size - 1
    assert all(earlier.last + 1 == later.first for earlier, later in pairwise(ranges))
    assert all(part_range.size_bytes >= 1 for part_range in ranges)
    assert len(ranges) <= MAX_PARTS


def test_part_ranges__count_as_s3_does() -> None:
    assert [str(r) for r in part_ranges(10, 4)] == ["bytes=0-3", "bytes=4-7", "bytes=8-9"]


@pytest.mark.parametrize(("size", "part"), [(0, 1), (-1, 1), (1, 0)])
def test_part_ranges__refuse_what_has_no_range(size: int, part: int) -> None:
    with pytest.raises(ValueError, match="no ranges"):
        part_ranges(size, part)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, False), (5 * GIB, False), (5 * GIB + 1, True)],  # S3's own limit, included
)
def test_needs_parts__only_above_5_gib(size: int, expected: bool) -> None:
    assert needs_parts(size) is expected


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("test/a.jpg", "(test)/a.jpg"),
        ("site/field-test/r_val_2/dev2/a.jpg", "site/field-(test)/r_(val)_2/(dev)2/a.jpg"),
        ("eval/train/a.jpg", "(eval)/(train)/a.jpg"),
        ("contest/latest/valve/testbed/a.jpg", "contest/latest/valve/testbed/a.jpg"),
        ("r1/test.jpg", "r1/test.jpg"),  # loaders look at folders, and at names only without them
    ],
)
def test_destination_keys__no_folder_is_called_like_a_split(key: str, path: str) -> None:
    assert destination_keys([(ObjectVersion("raw", key, "v1"), "val")]) == [f"data/val/{path}"]


@pytest.mark.parametrize("key", ["a::b.jpg", "a\\b.jpg", "r1/photo.zip", "r1/photo.tar.GZ"])
def test_destination_keys__what_misleads_loaders_is_hashed(key: str) -> None:
    (path,) = destination_keys([(ObjectVersion("raw", key, "v1"), "train")])
    assert path.startswith("data/train/_hashed/")
    assert not any(bad in path.lower() for bad in ("::", "\\", ".zip", ".gz"))


@given(
    st.lists(
        st.tuples(_VERSIONS, st.sampled_from(["train", "val"])),
        unique_by=lambda pair: pair[0],
        max_size=12,
    ),
    st.sampled_from(["", "name/snapshot/", "x" * 200 + "/"]),
)
def test_destination_keys__differ_are_short_enough_and_repeat(
    sources: list[tuple[ObjectVersion, str]], prefix: str
) -> None:
    keys = destination_keys(sources, prefix=prefix)
    assert len(set(keys)) == len(sources)
    assert all(len((prefix + key).encode()) <= MAX_KEY_BYTES for key in keys)
    assert keys == destination_keys(sources, prefix=prefix)
    ours = {f"data/{split}/{name}" for split in ("train", "val") for name in RESERVED_NAMES}
    files = ours.union(keys)
    assert len(files) == len(ours) + len(keys)
    for (_, split), key in zip(sources, keys, strict=True):
        assert key.startswith(f"data/{split}/")
        assert files.isdisjoint(str(folder) for folder in PurePosixPath(key).parents)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        # the plain case: the source key below its split
        ([("raw", "r1/a b+ü.jpg", "v1")], ["data/train/r1/a b+ü.jpg"]),
        # two versions of one key: the later carries its version id, and keeps its extension
        ([("raw", "a.jpg", "v1"), ("raw", "a.jpg", "v2")],
         ["data/train/a.jpg", "data/train/a.v2.jpg"]),
        # the same key in two buckets
        ([("raw", "a.jpg", "v1"), ("other", "a.jpg", "v9")],
         ["data/train/a.jpg", "data/train/a.v9.jpg"]),
        # an unversioned bucket's version id holds a colon
        ([("raw", "a.jpg", "v1"), ("raw", "a.jpg", "etag:f00")],
         ["data/train/a.jpg", "data/train/a.etag-f00.jpg"]),
        # an image that calls itself metadata must not shadow ours
        ([("raw", "metadata.parquet", "v1")], ["data/train/metadata.v1.parquet"]),
        # a key that is the folder of an earlier one carries its version id
        ([("raw", "k/a/b.jpg", "v1"), ("raw", "k/a", "v2")],
         ["data/train/k/a/b.jpg", "data/train/k/a.v2"]),
    ],
)  # fmt: skip
def test_destination_keys__examples(
    sources: list[tuple[str, str, str]], expected: list[str]
) -> None:
    assert destination_keys([(ObjectVersion(*source), "train") for source in sources]) == expected


@pytest.mark.parametrize("key", ["../x.jpg", "/x.jpg", "a//x.jpg", "a/./x.jpg", "a/../../x.jpg"])
def test_destination_keys__never_leave_the_folder(key: str) -> None:
    (destination,) = destination_keys([(ObjectVersion("raw", key, "v1"), "train")])
    assert destination.startswith("data/train/_hashed/")
    assert ".." not in destination


def test_destination_keys__below_an_earlier_key_falls_back_to_a_hash() -> None:
    sources = [ObjectVersion("raw", key, "v1") for key in ("k/a", "k/a/b.jpg")]
    keys = destination_keys([(version, "train") for version in sources])
    assert keys[0] == "data/train/k/a"
    assert keys[1].startswith("data/train/_hashed/")


def test_destination_keys__a_third_clash_falls_back_to_a_hash() -> None:
    clash = [ObjectVersion(bucket, "a.jpg", "null") for bucket in ("x", "y", "z")]
    keys = destination_keys([(version, "train") for version in clash])
    assert keys[:2] == ["data/train/a.jpg", "data/train/a.null.jpg"]
    assert keys[2].startswith("data/train/_hashed/")
    assert keys[2].endswith(".jpg")


def test_copy_item__has_no_version_in_an_unversioned_bucket() -> None:
    def item(version_id: str) -> CopyItem:
        return CopyItem(0, 1, ObjectVersion("b", "k", version_id), "e", 1, b"", "train", "d")

    assert item("etag:e").source_version_id is None
    assert item("null").source_version_id == "null"
