"""``pixsift upload``: a folder into a bucket, what is there already left alone."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from pixsift.adapters.aws.uploads import FolderUploads, S3Location, files_below, is_same, too_large
from pixsift.config import BucketSettings
from pixsift.errors import DependencyDownError, PixsiftError, RequestError
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.progress import progress


@dataclass(slots=True)
class UploadReport:
    """What became of the files of one run."""

    location: str
    uploaded: int = 0
    skipped: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Relative path -> why."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(upload)


def upload(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the images.")],
    location: Annotated[str, typer.Argument(metavar="S3URI", help="s3://bucket/prefix")],
    threads: Annotated[int, typer.Option(min=1, max=64, help="Uploads at a time.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Upload a folder; run it again after an interruption and it goes on where it stopped."""
    target = S3Location.parse(location)
    _refuse_own_bucket(target.bucket)
    files = list(files_below(folder))
    if not files:
        raise RequestError(f"{folder} holds no files: name the folder with the images")
    report = upload_files(FolderUploads(threads=threads), files, target, threads=threads)
    text = (
        f"{report.uploaded} uploaded, {report.skipped} there already, {len(report.failed)} failed"
    )
    emit(
        asdict(report), as_json, "\n".join([text, *(f"{k}: {v}" for k, v in report.failed.items())])
    )
    if report.failed:
        raise typer.Exit(1)


def _refuse_own_bucket(bucket: str) -> None:
    own = BucketSettings()
    if bucket in (own.derived_bucket, own.curated_bucket):
        raise RequestError(
            f"s3://{bucket} is a bucket that pixsift writes to, where nothing is judged: name a "
            "source of a collection (pixsift collection show)"
        )


def upload_files(
    uploads: FolderUploads,
    files: Sequence[tuple[Path, str]],
    target: S3Location,
    *,
    threads: int,
) -> UploadReport:
    """Send what the bucket lacks; one bad file stops no other, a silent S3 stops all."""
    present = uploads.listing(target)
    report = UploadReport(f"s3://{target.bucket}/{target.prefix}")

    def send(path: Path, relative: str) -> int:
        """Bytes sent; -1 when the object is there already."""
        key = target.key(relative)
        if key in present and is_same(path, present[key]):
            return -1
        if too_large(path):
            raise RequestError("larger than 5 GiB, the most that one put carries")
        uploads.put(target.bucket, key, path)
        return path.stat().st_size

    with progress("uploading", total=len(files)) as advance, ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(send, path, relative): relative for path, relative in files}
        try:
            for done in as_completed(waiting):
                _note(report, waiting[done], done)
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return report


def _note(report: UploadReport, relative: str, done: "Future[int]") -> None:
    try:
        sent = done.result()
    except DependencyDownError:
        raise
    except (PixsiftError, OSError) as error:
        printable = relative.encode(errors="backslashreplace").decode()
        report.failed[printable] = str(error)
        return
    if sent < 0:
        report.skipped += 1
    else:
        report.uploaded += 1
        report.bytes += sent
