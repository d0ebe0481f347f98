"""Server-side copies from a pool of threads: one CopyObject per object, parts above 5 GiB.

Each copy is pinned to the version listed and guarded by its ETag, and S3 itself computes the
SHA-256 of what it wrote, which is compared with what the consumer once read: no HEAD, no LIST, no
byte through this process. Where a store answers without a checksum, one HEAD compares the size.
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from pixsift.adapters.aws.client import aws_errors, s3_client
from pixsift.core.copyplan import DEFAULT_PART_BYTES, CopyItem, needs_parts, part_ranges
from pixsift.errors import ObjectGoneError, PixsiftError
from pixsift.ports import CopyResult

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_COPY_READ_TIMEOUT_SECONDS = 300
"""S3 answers a CopyObject of several gigabytes only when it is done."""
_KEPT_HEADERS = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType",
    "Metadata",
)  # fmt: skip
"""What CopyObject carries over by itself and a multipart upload does not."""


class ThreadCopier:
    """Copies into one bucket, ``concurrency`` at a time. Thread-safe."""

    def __init__(
        self,
        bucket: str,
        *,
        concurrency: int = 32,
        part_bytes: int = DEFAULT_PART_BYTES,
        client: "S3Client | None" = None,
        confirm_after_seconds: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = bucket
        self._concurrency = concurrency
        self._part_bytes = part_bytes
        self._client = client or s3_client(
            connections=concurrency, read_timeout_seconds=_COPY_READ_TIMEOUT_SECONDS
        )
        self._confirm_after = confirm_after_seconds
        self._sleep = sleep

    def copy(self, items: Sequence[CopyItem], *, prefix: str, stop: Event) -> Iterator[CopyResult]:
        """See ``pixsift.ports.Copier``."""
        waiting = iter(items)
        in_flight: set[Future[CopyResult]] = set()
        error: BaseException | None = None
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="copy") as threads:
            while True:
                # Two per thread: no thread waits for this loop, and a stop is quick.
                while (
                    error is None and not stop.is_set() and len(in_flight) < self._concurrency * 2
                ):
                    item = next(waiting, None)
                    if item is None:
                        break
                    in_flight.add(threads.submit(self._copy_confirmed, item, prefix))
                if not in_flight:
                    break
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in done:
                    if (failed := future.exception()) is None:
                        yield future.result()
                    else:
                        error = error or failed
        if error is not None:
            raise error

    def _copy_confirmed(self, item: CopyItem, prefix: str) -> CopyResult:
        """A source counts as missing only when S3 says so twice."""
        try:
            return self._copy_once(item, prefix)
        except ObjectGoneError:
            self._sleep(self._confirm_after)
        try:
            return self._copy_once(item, prefix)
        except ObjectGoneError as gone:
            failure = "source_changed" if gone.reason == "overwritten" else "source_missing"
            return CopyResult(item, "", failure, item.source.uri)

    def _copy_once(self, item: CopyItem, prefix: str) -> CopyResult:
        key = prefix + item.destination_key
        if needs_parts(item.size_bytes):
            checksum = self._copy_parts(item, key)
        else:
            checksum = self._copy_object(item, key)
        return _verified(item, checksum) if checksum else self._verified_by_head(item, key)

    def _copy_object(self, item: CopyItem, key: str) -> str:
        with aws_errors(f"copy {item.source.uri}"):
            answer = self._client.copy_object(
                Bucket=self._bucket, Key=key, ChecksumAlgorithm="SHA256", **_pinned(item)
            )
        return answer.get("CopyObjectResult", {}).get("ChecksumSHA256", "")

    def _copy_parts(self, item: CopyItem, key: str) -> str:
        """Copy in parts. S3's checksum of checksums is not the SHA-256 of the whole: returns ""."""
        with aws_errors(f"copy {item.source.uri} in parts"):
            kept = self._headers(item)
            upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **kept)
            where: dict[str, Any] = {
                "Bucket": self._bucket, "Key": key, "UploadId": upload["UploadId"]
            }  # fmt: skip
            try:
                parts: list[CompletedPartTypeDef] = []
                for number, part_range in enumerate(
                    part_ranges(item.size_bytes, self._part_bytes), start=1
                ):
                    answer = self._client.upload_part_copy(
                        **where, **_pinned(item), PartNumber=number,
                        CopySourceRange=str(part_range),
                    )  # fmt: skip
                    parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
                self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
            except BaseException:
                # Parts that cannot be removed now are removed later by the bucket's lifecycle rule.
                with suppress(PixsiftError), aws_errors("abort"):
                    self._client.abort_multipart_upload(**where)
                raise
        return ""

    def _headers(self, item: CopyItem) -> dict[str, Any]:
        source: dict[str, Any] = {"Bucket": item.source.bucket, "Key": item.source.key}
        if item.source_version_id is not None:
            source["VersionId"] = item.source_version_id
        head: Mapping[str, Any] = self._client.head_object(**source)
        return {name: head[name] for name in _KEPT_HEADERS if head.get(name)}

    def _verified_by_head(self, item: CopyItem, key: str) -> CopyResult:
        with aws_errors(f"head s3://{self._bucket}/{key}"):
            head = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        if head["ContentLength"] != item.size_bytes:
            detail = f"{head['ContentLength']} bytes instead of {item.size_bytes}"
            return CopyResult(item, "", "size_mismatch", detail)
        if head.get("ChecksumSHA256") and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return _verified(item, head["ChecksumSHA256"])
        return CopyResult(item, "etag:" + head["ETag"].strip('"'))


def _pinned(item: CopyItem) -> dict[str, Any]:
    """The exact source: by version where there is one, and only with the listed content."""
    source = {"Bucket": item.source.bucket, "Key": item.source.key}
    if item.source_version_id is not None:
        source["VersionId"] = item.source_version_id
    etag = item.etag or item.source.version_id.removeprefix("etag:")
    if not item.etag and item.source_version_id is not None:
        return {"CopySource": source}
    return {"CopySource": source, "CopySourceIfMatch": f'"{etag}"'}


def _verified(item: CopyItem, checksum_base64: str) -> CopyResult:
    digest = base64.b64decode(checksum_base64)
    if item.content_sha256 and digest != item.content_sha256:
        detail = f"{digest.hex()} instead of {item.content_sha256.hex()}"
        return CopyResult(item, "", "checksum_mismatch", detail)
    return CopyResult(item, f"sha256:{digest.hex()}")
