"""The manifest comes back unchanged; the metadata is what ImageFolder reads."""

import dataclasses
import io
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import examples
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest import (
    MAX_COLUMNS,
    attribute_columns,
    build_duplicates,
    build_manifest,
    build_metadata,
    list_sha256,
    parse_duplicates,
    parse_manifest,
)
from pixsift.core.manifest_rows import DuplicateRow, ManifestRow

_TEXT = st.text(max_size=20)
_SOURCES = st.builds(ObjectVersion, bucket=_TEXT, key=_TEXT, version_id=_TEXT)
_FLOATS = st.floats(allow_nan=False)
_ROWS = st.builds(
    ManifestRow,
    rank=st.integers(0, 2**31 - 1),
    split=st.sampled_from(["train", "val", "test"]),
    path=_TEXT,
    source=_SOURCES,
    etag=_TEXT,
    size_bytes=st.integers(0, 2**63 - 1),
    content_sha256=_TEXT,
    pixel_sha256=_TEXT,
    format=_TEXT,
    width=st.integers(0, 2**31 - 1),
    height=st.integers(0, 2**31 - 1),
    captured_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    reason=_TEXT,
    covering_radius=st.none() | _FLOATS,
    duplicates=st.integers(0, 2**31 - 1),
    attributes=st.dictionaries(_TEXT, _TEXT, max_size=4),
    quality=st.dictionaries(_TEXT, _FLOATS, max_size=4),
)
_DUPLICATES = st.builds(
    DuplicateRow,
    representative_rank=st.integers(0, 2**31 - 1),
    source=_SOURCES,
    reason=_TEXT,
    distance=st.none() | _FLOATS,
)


@settings(deadline=None, max_examples=examples(quick=25, thorough=60))
@given(st.lists(_ROWS, max_size=6))
def test_parse_manifest__gives_back_what_was_built(rows: list[ManifestRow]) -> None:
    content = build_manifest(rows)
    assert parse_manifest(content) == rows
    assert build_manifest(rows) == content


@settings(deadline=None, max_examples=40)
@given(st.lists(_DUPLICATES, max_size=6))
def test_parse_duplicates__gives_back_what_was_built(rows: list[DuplicateRow]) -> None:
    assert parse_duplicates(build_duplicates(rows)) == rows


@pytest.mark.parametrize("content", [b"", b"PAR1", build_duplicates([])])
def test_parse_manifest__refuses_other_files(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_manifest(content)


def _row(rank: int, split: str, name: str) -> ManifestRow:
    return ManifestRow(
        rank=rank, split=split, path=f"data/{split}/{name}",
        source=ObjectVersion("raw", name, "v1"), etag="e", size_bytes=1, content_sha256="00",
        pixel_sha256="00", format="JPEG", width=1, height=1,
        captured_at=datetime(2026, 11, 22, tzinfo=UTC),
        attributes={"robot": "r1", "rank": "taken"}, quality={"sharpness": 0.5},
    )  # fmt: skip


def test_build_metadata__names_files_relative_to_itself() -> None:
    rows = [_row(0, "train", "a/b.jpg"), _row(1, "val", "c.jpg")]
    table = pq.read_table(io.BytesIO(build_metadata(rows, "train")))
    assert table.to_pylist() == [{
        "file_name": "a/b.jpg", "rank": 0, "source_uri": "s3://raw/a/b.jpg?versionId=v1",
        "captured_at": "2026-11-22T00:00:00+00:00", "robot": "r1", "attribute.rank": "taken",
        "sharpness": 0.5,
    }]  # fmt: skip
    other = pq.read_table(io.BytesIO(build_metadata(rows, "val")))
    assert other.schema == table.schema
    assert other["file_name"].to_pylist() == ["c.jpg"]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("original_file_name", "original_file_name.text"),
        ("file_name", "attribute.file_name.text"),
        ("mask_file_names", "mask_file_names.text"),
        ("image", "attribute.image"),
        ("label", "attribute.label"),
        ("rank", "attribute.rank"),
        ("profile", "profile"),
    ],
)
def test_build_metadata__names_that_loaders_would_misread(name: str, column: str) -> None:
    row = dataclasses.replace(_row(0, "train", "a.jpg"), attributes={name: "x"})
    table = pq.read_table(io.BytesIO(build_metadata([row], "train")))
    expected = column if name != "file_name" else "file_name.text"
    assert table[expected].to_pylist() == ["x"]


def test_build_metadata__every_name_has_a_column_of_its_own() -> None:
    attributes = {"rank": "1", "attribute.rank": "2", "sharpness": "3", "quality.sharpness": "4"}
    row = dataclasses.replace(_row(0, "train", "a.jpg"), attributes=attributes)
    (record,) = pq.read_table(io.BytesIO(build_metadata([row], "train"))).to_pylist()
    assert {"1", "2", "3", "4"} <= {v for v in record.values() if isinstance(v, str)}
    assert 0.5 in record.values()


def test_attribute_columns__are_capped() -> None:
    """The most frequent names keep theirs; the rest come back from one column."""
    rows = [
        dataclasses.replace(
            _row(rank, "train", f"{rank}.jpg"),
            attributes={"robot": "r1", **{f"own-{rank}-{i}": str(i) for i in range(10)}},
        )
        for rank in range(100)
    ]
    columns = attribute_columns(rows)
    assert (len(columns.own), len(columns.others)) == (MAX_COLUMNS, 1001 - MAX_COLUMNS)
    assert "robot" in columns.own
    manifest = build_manifest(rows)
    assert parse_manifest(manifest) == rows
    assert len(pq.read_table(io.BytesIO(manifest)).column_names) < MAX_COLUMNS + 30
    metadata = pq.read_table(io.BytesIO(build_metadata(rows, "train")))
    assert len(metadata.column_names) < MAX_COLUMNS + 10
    assert json.loads(metadata["other_attributes"].to_pylist()[99])["own-99-9"] == "9"


def test_list_sha256__sees_order_version_and_split_but_no_measurements() -> None:
    rows = [_row(0, "train", "a.jpg"), _row(1, "train", "b.jpg")]
    base = list_sha256(rows)
    assert list_sha256([dataclasses.replace(r, quality={"x": 1.0}) for r in rows]) == base
    assert list_sha256(rows[::-1]) != base
    assert list_sha256([dataclasses.replace(r, split="val") for r in rows]) != base
    moved = ObjectVersion("raw", "a.jpg", "v2")
    assert list_sha256([dataclasses.replace(rows[0], source=moved), rows[1]]) != base
