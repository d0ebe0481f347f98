"""S3 as far as pixsift uses it: versions, delete markers, conditions, notifications."""

import hashlib
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from faults.stub_http import Request, Response

_numbers = itertools.count(1)
Notify = Callable[[str], object]


@dataclass(slots=True)
class Version:
    version_id: str
    body: bytes | None
    """None: a delete marker."""
    etag: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StubBucket:
    """One bucket. ``notify`` gets the body of each event notification."""

    name: str
    versioned: bool = True
    notify: Notify | None = None
    keys: dict[str, list[Version]] = field(default_factory=dict)
    """Newest first."""

    def put(self, key: str, body: bytes, metadata: dict[str, str] | None = None) -> Version:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        identity = f"v{next(_numbers):012d}" if self.versioned else "null"
        version = Version(identity, body, etag, metadata or {})
        if not self.versioned:
            self.keys[key] = []
        self.keys.setdefault(key, []).insert(0, version)
        self._tell("ObjectCreated:Put", key, version)
        return version

    def delete(self, key: str, version_id: str | None = None) -> None:
        versions = self.keys.get(key, [])
        if version_id is not None:
            for version in [v for v in versions if v.version_id == version_id]:
                versions.remove(version)
                self._tell("ObjectRemoved:Delete", key, version)
        elif self.versioned:
            marker = Version(f"d{next(_numbers):012d}", None)
            self.keys.setdefault(key, []).insert(0, marker)
            self._tell("ObjectRemoved:DeleteMarkerCreated", key, marker)
        elif versions:
            self._tell("ObjectRemoved:Delete", key, versions.pop())

    def event(self, name: str, key: str, version: Version) -> str:
        """A notification as S3 words it; sequencers vary in length, as theirs do."""
        number = f"{next(_numbers):012X}"
        entity: dict[str, Any] = {"key": quote_plus(key, safe="/"),
                                  "sequencer": number + "0" * random.randint(0, 3)}  # fmt: skip
        if self.versioned:
            entity["versionId"] = version.version_id
        if version.body is not None and name.startswith("ObjectCreated"):
            entity |= {"size": len(version.body), "eTag": version.etag}
        record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
                  "s3": {"bucket": {"name": self.name}, "object": entity}}  # fmt: skip
        return json.dumps({"Records": [record]})

    def find(self, key: str, version_id: str | None) -> Version | None:
        versions = self.keys.get(key) or []
        if version_id is None:
            return versions[0] if versions else None
        return next((v for v in versions if v.version_id == version_id), None)

    def _tell(self, name: str, key: str, version: Version) -> None:
        if self.notify is not None:
            self.notify(self.event(name, key, version))


class StubS3:
    """The REST protocol of S3 over ``StubBucket``s, path style."""

    def __init__(self) -> None:
        self.buckets: dict[str, StubBucket] = {}

    def create(self, name: str, **options: Any) -> StubBucket:
        self.buckets[name] = StubBucket(name, **options)
        return self.buckets[name]

    def operation(self, request: Request) -> str:
        """The name of the API call."""
        if not request.path.partition("/")[2].partition("/")[2]:
            return "ListObjectVersions" if "versions" in request.query else "ListObjectsV2"
        return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject",
                "DELETE": "DeleteObject"}[request.method]  # fmt: skip

    def call(self, operation: str, request: Request) -> Response:
        name, _, key = request.path.lstrip("/").partition("/")
        bucket = self.buckets.get(name)
        if bucket is None:
            return refusal(404, "NoSuchBucket")
        match operation:
            case "ListObjectVersions":
                return _list_versions(bucket, request.query.get("prefix", ""))
            case "ListObjectsV2":
                return _list(bucket, request.query.get("prefix", ""))
            case "PutObject":
                return _put(bucket, key, request)
            case "DeleteObject":
                bucket.delete(key, request.query.get("versionId"))
                return Response(204)
            case _:
                return _get(bucket, key, request)


def refusal(status: int, code: str) -> Response:
    """An error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return Response(status, body.encode(), {"Content-Type": "application/xml"})


def _get(bucket: StubBucket, key: str, request: Request) -> Response:
    version = bucket.find(key, request.query.get("versionId"))
    if version is None:
        return refusal(404, "NoSuchVersion" if "versionId" in request.query else "NoSuchKey")
    if version.body is None:
        by_id = "versionId" in request.query
        return refusal(405, "MethodNotAllowed") if by_id else refusal(404, "NoSuchKey")
    wanted = request.headers.get("if-match", version.etag).strip('"')
    if wanted != version.etag:
        return refusal(412, "PreconditionFailed")
    headers = {"ETag": f'"{version.etag}"', "Last-Modified": "Sun, 22 Nov 2026 10:15:03 GMT",
               "x-amz-version-id": version.version_id}  # fmt: skip
    headers |= {f"x-amz-meta-{name}": value for name, value in version.metadata.items()}
    return Response(200, version.body, headers)


def _put(bucket: StubBucket, key: str, request: Request) -> Response:
    if request.headers.get("if-none-match") == "*" and bucket.find(key, None):
        return refusal(412, "PreconditionFailed")
    prefix = "x-amz-meta-"
    metadata = {n.removeprefix(prefix): v for n, v in request.headers.items()
                if n.startswith(prefix)}  # fmt: skip
    version = bucket.put(key, request.body, metadata)
    return Response(200, b"", {"ETag": f'"{version.etag}"', "x-amz-version-id": version.version_id})


def _list(bucket: StubBucket, prefix: str) -> Response:
    keys = sorted(k for k, v in bucket.keys.items() if k.startswith(prefix) and v and v[0].body)
    lines = "".join(
        f"<Contents><Key>{quote(key)}</Key><Size>{len(bucket.keys[key][0].body or b'')}</Size>"
        "</Contents>"
        for key in keys
    )
    body = (
        f"<ListBucketResult><KeyCount>{len(keys)}</KeyCount><EncodingType>url</EncodingType>"
        f"{lines}</ListBucketResult>"
    )
    return Response(200, body.encode())


def _list_versions(bucket: StubBucket, prefix: str) -> Response:
    lines = []
    for key in sorted(k for k in bucket.keys if k.startswith(prefix)):
        for number, version in enumerate(bucket.keys[key]):
            tag = "DeleteMarker" if version.body is None else "Version"
            size = "" if version.body is None else (
                f"<ETag>&quot;{version.etag}&quot;</ETag><Size>{len(version.body)}</Size>"
            )  # fmt: skip
            lines.append(
                f"<{tag}><Key>{escape(quote(key))}</Key><VersionId>{version.version_id}</VersionId>"
                f"<IsLatest>{'false' if number else 'true'}</IsLatest>{size}</{tag}>"
            )
    body = (
        "<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        f"{''.join(lines)}</ListVersionsResult>"
    )
    return Response(200, body.encode())
