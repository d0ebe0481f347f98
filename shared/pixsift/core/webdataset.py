"""WebDataset shards as bytes: which samples go into which tar, and the tar itself. Pure.

A sample is an image and a JSON file, both named by the rank. Shards follow the rank within a
split, hold no times and no owners, and are written as a stream: the same snapshot gives the same
bytes, and a shard never has to fit in memory.
Source of the conventions: https://github.com/webdataset/webdataset
"""

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pixsift.core.manifest_rows import ManifestRow

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tif",
    "BMP": "bmp",
    "GIF": "gif",
}


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar: ``webdataset/<split>-<number>.tar`` below the snapshot's prefix."""

    path: str
    rows: tuple[ManifestRow, ...]


def plan_shards(rows: Sequence[ManifestRow], *, max_bytes: int) -> list[Shard]:
    """Shards of about ``max_bytes`` of images each, at least one image per shard."""
    shards = []
    for split in sorted({row.split for row in rows}):
        chosen = sorted((row for row in rows if row.split == split), key=lambda row: row.rank)
        for number, group in enumerate(_groups(chosen, max_bytes)):
            shards.append(Shard(f"webdataset/{split}-{number:06d}.tar", group))
    return shards


def tar_stream(
    rows: Iterable[ManifestRow], read: Callable[[ManifestRow], bytes]
) -> Iterator[bytes]:
    """The bytes of one shard, in pieces; ``read`` gives an image's bytes."""
    for row in rows:
        name = f"{row.rank:09d}"
        yield from _entry(f"{name}.{_extension(row)}", read(row))
        yield from _entry(f"{name}.json", _facts(row))
    yield _END


def _groups(rows: Sequence[ManifestRow], max_bytes: int) -> Iterator[tuple[ManifestRow, ...]]:
    group: list[ManifestRow] = []
    size = 0
    for row in rows:
        if group and size + row.size_bytes > max_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(row)
        size += row.size_bytes
    if group:
        yield tuple(group)


def _entry(name: str, content: bytes) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    header.mode = 0o644
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield content
    yield bytes(-len(content) % _BLOCK)


def _extension(row: ManifestRow) -> str:
    return _EXTENSIONS.get(row.format, row.format.lower() or "bin")


def _facts(row: ManifestRow) -> bytes:
    facts = {
        "path": row.path,
        "rank": row.rank,
        "split": row.split,
        "source_uri": row.source.uri,
        "content_sha256": row.content_sha256,
        "captured_at": row.captured_at.isoformat() if row.captured_at else None,
        "attributes": dict(row.attributes),
        "quality": dict(row.quality),
    }
    return json.dumps(facts, sort_keys=True).encode()
