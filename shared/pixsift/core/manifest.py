"""What a snapshot says about itself: manifest, metadata, duplicates, descriptor. Pure.

``manifest.parquet`` is the whole truth about the list and comes back unchanged:
``parse_manifest(build_manifest(rows)) == rows``. ``metadata.parquet`` is its excerpt per split in
the form Hugging Face's ImageFolder reads, ``snapshot.json`` the descriptor that makes a snapshot
exist. The same list gives the same bytes (with the same pyarrow), so that writing a file twice is
harmless. pyarrow is the one library here: it turns values into bytes and touches nothing else.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest_rows import DuplicateRow, ManifestRow

MANIFEST_SCHEMA = "pixsift.manifest/1"
_ATTRIBUTE, _QUALITY = "attribute.", "quality."
"""Column prefixes: one column per attribute and per quality metric."""
_OTHERS = "other_attributes"
_RULINGS = "rulings"
"""JSON: the rulings about the image. The column exists if there is a ruling about any image."""
MAX_COLUMNS = 256
"""Attributes with a column of their own."""

_FIXED = pa.schema([
    pa.field("rank", pa.int32(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("covering_radius", pa.float64()),
    pa.field("source_bucket", pa.string(), nullable=False),
    pa.field("source_key", pa.string(), nullable=False),
    pa.field("source_version_id", pa.string(), nullable=False),
    pa.field("etag", pa.string(), nullable=False),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("content_sha256", pa.string(), nullable=False),
    pa.field("pixel_sha256", pa.string(), nullable=False),
    pa.field("format", pa.string(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("captured_at", pa.timestamp("us", tz="UTC")),
    pa.field("duplicates", pa.int32(), nullable=False),
])  # fmt: skip

_DUPLICATES = pa.schema([
    pa.field("representative_rank", pa.int32(), nullable=False),
    pa.field("source_bucket", pa.string(), nullable=False),
    pa.field("source_key", pa.string(), nullable=False),
    pa.field("source_version_id", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("distance", pa.float64()),
])  # fmt: skip


def build_manifest(rows: Sequence[ManifestRow]) -> bytes:
    """``manifest.parquet``: one row per chosen image, by rank."""
    attributes, quality = attribute_columns(rows), _names(row.quality for row in rows)
    columns = {name: [_value(row, name) for row in rows] for name in _FIXED.names}
    columns |= {
        _ATTRIBUTE + name: [row.attributes.get(name) for row in rows] for name in attributes.own
    }
    fields = [pa.field(_ATTRIBUTE + name, pa.string()) for name in attributes.own]
    if attributes.others:
        columns[_OTHERS] = _others_as_json(rows, attributes.others)
        fields.append(pa.field(_OTHERS, pa.string()))
    if any(row.rulings for row in rows):
        said = [
            json.dumps(list(row.rulings), sort_keys=True) if row.rulings else None for row in rows
        ]
        columns[_RULINGS] = said
        fields.append(pa.field(_RULINGS, pa.string()))
    columns |= {_QUALITY + name: [row.quality.get(name) for row in rows] for name in quality}
    fields += [pa.field(_QUALITY + name, pa.float64()) for name in quality]
    return _parquet(columns, pa.schema([*_FIXED, *fields], metadata={"pixsift": MANIFEST_SCHEMA}))


@dataclass(frozen=True, slots=True)
class AttributeColumns:
    """Which attributes have a column of their own."""

    own: tuple[str, ...]
    """By name: the most frequent, at most ``MAX_COLUMNS``."""
    others: frozenset[str]
    """All the rest: one column holds them as JSON."""


def attribute_columns(rows: Sequence[ManifestRow]) -> AttributeColumns:
    """A column each, as long as there are few: metadata may bring thousands of names, and a table
    of that many columns takes loaders minutes."""
    counts = Counter(name for row in rows for name in row.attributes)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return AttributeColumns(tuple(sorted(ranked[:MAX_COLUMNS])), frozenset(ranked[MAX_COLUMNS:]))


def parse_manifest(content: bytes) -> list[ManifestRow]:
    """The rows of a ``manifest.parquet``. Raises ValueError when it is not one of ours."""
    return [_row(record) for record in _records(content, MANIFEST_SCHEMA)]


def build_duplicates(rows: Sequence[DuplicateRow]) -> bytes:
    """``duplicates.parquet``: the images that each chosen image represents."""
    columns: dict[str, list[Any]] = {
        "representative_rank": [row.representative_rank for row in rows],
        "source_bucket": [row.source.bucket for row in rows],
        "source_key": [row.source.key for row in rows],
        "source_version_id": [row.source.version_id for row in rows],
        "reason": [row.reason for row in rows],
        "distance": [row.distance for row in rows],
    }
    return _parquet(columns, _DUPLICATES.with_metadata({"pixsift": "pixsift.duplicates/1"}))


def parse_duplicates(content: bytes) -> list[DuplicateRow]:
    """The rows of a ``duplicates.parquet``. Raises ValueError when it is not one of ours."""
    return [
        DuplicateRow(r["representative_rank"], _source(r), r["reason"], r["distance"])
        for r in _records(content, "pixsift.duplicates/1")
    ]


def build_metadata(rows: Sequence[ManifestRow], split: str) -> bytes:
    """``data/<split>/metadata.parquet``: what ImageFolder reads with the images of a split.

    ``file_name`` is relative to the file itself; attributes and quality metrics are columns of
    their own names, prefixed where two would clash, and with another ending where loaders would
    take the values for names of files (``original_file_name``).
    """
    chosen = [row for row in rows if row.split == split]
    folder = f"data/{split}/"
    columns: dict[str, list[Any]] = {
        "file_name": [row.path.removeprefix(folder) for row in chosen],
        "rank": [row.rank for row in chosen],
        "source_uri": [row.source.uri for row in chosen],
        "captured_at": [row.captured_at.isoformat() if row.captured_at else None for row in chosen],
    }
    fields = [
        pa.field("file_name", pa.string()), pa.field("rank", pa.int32()),
        pa.field("source_uri", pa.string()), pa.field("captured_at", pa.string()),
    ]  # fmt: skip

    def add(column: str, kind: pa.DataType, values: list[Any]) -> None:
        fields.append(pa.field(column, kind))
        columns[column] = values

    # Names come from all splits, so that every split has the same columns.
    attributes = attribute_columns(rows)
    for name in attributes.own:
        values = [row.attributes.get(name) for row in chosen]
        add(_column(_ATTRIBUTE, name, columns), pa.string(), values)
    if attributes.others:
        others = _others_as_json(chosen, attributes.others)
        add(_column(_ATTRIBUTE, "other_attributes", columns), pa.string(), others)
    for name in _names(row.quality for row in rows):
        measured = [row.quality.get(name) for row in chosen]
        add(_column(_QUALITY, name, columns), pa.float64(), measured)
    return _parquet(columns, pa.schema(fields))


def _column(prefix: str, name: str, taken: Mapping[str, Any]) -> str:
    """The name of a column in ``metadata.parquet``."""
    # `image` is the column that ImageFolder adds itself, `label` one that it may add.
    column = prefix + name if name in ("image", "label", "images") else name
    if column.endswith(("file_name", "file_names")):
        column += ".text"
    if column in taken and not column.startswith(prefix):
        column = prefix + column
    while column in taken:
        column += "_"
    return column


def _others_as_json(rows: Sequence[ManifestRow], names: frozenset[str]) -> list[str | None]:
    found = ({n: v for n, v in row.attributes.items() if n in names} for row in rows)
    return [json.dumps(said, sort_keys=True) if said else None for said in found]


def list_sha256(rows: Iterable[ManifestRow]) -> str:
    """Hex digest of the list itself: rank, split, exact source and path, whatever the encoding."""
    digest = hashlib.sha256()
    for row in rows:
        source = [row.source.bucket, row.source.key, row.source.version_id]
        digest.update(json.dumps([row.rank, row.split, *source, row.path]).encode() + b"\n")
    return digest.hexdigest()


def _value(row: ManifestRow, column: str) -> Any:
    match column:
        case "source_bucket":
            return row.source.bucket
        case "source_key":
            return row.source.key
        case "source_version_id":
            return row.source.version_id
        case _:
            return getattr(row, column)


def _row(record: dict[str, Any]) -> ManifestRow:
    plain = {name: record[name] for name in _FIXED.names if not name.startswith("source_")}
    return ManifestRow(
        source=_source(record),
        attributes=_group(record, _ATTRIBUTE) | json.loads(record.get(_OTHERS) or "{}"),
        quality=_group(record, _QUALITY),
        rulings=tuple(json.loads(record.get(_RULINGS) or "[]")),
        **plain,
    )


def _source(record: dict[str, Any]) -> ObjectVersion:
    return ObjectVersion(record["source_bucket"], record["source_key"], record["source_version_id"])


def _group(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in record.items()
        if name.startswith(prefix) and value is not None
    }


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _parquet(columns: dict[str, list[Any]], schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _records(content: bytes, schema: str) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(io.BytesIO(content))
    except pa.ArrowInvalid as exc:
        raise ValueError(f"not a Parquet file: {exc}") from exc
    if (table.schema.metadata or {}).get(b"pixsift") != schema.encode():
        raise ValueError(f"not a {schema} file")
    records: list[dict[str, Any]] = table.to_pylist()
    return records
