"""The quality of a local folder's images, and the health of a collection's cameras."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pixsift.adapters.decode.pool import DecodeLimits, DecoderPool
from pixsift.adapters.ledger.cameras import camera_frames
from pixsift.adapters.postgres.database import Database
from pixsift.core.camera_health import CameraHealth, HealthLimits, camera_health
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.core.judged_file import JudgedFile
from pixsift.core.quality import QualityPolicy, judge
from pixsift.errors import Remedy, RequestError
from pixsift.operations.retrieve import only_collection

_BATCH_FILES = 64
_BATCH_BYTES = 64 * 2**20


def cameras(
    database: Database,
    collection: str | None,
    *,
    by: str,
    since: datetime | None,
    limits: HealthLimits,
) -> list[CameraHealth]:
    """Frozen cameras and drifting exposure, from what the ledger already knows.

    by: the attribute that names the camera. since: only frames captured from then on.
    collection: see ``only_collection``. Raises RequestError when no frame has that attribute: all
    frames treated as one camera would give a meaningless result.
    """
    name = only_collection(database, collection).name
    found = camera_health(camera_frames(database, name, by, since=since), limits)
    if found and not any(health.camera for health in found):
        raise RequestError(
            f"no frame of collection {name!r} has the attribute {by!r}, so no camera is known",
            code="no_camera", remedy=Remedy("name_camera", {"collection": name}),
        )  # fmt: skip
    return found


def measure_folder(
    folder: Path,
    policy: QualityPolicy,
    workers: int = 2,
    *,
    formats: tuple[str, ...] | None = None,
    thumbnails: bool = False,
) -> Iterator[JudgedFile]:
    """Every file below ``folder``, in order of name. Raises RequestError when there is none.

    formats: what is decoded; None: what arrivals are decoded from. thumbnails: keep them, about 10
    kB each; without them a folder of any size fits into memory.
    """
    limits = DecodeLimits() if formats is None else DecodeLimits(formats=formats)
    paths = image_files(folder)
    with DecoderPool(224, workers=workers, limits=limits) as pool:
        for batch in _batches(paths):
            found = [_read(path, limits.max_bytes) for path in batch]
            results = iter(pool.decode([blob for blob in found if isinstance(blob, bytes)]))
            for path, blob in zip(batch, found, strict=True):
                name = path.relative_to(folder).as_posix()
                row = _judged(name, next(results) if isinstance(blob, bytes) else blob, policy)
                yield row if thumbnails else replace(row, thumbnail_webp=b"")


def image_files(folder: Path) -> list[Path]:
    """Files below ``folder``, except hidden ones. Raises RequestError when there is none."""
    if not folder.is_dir():
        raise RequestError(f"{str(folder)!r} is not a folder")
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    if not paths:
        raise RequestError(f"{str(folder)!r} has no files")
    return paths


def _batches(paths: list[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    weight = 0
    for path in paths:
        size = _size(path)
        if batch and (len(batch) == _BATCH_FILES or weight + size > _BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(path)
        weight += size
    if batch:
        yield batch


def _read(path: Path, most: int) -> bytes | DecodeFailure:
    """The file's bytes, unless it is too large to be an image (a film, say) or cannot be read."""
    if _size(path) > most:
        return DecodeFailure("too_many_bytes", f"at most {most}")
    try:
        return path.read_bytes()
    except OSError as error:
        return DecodeFailure("unreadable", error.strerror or "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone since it was listed
        return 0


def _judged(name: str, result: DecodedImage | DecodeFailure, policy: QualityPolicy) -> JudgedFile:
    if isinstance(result, DecodeFailure):
        return JudgedFile(name, "refused", result.reason, (), {}, None, b"")
    verdict = judge(result.quality, result.facts, policy)
    outcome = "rejected" if verdict.rejected_reason else "flagged" if verdict.flags else "good"
    return JudgedFile(
        name, outcome, verdict.rejected_reason or "", verdict.flags, result.quality,
        result.facts, result.thumbnail_webp,
    )  # fmt: skip
