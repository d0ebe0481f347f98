"""Source to destination: which object version goes where, and as how many copy requests.

Pure planning. The same list always gives the same destinations, so another process can continue an
interrupted export, and S3 Batch Operations can do it (its destination is a prefix plus the source
key). The ledger records what has been copied already; nothing here knows it.
"""

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pixsift.core.identity import ObjectVersion

GIB = 1024**3
MAX_SINGLE_COPY_BYTES = 5 * GIB
"""One request copies up to 5 GB:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html"""
MAX_KEY_BYTES = 1024
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html, in UTF-8."""
MAX_FILE_NAME_BYTES = 255
"""NAME_MAX of Linux file systems: https://man7.org/linux/man-pages/man7/path_resolution.7.html"""
MAX_COMPONENT_BYTES = 200
"""Of a folder or file name in a snapshot: tools append to names."""
MAX_PARTS = 10_000
DEFAULT_PART_BYTES = GIB
RESERVED_NAMES = frozenset({"metadata.parquet", "metadata.csv", "metadata.jsonl"})
"""Names that ImageFolder reads as metadata; an image of that name must not shadow ours."""
_HASHED = "_hashed"
"""The folder of keys that cannot be kept; a source's own folder of that name is one of them."""

_SPLIT_NAME = re.compile(
    r"(?<![^-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
    r"(?![^-._ 0-9])"
)
"""Words that ``datasets`` takes for a split where a folder holds them, set off like this:
https://huggingface.co/docs/datasets/repository_structure"""
_MISREAD = ("::", "\\")
"""What no path may hold: fsspec reads ``a::b`` as a file within another, and takes ``\\`` for
``/``."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ARCHIVES = frozenset({
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".lzma", ".zst", ".lz4", ".7z", ".rar",
})  # fmt: skip
"""Extensions of what loaders unpack, whatever it is."""

ETAG_VERSION = "etag:"
"""Prefix of the version id of an object in a bucket without versioning."""


@dataclass(frozen=True, slots=True)
class CopyItem:
    """One object version and where its bytes go."""

    rank: int
    object_id: int
    source: ObjectVersion
    etag: str
    """Without quotes; the copy is refused by S3 when the source has another."""
    size_bytes: int
    content_sha256: bytes
    """32 bytes, of the content as the consumer read it; b"" where unknown."""
    split: str
    destination_key: str
    """Below the snapshot's own prefix: ``data/<split>/<source key>``."""

    @property
    def source_version_id(self) -> str | None:
        """S3's version id, None in a bucket without versioning."""
        version_id = self.source.version_id
        return None if version_id.startswith(ETAG_VERSION) else version_id


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``first`` to ``last``, both included, as S3's CopySourceRange counts them."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many bytes the range covers."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"bytes={self.first}-{self.last}"


def needs_parts(size_bytes: int) -> bool:
    """Whether one CopyObject request cannot carry the object."""
    return size_bytes > MAX_SINGLE_COPY_BYTES


def part_ranges(size_bytes: int, part_bytes: int = DEFAULT_PART_BYTES) -> list[ByteRange]:
    """Ranges that cover [0, size) exactly once, in order, at most 10,000 of them.

    ``part_bytes`` grows where 10,000 parts would not be enough. Raises ValueError for an empty
    object, which has no range.
    """
    if size_bytes < 1 or part_bytes < 1:
        raise ValueError(f"no ranges for {size_bytes} bytes in parts of {part_bytes}")
    step = max(part_bytes, -(-size_bytes // MAX_PARTS))
    return [
        ByteRange(first, min(first + step, size_bytes) - 1) for first in range(0, size_bytes, step)
    ]


def destination_keys(
    sources: Iterable[tuple[ObjectVersion, str]], *, prefix: str = ""
) -> list[str]:
    """Where each (object version, split) goes: ``data/<split>/<source key>``, all different.

    Where two chosen versions share a key, or one that differs only in what some file systems do
    not tell apart (``a.jpg`` and ``A.JPG``), or one's key is a folder of the other's (``a`` and
    ``a/b``, which no file system holds), the later one in the list carries its version id before
    the extension. Keys for which that is not enough or would be too long under ``prefix``, or that
    are not a plain relative path (``../x``, ``a//b``), hold a component too long for file systems
    or a control character, or mislead loaders (``a::b``, ``photo.zip``), are replaced by their
    hash: a download must not leave its folder. A folder that loaders would take for a split
    (``test``, ``val-2``) stands in parentheses.
    """
    files: set[str] = set()
    folders: set[str] = set()
    keys = []
    for source, split in sources:
        files |= {folded(f"data/{split}/{name}") for name in RESERVED_NAMES}
        key, place = next(
            (key, place)
            for key in _candidates(source, split, prefix)
            if (place := folded(key)) not in files
            and place not in folders
            and files.isdisjoint(_folders(place))
        )
        files.add(place)
        folders.update(_folders(place))
        keys.append(key)
    return keys


def folded(path: str) -> str:
    """The path as the strictest file systems see it: without case, accent forms and final dots.

    Two paths with one folded form are one file there.
    """
    parts = unicodedata.normalize("NFC", path).casefold().split("/")
    return "/".join(part.rstrip(". ") or part for part in parts)


def place_in_folder(path: str) -> str:
    """Where a file of a snapshot goes below the folder of a download: nearly always ``path``.

    Snapshots of older releases may hold names that no file system does; those components are
    replaced by their hash, and keep a short extension.
    """
    return "/".join(map(_file_name, path.split("/")))


def _file_name(component: str) -> str:
    encoded = component.encode()
    if len(encoded) <= MAX_FILE_NAME_BYTES and "\0" not in component:
        return component
    extension = posixpath.splitext(component)[1]
    is_plain = len(extension.encode()) <= 16 and "\0" not in extension
    return hashlib.sha256(encoded).hexdigest() + (extension if is_plain else "")


def _folders(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _candidates(source: ObjectVersion, split: str, prefix: str) -> Iterator[str]:
    folder = f"data/{split}/"
    shown = _without_split_names(source.key)
    stem, extension = posixpath.splitext(shown)
    version = re.sub(r"[^A-Za-z0-9._-]", "-", source.version_id)
    digest = hashlib.sha256(f"{source.bucket}\n{source.key}\n{source.version_id}".encode())
    hashed = f"{_HASHED}/{digest.hexdigest()}"
    names = [shown, f"{stem}.{version}{extension}"]
    if not _is_plain_path(source.key):
        names = []
    for name in names:
        fits = max(len(part.encode()) for part in name.split("/")) <= MAX_COMPONENT_BYTES
        if fits and len(f"{prefix}{folder}{name}".encode()) <= MAX_KEY_BYTES:
            yield folder + name
    is_plain = len(extension.encode()) <= 16 and not _misleads(extension)
    yield f"{folder}{hashed}{extension if is_plain else ''}"


def _without_split_names(key: str) -> str:
    """The key with a folder that is called like a split in parentheses: ``field-(test)/a.jpg``."""
    *folders, name = key.split("/")
    return "/".join([*(_SPLIT_NAME.sub(r"(\1)", folder) for folder in folders), name])


def _is_plain_path(key: str) -> bool:
    parts = key.split("/")
    return all(part not in ("", ".", "..") for part in parts) and (
        not any(bad in key for bad in _MISREAD)
        and not _CONTROL.search(key)
        and parts[0] != _HASHED
        and not _misleads(posixpath.splitext(key)[1])
    )


def _misleads(extension: str) -> bool:
    return (
        extension.lower() in _ARCHIVES
        or bool(_CONTROL.search(extension))
        or any(bad in extension for bad in _MISREAD)
    )
