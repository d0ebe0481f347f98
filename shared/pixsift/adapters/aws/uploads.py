"""Puts files into a bucket and brings objects back, for people: upload, demo, contact sheet.

The services' own client is ``pixsift.adapters.aws.s3``; this one knows folders.
"""

import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from pixsift.adapters.aws.client import s3_client
from pixsift.errors import (
    DependencyDownError,
    NotFoundError,
    RequestError,
    SettingError,
    TransientError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MAX_PUT_BYTES = 5 * 1024**3  # one PutObject, S3 User Guide, "Uploading objects"
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


@dataclass(frozen=True, slots=True)
class S3Location:
    """``s3://bucket/prefix``."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> "S3Location":
        """Raises UserError with the expected form."""
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise RequestError(
                f"{uri!r} is not an S3 location: write s3://bucket or s3://bucket/prefix"
            )
        return cls(bucket, prefix)

    def key(self, relative: str) -> str:
        """The key of ``relative`` below this location."""
        return f"{self.prefix.rstrip('/')}/{relative}" if self.prefix else relative


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it."""

    size_bytes: int
    etag: str


class FolderUploads:
    """Uploads and downloads of whole folders. Thread-safe."""

    def __init__(self, *, threads: int = 8) -> None:
        self._s3: S3Client = s3_client(connections=threads)

    def listing(self, location: S3Location) -> dict[str, Stored]:
        """Key to object of everything below ``location``."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=location.bucket, Prefix=location.prefix
        )
        try:
            return {
                item["Key"]: Stored(item["Size"], item["ETag"].strip('"'))
                for page in pages
                for item in page.get("Contents", [])
            }
        except (ClientError, BotoCoreError) as exc:
            raise _translated(exc, f"s3://{location.bucket}") from exc

    def check(self, bucket: str) -> str:
        """Returns an empty text when the bucket answers; otherwise raises the error."""
        try:
            self._s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except (ClientError, BotoCoreError) as exc:
            raise _translated(exc, f"s3://{bucket}") from exc
        return ""

    def is_versioned(self, bucket: str) -> bool:
        """Whether the bucket keeps overwritten and deleted objects. Raises as ``check``."""
        try:
            answer = self._s3.get_bucket_versioning(Bucket=bucket)
        except (ClientError, BotoCoreError) as exc:
            raise _translated(exc, f"s3://{bucket}") from exc
        return answer.get("Status") == "Enabled"

    def put(self, bucket: str, key: str, body: bytes | Path) -> str:
        """Write one object; returns its version id ("" in a bucket without versions)."""
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        if not _is_text(key):
            raise RequestError("the name is not UTF-8, as keys must be: rename the file")
        try:
            if isinstance(body, bytes):
                answer = self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=kind)
            else:
                with body.open("rb") as stream:
                    answer = self._s3.put_object(
                        Bucket=bucket, Key=key, Body=stream, ContentType=kind
                    )
        except (ClientError, BotoCoreError) as exc:
            raise _translated(exc, f"s3://{bucket}/{key}") from exc
        return answer.get("VersionId", "")

    def get(self, bucket: str, key: str) -> bytes | None:
        """The bytes of one object, or None where there is none."""
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as exc:
            if exc.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise _translated(exc, f"s3://{bucket}/{key}") from exc
        except BotoCoreError as exc:
            raise _translated(exc, f"s3://{bucket}/{key}") from exc

    def delete(self, bucket: str, key: str) -> None:
        """Delete one object: a delete marker, in a bucket with versions."""
        try:
            self._s3.delete_object(Bucket=bucket, Key=key)
        except (ClientError, BotoCoreError) as exc:
            raise _translated(exc, f"s3://{bucket}/{key}") from exc

    def download(self, location: S3Location, folder: Path) -> list[Path]:
        """Bring everything below ``location`` into ``folder``; returns the files written.

        A key that would lead out of the folder is refused.
        """
        written = []
        for key in sorted(self.listing(location)):
            relative = key[len(location.prefix) :].lstrip("/")
            target = (folder / relative).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise RequestError(
                    f"s3://{location.bucket}/{key} would be written outside {folder}"
                )
            body = self.get(location.bucket, key)
            if relative and body is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(body)
                written.append(target)
        return written


def files_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every regular file of ``folder`` with its relative key, in the order of the keys."""
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder: name the folder with the images")
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
    for relative, path in paths:
        if path.is_file():
            yield path, relative


def is_same(path: Path, stored: Stored) -> bool:
    """Whether the object holds exactly the file's bytes, as far as its ETag can tell.

    The ETag of a single put is the MD5 of the bytes; others (multipart, KMS) never match, and the
    file is sent again: one more version of the same content, which the ledger knows at once.
    """
    if path.stat().st_size != stored.size_bytes:
        return False
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == stored.etag


def too_large(path: Path) -> bool:
    """Whether one put cannot carry the file."""
    return path.stat().st_size > _MAX_PUT_BYTES


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _translated(exc: ClientError | BotoCoreError, what: str) -> Exception:
    if isinstance(exc, ParamValidationError):
        return RequestError(f"{what}: S3 does not allow this name: check the bucket and the key")
    if isinstance(exc, BotoCoreError):
        return DependencyDownError(f"{what}: S3 does not respond: {exc}")
    code = exc.response["Error"]["Code"]
    if code == "NoSuchBucket":
        return NotFoundError(
            f"{what}: the bucket does not exist: check its name and AWS_ENDPOINT_URL"
        )
    if code in _DENIED:
        return SettingError(f"{what}: {code}: check the AWS credentials and permissions")
    return TransientError(f"{what}: {code}: {exc}")
