"""LocalStack with two more endpoints: one saves the objects of its buckets, one loads them.

LocalStack holds objects in memory. An object written again through its API would get another
version id and be announced as new, so it would no longer be the object of the ledger. Therefore its
own stores are read and filled: version ids, delete markers, times, ETags and metadata stay what
they were, and nothing is announced. This relies on the internals of the release that
``localstack/requirements.txt`` pins.

This file runs in LocalStack's environment, as ``python -P localstack_main.py FOLDER``; it imports
nothing of pixsift.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

SAVE, LOAD = "/_localstack/pixsift/save", "/_localstack/pixsift/load"
_INDEX = "index.json"
_CHUNK_BYTES = 1 << 20
_TIME = "$time"


def main(folder: Path) -> None:
    """Serve until the end of the process. folder: where the objects are saved."""
    from localstack.runtime import main as runtime
    from localstack.services.internal import get_internal_apis

    apis = get_internal_apis()
    apis.add(SAVE, lambda request: {"objects": save(folder)}, methods=["POST"])
    apis.add(LOAD, lambda request: {"objects": load(folder)}, methods=["POST"])
    runtime.main()


def save(folder: Path) -> int:
    """Write every version of every object; returns how many. An interrupted save changes
    nothing."""
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    entries = []
    for bucket in _buckets():
        for version in _versions(bucket):
            has_body = hasattr(version, "etag")  # a delete marker has none
            entries.append([bucket.name, has_body, vars(version)])
            if has_body:
                _write_body(bucket.name, version, beside / str(len(entries) - 1))
    (beside / _INDEX).write_text(json.dumps(entries, default=_time_to_json), "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return len(entries)


def load(folder: Path) -> int:
    """Fill the buckets, which must exist and be empty, from what ``save`` wrote."""
    text = (folder / _INDEX).read_text("utf-8")
    entries = json.loads(text, object_hook=_time_from_json)
    buckets = {bucket.name: bucket for bucket in _buckets()}
    filled = [name for name in {entry[0] for entry in entries} if _versions(buckets[name])]
    if filled:
        raise ValueError(f"buckets that hold objects already: {sorted(filled)}")
    for number, (name, has_body, fields) in enumerate(entries):
        version = _version(has_body, fields)
        is_current = version.is_current
        buckets[name].objects.set(version.key, version)
        version.is_current = is_current
        if has_body:
            _read_body(name, version, folder / str(number))
    return len(entries)


def _version(has_body: bool, fields: dict[str, Any]) -> Any:
    """The object version or delete marker with these very fields."""
    from localstack.services.s3.models import S3DeleteMarker, S3Object

    kind = S3Object if has_body else S3DeleteMarker
    version = kind.__new__(kind)
    if fields.get("parts"):  # JSON cannot have numbers as names
        fields["parts"] = {int(number): part for number, part in fields["parts"].items()}
    vars(version).update(fields)
    return version


def _time_to_json(value: Any) -> dict[str, str]:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is a kind of field that the objects of LocalStack had not")
    return {_TIME: value.isoformat()}


def _time_from_json(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[_TIME]) if set(value) == {_TIME} else value


def _buckets() -> Iterator[Any]:
    from localstack.services.s3.models import s3_stores

    seen = set()
    for _, regions in s3_stores.items():
        for _, store in regions.items():
            for bucket in store.buckets.values():
                if bucket.name not in seen:
                    seen.add(bucket.name)
                    yield bucket


def _versions(bucket: Any) -> list[Any]:
    found: list[Any] = bucket.objects.values(
        with_versions=True
    )  # oldest first, as they have to be set again
    return found


def _storage() -> Any:
    from localstack.services.plugins import SERVICE_PLUGINS

    return SERVICE_PLUGINS.get_service("s3")._provider._storage_backend


def _write_body(bucket: str, version: Any, path: Path) -> None:
    stored = _storage().open(bucket, version)
    try:
        with path.open("wb") as stream:
            while data := stored.read(_CHUNK_BYTES):
                stream.write(data)
    finally:
        stored.close()


def _read_body(bucket: str, version: Any, path: Path) -> None:
    etag, size = version.etag, version.size
    stored = _storage().open(bucket, version, "w")
    try:
        with path.open("rb") as stream:
            stored.write(stream)
    finally:
        stored.close()
    version.etag, version.size = etag, size  # a multipart upload's ETag is not a plain MD5


if __name__ == "__main__":
    main(Path(sys.argv[1]))
