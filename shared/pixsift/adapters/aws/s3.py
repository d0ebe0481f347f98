"""S3 as pixsift uses it: exact versions in, small objects out, errors in pixsift's own words.

An object version is read by its version id, or, in a bucket without versioning, only if its ETag
still matches. "Gone" is said only after S3 has said it twice; a refusal (403) is never "gone".
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from pixsift.adapters.aws.client import aws_errors, s3_client
from pixsift.adapters.aws.quick_objects import QuickObjects
from pixsift.core.identity import ListedVersion, ObjectVersion
from pixsift.errors import ObjectGoneError, PermanentError, TransientError
from pixsift.ports import FetchedObject, ListedObject, ObjectHead

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BODY_ATTEMPTS = 3
"""The SDK retries up to the headers only; a broken body must be requested again here."""
_CUT = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, FlexibleChecksumError)
_LISTED = re.compile(rb"<(Version|DeleteMarker)>.*?<VersionId>([^<]*)</VersionId>", re.DOTALL)


class S3Objects:
    """Object calls; thread-safe. ``confirm_after_seconds`` is the pause before a second "gone"."""

    def __init__(
        self,
        *,
        client: "S3Client | None" = None,
        connections: int = 32,
        confirm_after_seconds: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        quick: bool = False,
    ) -> None:
        """quick: read and write whole objects through obstore first (``quick_objects``)."""
        self._client = client or s3_client(connections=connections)
        self._given = client
        self._quick = QuickObjects(self._client) if quick else None
        self._confirm_after = confirm_after_seconds
        self._sleep = sleep
        # boto3 sorts versions and delete markers into two lists; only their order in the answer
        # shows which of them is newer.
        self._client.meta.events.register("before-parse.s3.ListObjectVersions", _keep_order)

    @cached_property
    def _prober(self) -> "S3Client":
        """For calls that only test whether S3 answers: one attempt, short timeouts."""
        return self._given or s3_client(connections=4, read_timeout_seconds=5, attempts=1)

    def get(self, version: ObjectVersion) -> bytes:
        """The bytes of one object version; errors as for ``fetch``."""
        return self.fetch(version).body

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes of the newest version of a key, for what pixsift wrote itself and never
        changes. Raises ObjectGoneError, AccessDeniedError, TransientError or
        DependencyDownError."""
        with aws_errors(f"get s3://{bucket}/{key}"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
        try:
            body: bytes = answer["Body"].read()
        except _CUT as error:
            raise TransientError(f"get s3://{bucket}/{key}: {error}") from error
        return body

    def fetch(
        self,
        version: ObjectVersion,
        *,
        max_bytes: int | None = None,
        reserve: Callable[[int], None] | None = None,
    ) -> FetchedObject:
        """One object version, whole.

        ``reserve`` is called with the size before the body is read, and may block until there is
        room. Raises ObjectGoneError (confirmed), PermanentError ``too_large``, ``archived`` or
        ``unreadable``, AccessDeniedError, TransientError or DependencyDownError.
        """
        try:
            return self._fetch_once(version, max_bytes, reserve)
        except ObjectGoneError as gone:
            if gone.reason == "overwritten":
                raise
            self._sleep(self._confirm_after)
            return self._fetch_once(version, max_bytes, reserve)

    def _fetch_once(
        self,
        version: ObjectVersion,
        max_bytes: int | None,
        reserve: Callable[[int], None] | None,
    ) -> FetchedObject:
        def accept(size: int) -> None:
            if max_bytes is not None and size > max_bytes:
                raise PermanentError("too_large", f"{size} bytes, limit {max_bytes}")
            if reserve is not None:
                reserve(size)

        if self._quick is not None and (answered := self._quick.get(version, accept)):
            return FetchedObject(
                answered.body, answered.etag, answered.metadata, answered.modified_at
            )
        for _ in range(_BODY_ATTEMPTS):
            with aws_errors(f"get {version.uri}"):
                answer = self._client.get_object(**_exactly(version))
            stream, size = answer["Body"], answer["ContentLength"]
            try:
                accept(size)
                body = stream.read()
            except _CUT as error:
                cause: BotoCoreError = error
                continue
            finally:
                stream.close()
            if len(body) == size:
                self._answered_by_boto3(version.bucket)
                return FetchedObject(
                    body, answer["ETag"].strip('"'), answer.get("Metadata", {}),
                    answer.get("LastModified"),
                )  # fmt: skip
            cause = IncompleteReadError(actual_bytes=len(body), expected_bytes=size)
        raise TransientError(f"get {version.uri}: the body broke off: {cause}") from cause

    def head(
        self, bucket: str, key: str, *, version: ObjectVersion | None = None
    ) -> ObjectHead | None:
        """What is at ``key`` now, or about one version; None where there is nothing."""
        try:
            with aws_errors(f"head s3://{bucket}/{key}"):
                wanted = _exactly(version) if version else {"Bucket": bucket, "Key": key}
                answer = self._client.head_object(**wanted)
        except ObjectGoneError:
            return None
        return ObjectHead(
            version_id=answer.get("VersionId"),
            etag=answer["ETag"].strip('"'),
            size_bytes=answer["ContentLength"],
            metadata=answer.get("Metadata", {}),
        )

    def read_first_byte(self, version: ObjectVersion) -> None:
        """Ask for one byte of an object version: the cheapest GET, to see whether S3 answers.

        Raises as ``fetch`` does, without asking twice. The object must not be empty.
        """
        with aws_errors(f"get {version.uri}"):
            self._prober.get_object(**_exactly(version), Range="bytes=0-0")["Body"].close()

    def check_bucket(self, bucket: str) -> None:
        """Raise DependencyDownError or TransientError unless ``bucket`` answers and lets us in."""
        with aws_errors(f"bucket {bucket}"):
            self._client.list_objects_v2(Bucket=bucket, MaxKeys=1)

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        only_if_absent: bool = False,
    ) -> bool:
        """Write an object; False if ``only_if_absent`` and something is there already."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}
        if (
            self._quick is not None
            and not only_if_absent
            and self._quick.put(bucket, key, body, content_type)
        ):
            return True
        try:
            with aws_errors(f"put s3://{bucket}/{key}"):
                self._client.put_object(
                    Bucket=bucket, Key=key, Body=body, ContentType=content_type, **condition
                )
        except ObjectGoneError:  # 412: the condition, not a deletion
            return False
        self._answered_by_boto3(bucket)
        return True

    def delete(self, bucket: str, key: str, *, version_id: str | None = None) -> None:
        """Delete an object or one version of it; a missing object is not an error."""
        exactly: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        with aws_errors(f"delete s3://{bucket}/{key}"):
            self._client.delete_object(Bucket=bucket, Key=key, **exactly)

    def copy(self, source: ObjectVersion, bucket: str, key: str) -> str:
        """Copy one exact version server-side, at most 5 GiB; the new ETag."""
        origin: Any = {"Bucket": source.bucket, "Key": source.key}
        condition: dict[str, Any] = {}
        if source.is_versioned:
            origin["VersionId"] = source.version_id
        else:
            condition["CopySourceIfMatch"] = source.etag
        with aws_errors(f"copy {source.uri}"):
            answer = self._client.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource=origin,
                **condition,
            )
        return answer["CopyObjectResult"]["ETag"].strip('"')

    def list_versions(self, bucket: str, key: str) -> list[ListedVersion]:
        """All versions and delete markers of one key, newest first."""
        lines: list[ListedObject] = []
        for page in self._pages(bucket, key):
            found = [listed for listed in page if listed.key == key]
            lines.extend(found)
            if len(found) < len(page):  # in byte order a key comes before all it is a prefix of
                break
        # Emulators list markers after versions; all agree about which line is the latest.
        lines.sort(key=lambda listed: not listed.is_latest)
        return [listed.version for listed in lines]

    def iter_versions(
        self, bucket: str, prefix: str = "", *, after: str = ""
    ) -> Iterator[ListedObject]:
        """Versions and delete markers under ``prefix``, of the keys behind ``after``: by key,
        then newest first."""
        for page in self._pages(bucket, prefix, after):
            yield from page

    def presigned_get(self, version: ObjectVersion, *, seconds: int, content_type: str) -> str:
        """A URL that reads this one object version until then: no other method, no other key.

        It has the permissions of our own role. In a bucket without versioning it reads what lies
        under the key then. S3 answers with ``content_type``, whatever the uploader declared.
        """
        wanted: dict[str, Any] = {
            "Bucket": version.bucket, "Key": version.key, "ResponseContentType": content_type,
            "ResponseContentDisposition": "inline",
        }  # fmt: skip
        if version.is_versioned:
            wanted["VersionId"] = version.version_id
        with aws_errors(f"sign {version.uri}"):
            return self._client.generate_presigned_url("get_object", wanted, seconds, "GET")

    def _answered_by_boto3(self, bucket: str) -> None:
        if self._quick is not None:
            self._quick.boto3_succeeded(bucket)

    def _pages(self, bucket: str, prefix: str, after: str = "") -> Iterator[list[ListedObject]]:
        marker: dict[str, Any] = {"KeyMarker": after} if after else {}
        pages = iter(
            self._client.get_paginator("list_object_versions").paginate(
                Bucket=bucket, Prefix=prefix, **marker
            )
        )
        while True:
            with aws_errors(f"list s3://{bucket}/{prefix}"):
                page: Any = next(pages, None)
            if page is None:
                return
            yield list(_in_order(page))


def _exactly(version: ObjectVersion) -> dict[str, Any]:
    wanted: dict[str, Any] = {"Bucket": version.bucket, "Key": version.key}
    if version.is_versioned:
        wanted["VersionId"] = version.version_id
    else:
        wanted["IfMatch"] = version.etag
    return wanted


def _keep_order(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    customized_response_dict["PixsiftOrder"] = [
        (kind == b"DeleteMarker", identifier.decode())
        for kind, identifier in _LISTED.findall(response_dict.get("body") or b"")
    ]


def _in_order(page: Mapping[str, Any]) -> Iterator[ListedObject]:
    versions, markers = iter(page.get("Versions", [])), iter(page.get("DeleteMarkers", []))
    for is_marker, _ in page["PixsiftOrder"]:
        line = next(markers if is_marker else versions)
        yield ListedObject(
            key=line["Key"],
            version=ListedVersion(
                version_id=line["VersionId"],
                is_delete_marker=is_marker,
                size_bytes=line.get("Size"),
                etag=line["ETag"].strip('"') if "ETag" in line else None,
                modified_at=line.get("LastModified"),
            ),
            is_latest=bool(line.get("IsLatest")),
        )
