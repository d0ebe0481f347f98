"""LocalStack with two endpoints more: one saves the objects of its buckets, one loads them.

LocalStack holds objects in memory. An object written again through its API would get another
version id and be announced as new, so the ledger would no longer speak of it. Therefore its own
stores are read and filled: version ids, delete markers, times, ETags and metadata stay what they
were, and nothing is announced. This relies on the internals of the release that
``localstack/requirements.txt`` pins.

This file runs in LocalStack's environment, as ``python -P localstack_main.py FOLDER``; it imports
nothing of pixsift. What it unpickles, it wrote itself, into a folder that only its user can enter.
"""

import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAVE, LOAD = "/_localstack/pixsift/save", "/_localstack/pixsift/load"
_INDEX = "index.pickle"
_CHUNK_BYTES = 1 << 20


def main(folder: Path) -> None:
    """Serve until the end of the process. folder: where the objects are saved."""
    from localstack.runtime import main as runtime
    from localstack.services.internal import get_internal_apis

    apis = get_internal_apis()
    apis.add(SAVE, lambda request: {"objects": save(folder)}, methods=["POST"])
    apis.add(LOAD, lambda request: {"objects": load(folder)}, methods=["POST"])
    runtime.main()


def save(folder: Path) -> int:
    """Write every version of every object; returns how many. A cut short one changes nothing."""
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    entries = []
    for bucket in _buckets():
        for version in _versions(bucket):
            has_body = hasattr(version, "etag")  # a delete marker has none
            entries.append((bucket.name, has_body, version))
            if has_body:
                _write_body(bucket.name, version, beside / str(len(entries) - 1))
    (beside / _INDEX).write_bytes(pickle.dumps(entries))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return len(entries)


def load(folder: Path) -> int:
    """Fill the buckets, which must exist and be empty, from what ``save`` wrote."""
    entries = pickle.loads((folder / _INDEX).read_bytes())  # noqa: S301 - see the module docstring
    buckets = {bucket.name: bucket for bucket in _buckets()}
    filled = [name for name in {entry[0] for entry in entries} if _versions(buckets[name])]
    if filled:
        raise ValueError(f"buckets that hold objects already: {sorted(filled)}")
    for number, (name, has_body, version) in enumerate(entries):
        is_current = version.is_current
        buckets[name].objects.set(version.key, version)
        version.is_current = is_current
        if has_body:
            _read_body(name, version, folder / str(number))
    return len(entries)


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
    version.etag, version.size = etag, size  # a multipart upload's ETag is no plain MD5


if __name__ == "__main__":
    main(Path(sys.argv[1]))
