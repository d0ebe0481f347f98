"""Downloads a published snapshot into a folder; complete files are not fetched again."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.snapshots import Snapshot, Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.answers.snapshots import Downloaded
from pixsift.core.copyplan import folded, place_in_folder
from pixsift.core.descriptor import SNAPSHOT_FILE
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest_rows import ManifestRow
from pixsift.errors import ConflictError, ObjectGoneError, PermanentError, RequestError
from pixsift.operations.snapshots import find

THREADS = 16
"""Files fetched at once."""
_UNFINISHED = ".pixsift-unfinished-"
"""Prefix of the folder of files being written; no path of a snapshot begins with it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One file to fetch: where it goes below the folder, and the hash it must have."""

    path: str
    sha256: str
    """Hex; "" where it is not known."""
    fetch: Callable[[], bytes]


def download(database: Database, objects: S3Objects, text: str, folder: Path) -> Downloaded:
    """Fetch the snapshot of an id, request id or name.

    The bytes of a reference snapshot come from the source buckets, the exact versions listed.
    Raises ConflictError for one that is not published.
    """
    found = find(database, text)
    if found.state != "published":
        raise ConflictError(
            f"snapshot {found.snapshot_id} is {found.state}, not published", code="not_published"
        )
    pieces = _pieces(Snapshots(database), found, objects)
    fetched, gone = fetch_all(pieces, folder)
    return Downloaded(
        snapshot_id=found.snapshot_id, folder=str(folder), files=len(pieces) - len(gone),
        fetched=fetched, missing=gone,
    )  # fmt: skip


def fetch_all(pieces: Sequence[Piece], folder: Path) -> tuple[int, list[str]]:
    """Fetch the missing files; returns how many were fetched, and the paths of those that are gone.

    Raises PermanentError for bytes that are not the ones listed, RequestError for a path that would
    leave ``folder`` or cannot be written, and for two files that are one file on this file system.
    """
    root = folder.resolve()
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
    places = [_place(root, piece) for piece in pieces]
    # Files are complete when they appear. The unfinished ones have a folder of their own, since
    # any name next to a file may be the name of another image.
    with _writing(root), TemporaryDirectory(prefix=_UNFINISHED, dir=root) as unfinished:

        def one(piece: Piece, path: Path) -> bool | None:
            if _is_there(piece, path):
                return False
            try:
                content = piece.fetch()
            except ObjectGoneError:
                return None
            if piece.sha256 and _sha256(content) != piece.sha256:
                raise PermanentError("checksum_mismatch", piece.path)
            _store(path, content, Path(unfinished))
            return True

        with ThreadPoolExecutor(THREADS) as threads:
            results = list(threads.map(one, pieces, places))
    gone = [piece.path for piece, result in zip(pieces, results, strict=True) if result is None]
    _check_twins(pieces, places, set(gone))
    return sum(result is True for result in results), gone


def _place(root: Path, piece: Piece) -> Path:
    with _writing(root):
        path = (root / place_in_folder(piece.path)).resolve()
    if path == root or not path.is_relative_to(root):
        raise RequestError(f"{piece.path!r} would be written outside {str(root)!r}")
    return path


def _check_twins(pieces: Sequence[Piece], places: Sequence[Path], gone: set[str]) -> None:
    """Check files whose names are equal on some file systems, after all are written.

    Raises RequestError: one of the files replaced the other.
    """
    groups: dict[str, list[tuple[Piece, Path]]] = defaultdict(list)
    for piece, path in zip(pieces, places, strict=True):
        if piece.path not in gone:
            groups[folded(str(path))].append((piece, path))
    for twins in groups.values():
        if len(twins) == 1:
            continue
        with _writing(twins[0][1]):
            is_one = len({path.stat().st_ino for _, path in twins}) < len(twins)
        if is_one:
            names = " and ".join(repr(piece.path) for piece, _ in twins)
            raise RequestError(
                f"{names} are one file on this file system: download to one that tells upper "
                "case from lower case"
            )


def _is_there(piece: Piece, path: Path) -> bool:
    with _writing(path):
        return bool(piece.sha256 and path.is_file() and _sha256(path.read_bytes()) == piece.sha256)


def _store(path: Path, content: bytes, unfinished: Path) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = unfinished / uuid4().hex
        part.write_bytes(content)
        part.replace(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn refusals of the file system into RequestError."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _pieces(snapshots: Snapshots, snapshot: Snapshot, objects: S3Objects) -> list[Piece]:
    bucket, prefix = _location(snapshot)
    is_reference = snapshot.request.get("export", {}).get("mode") == "reference"
    redacted = {row["destination_key"] for row in snapshots.redactions(snapshot.snapshot_id)}

    def current(path: str) -> Callable[[], bytes]:
        return lambda: _read_current(objects, bucket, prefix + path)

    def image(row: ManifestRow) -> Callable[[], bytes]:
        return (lambda: objects.get(row.source)) if is_reference else current(row.path)

    images = [
        Piece(row.path, row.content_sha256, image(row))
        for row in snapshots.manifest_rows(snapshot.snapshot_id)
        if row.path not in redacted
    ]
    # A shard may have been written again without an erased image: then its first hash no longer
    # holds.
    files = [
        Piece(file.path, "" if redacted else file.sha256, current(file.path))
        for file in snapshots.files(snapshot.snapshot_id)
    ]
    return [*images, *files, Piece(SNAPSHOT_FILE, "", current(SNAPSHOT_FILE))]


def _read_current(objects: S3Objects, bucket: str, key: str) -> bytes:
    head = objects.head(bucket, key)
    if head is None:
        raise ObjectGoneError("deleted", f"s3://{bucket}/{key}")
    return objects.get(ObjectVersion(bucket, key, head.version_id or f"etag:{head.etag}"))


def _location(snapshot: Snapshot) -> tuple[str, str]:
    bucket, _, prefix = (snapshot.location or "").removeprefix("s3://").partition("/")
    return bucket, prefix


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
