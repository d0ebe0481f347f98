"""``snapshot.json`` and ``croissant.json``: what a snapshot is, for programs. Pure.

The descriptor is written last and only if absent: a snapshot without it does not exist. Two
exporters of the same stored list may encode its files differently (another pyarrow), so what makes
two descriptors the same snapshot is the id and the digest of the list.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pixsift.core.manifest import attribute_columns, list_sha256
from pixsift.core.manifest_rows import ManifestRow

SNAPSHOT_SCHEMA = "pixsift.snapshot/1"
SNAPSHOT_FILE = "snapshot.json"
_CROISSANT_TYPES = {
    "rank": "sc:Integer", "split": "sc:Text", "path": "sc:Text", "reason": "sc:Text",
    "source_bucket": "sc:Text", "source_key": "sc:Text", "source_version_id": "sc:Text",
    "size_bytes": "sc:Integer", "content_sha256": "sc:Text", "width": "sc:Integer",
    "height": "sc:Integer", "captured_at": "sc:DateTime", "duplicates": "sc:Integer",
}  # fmt: skip


def build_descriptor(
    *,
    identity: Mapping[str, Any],
    request: Mapping[str, Any],
    report: Mapping[str, Any],
    rows: Sequence[ManifestRow],
    files: Mapping[str, tuple[int, str]],
) -> bytes:
    """``snapshot.json``.

    identity: snapshot_id, name, collection, generation, at_seq, spec_hash, seed, created_at,
    embedding space and epsilon; files: path -> (bytes, SHA-256 hex) of everything but the images.
    """
    attributes = attribute_columns(rows)
    document = {
        "schema": SNAPSHOT_SCHEMA,
        **identity,
        "request": dict(request),
        "images": {
            "count": len(rows),
            "bytes": sum(row.size_bytes for row in rows),
            "by_split": dict(sorted(Counter(row.split for row in rows).items())),
            "stand_for_duplicates": sum(row.duplicates for row in rows),
            "list_sha256": list_sha256(rows),
        },
        "attributes": {
            "columns": len(attributes.own),
            "in_one_column": len(attributes.others),
        },
        "report": dict(report),
        "files": [
            {"path": path, "size_bytes": size, "sha256": sha256}
            for path, (size, sha256) in sorted(files.items())
        ],
    }
    return _json(document)


def is_same_snapshot(one: bytes, other: bytes) -> bool:
    """Whether two descriptors describe the same list under the same id."""
    try:
        first, second = (json.loads(text) for text in (one, other))
        return all(first[name] == second[name] for name in ("schema", "snapshot_id")) and bool(
            first["images"]["list_sha256"] == second["images"]["list_sha256"]
        )
    except (ValueError, KeyError, TypeError):
        return False


def build_croissant(
    *, name: str, snapshot_id: str, created_at: datetime, files: Mapping[str, tuple[int, str]]
) -> bytes:
    """``croissant.json``: the manifest described in MLCommons Croissant 1.0 (JSON-LD).

    Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
    """
    document = {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo",
            "recordSet": "cr:recordSet",
            "field": "cr:field",
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "source": "cr:source",
            "fileObject": "cr:fileObject",
            "extract": "cr:extract",
            "column": "cr:column",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "version": snapshot_id,
        "description": f"Images chosen by pixsift, snapshot {snapshot_id}",
        "datePublished": created_at.isoformat(),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path,
                "name": path,
                "contentUrl": path,
                "contentSize": f"{size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256,
            }
            for path, (size, sha256) in sorted(files.items())
            if path.endswith(".parquet")
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"images/{column}",
                        "name": column,
                        "dataType": kind,
                        "source": {
                            "fileObject": {"@id": "manifest.parquet"},
                            "extract": {"column": column},
                        },
                    }
                    for column, kind in _CROISSANT_TYPES.items()
                ],
            }
        ],
    }
    return _json(document)


def build_redactions(redactions: Sequence[Mapping[str, Any]]) -> bytes:
    """``redactions.json``: rank and path of every image that was erased after publication."""
    entries = [{"rank": entry["rank"], "path": entry["destination_key"]} for entry in redactions]
    return _json({"schema": "pixsift.redactions/1", "redacted": entries})


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True, default=str).encode() + b"\n"
