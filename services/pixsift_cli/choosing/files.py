"""``pixsift snapshot download`` and ``clean``: the files of snapshots at S3."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.snapshots import Snapshot, Snapshots, unknown_snapshot
from pixsift.config import BucketSettings
from pixsift.core.descriptor import SNAPSHOT_FILE
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest import ManifestRow
from pixsift.errors import (
    ConflictError,
    NotFoundError,
    ObjectGoneError,
    PermanentError,
    RequestError,
)
from pixsift_cli.common import JsonOption, emit, no_nan, open_database

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """One file to fetch: where it goes below the folder, and the hash it must have."""

    path: str
    sha256: str
    """Hex; "" where it is not known."""
    fetch: Callable[[], bytes]


def download(
    snapshot: Annotated[str, typer.Argument(help="Id, request id or name (the newest of it).")],
    folder: Annotated[Path, typer.Argument(help="Where to put it; made if it is not there.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch a published snapshot; what is there already and whole is not fetched again.

    The bytes of a reference snapshot come from the source buckets, the exact versions listed.
    """
    with open_database() as database:
        snapshots = Snapshots(database)
        found = find(snapshots, snapshot)
        if found.state != "published":
            raise ConflictError(f"snapshot {found.snapshot_id} is {found.state}, not published")
        pieces = _pieces(snapshots, found, S3Objects(connections=_THREADS))
    fetched, gone = fetch_all(pieces, folder)
    facts = {
        "snapshot_id": found.snapshot_id,
        "folder": str(folder),
        "files": len(pieces) - len(gone),
        "fetched": fetched,
        "missing": gone,
    }
    lines = [f"{len(pieces) - len(gone)} files in {folder}, {fetched} of them fetched now"]
    emit(facts, as_json, "\n".join(lines + [f"missing {path}" for path in gone]))
    if gone:
        raise PermanentError("incomplete", f"{len(gone)} files are gone")


def clean(
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=36_500,
            callback=no_nan,
            help="Only snapshots that failed at least so many days ago.",
        ),
    ] = 7.0,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; otherwise only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what failed snapshots left in the curated bucket."""
    bucket = BucketSettings().curated_bucket
    objects = S3Objects()
    removed: dict[str, int] = {}
    with open_database() as database:
        for row in Snapshots(database).abandoned(older_than_days):
            found = list(objects.iter_versions(bucket, row.prefix))
            if any(version.key == row.prefix + SNAPSHOT_FILE for version in found):
                continue  # somebody published there: never ours to remove
            removed[row.snapshot_id] = len(found)
            for version in found if apply else []:
                identity = version.version.version_id
                objects.delete(
                    bucket, version.key, version_id=None if identity == "null" else identity
                )
    verb = "removed" if apply else "would remove"
    lines = [f"{verb} {count} objects of {name}" for name, count in removed.items() if count]
    emit({"applied": apply, "objects": removed}, as_json, "\n".join(lines) or "nothing to remove")


def find(snapshots: Snapshots, text: str) -> Snapshot:
    """The snapshot of an id, request id or name, the newest where several fit."""
    found = snapshots.find(text)
    if not found:
        refused = snapshots.request(text)
        if refused is not None and refused.error is not None:
            raise NotFoundError(f"request {text} led to no snapshot: {refused.error}")
        raise unknown_snapshot(text)
    return snapshots.get(found[0])


def fetch_all(pieces: Sequence[Piece], folder: Path) -> tuple[int, list[str]]:
    """Fetch what is not there; how many were fetched, and the paths of those that are gone.

    Raises PermanentError for bytes that are not the ones listed, UserError for a path that would
    leave ``folder`` or cannot be written.
    """
    root = folder.resolve()
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)

    def one(piece: Piece) -> bool | None:
        path = (root / piece.path).resolve()
        if not path.is_relative_to(root):
            raise RequestError(f"{piece.path!r} would leave {folder}")
        if _is_there(piece, path):
            return False
        try:
            content = piece.fetch()
        except ObjectGoneError:
            return None
        if piece.sha256 and _sha256(content) != piece.sha256:
            raise PermanentError("checksum_mismatch", piece.path)
        _store(path, content)
        return True

    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(one, pieces))
    gone = [piece.path for piece, result in zip(pieces, results, strict=True) if result is None]
    return sum(result is True for result in results), gone


def _is_there(piece: Piece, path: Path) -> bool:
    with _writing(path):
        return bool(piece.sha256 and path.is_file() and _sha256(path.read_bytes()) == piece.sha256)


def _store(path: Path, content: bytes) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")  # a killed download leaves no half image
        part.write_bytes(content)
        part.replace(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise what the file system refuses as UserError."""
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
    # A shard may have been written again without an erased image: then its first hash is history.
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
