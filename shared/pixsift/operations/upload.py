"""Uploads a folder into a bucket; files that are there already are skipped."""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from pixsift.adapters.aws.uploads import FolderUploads, S3Location, files_below, is_same, too_large
from pixsift.answers.images import Uploaded
from pixsift.errors import DependencyDownError, PixsiftError, Remedy, RequestError
from pixsift.ports import CountProgress


@dataclass(slots=True)
class _Tally:
    uploaded: int = 0
    skipped: int = 0
    sent: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def upload(
    uploads: FolderUploads,
    folder: Path,
    location: str,
    *,
    threads: int,
    own_buckets: Collection[str] = (),
    only: Collection[str] | None = None,
    progress: CountProgress = lambda total: nullcontext(lambda count: None),
) -> Uploaded:
    """Send what the bucket lacks; a bad file does not stop the others, but an S3 that does not
    answer stops all.

    own_buckets: buckets that pixsift writes to; objects there are not judged. only: paths below the
    folder; None: every file. progress: of the number of files. Raises RequestError for
    such a bucket, an empty folder or a location that is none.
    """
    target = S3Location.parse(location)
    if target.bucket in own_buckets:
        raise RequestError(
            f"s3://{target.bucket} is a bucket that pixsift writes to: choose a source bucket",
            remedy=Remedy("name_source"),
        )
    files = [each for each in files_below(folder) if only is None or each[1] in only]
    if not files:
        raise RequestError(f"{folder} has no files: name the folder with the images")
    present = uploads.listing(target)
    tally = _Tally()

    def send(path: Path, relative: str) -> int:
        """Bytes sent; -1 when the object is there already."""
        key = target.key(relative)
        if key in present and is_same(path, present[key]):
            return -1
        if too_large(path):
            raise RequestError("larger than 5 GiB, the limit of one PUT request")
        uploads.put(target.bucket, key, path)
        return path.stat().st_size

    with progress(len(files)) as advance, ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(send, path, relative): relative for path, relative in files}
        try:
            for done in as_completed(waiting):
                _note(tally, target.key(waiting[done]), waiting[done], done)
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Uploaded(
        bucket=target.bucket, uploaded_keys=tally.keys,
        location=f"s3://{target.bucket}/{target.prefix}", uploaded=tally.uploaded,
        skipped=tally.skipped, bytes=tally.sent, failed=tally.failed,
    )  # fmt: skip


def _note(tally: _Tally, key: str, relative: str, done: "Future[int]") -> None:
    try:
        sent = done.result()
    except DependencyDownError:
        raise
    except (PixsiftError, OSError) as error:
        printable = relative.encode(errors="backslashreplace").decode()
        tally.failed[printable] = str(error)
        return
    if sent < 0:
        tally.skipped += 1
    else:
        tally.uploaded += 1
        tally.sent += sent
        tally.keys.append(key)
