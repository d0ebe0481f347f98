"""GET and PUT of whole objects at a tenth of boto3's CPU time, through obstore (Rust).

Only plain success counts here. Everything else returns None or False: the caller then uses boto3,
which distinguishes errors, retries, and knows every way to find credentials and regions. A bucket
that only boto3 can reach is left to boto3 for a while.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import S3Store

from pixsift.adapters.aws.client import client_errors
from pixsift.core.identity import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_GIVE_UP_AFTER = 3
"""Consecutive calls of a bucket that succeeded through boto3 and not here."""
_PAUSE_SECONDS = 300.0
"""How long until such a bucket is tried again: it may have been throttled, or be in another
region."""
_NO_METADATA = frozenset({
    "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type",
    "Storage-Class",
})  # fmt: skip
"""Names that obstore lists together with user metadata (whose names are in lower case)."""
_FAILURES = (BaseError, OSError, ValueError)


@dataclass(slots=True)
class _Bucket:
    store: S3Store
    failures: int = 0
    """In a row."""
    failed_at: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class QuickAnswer:
    """An object version as S3 returns it."""

    body: bytes
    etag: str
    metadata: dict[str, str]
    modified_at: datetime | None = None


class QuickObjects:
    """One store per bucket, made on first use. Thread-safe."""

    def __init__(self, client: "S3Client", *, clock: Callable[[], float] = time.monotonic) -> None:
        """client: where endpoint and region are taken from; credentials are those of boto3."""
        self._clock = clock
        with client_errors("S3 credentials"):
            session = boto3.Session()
            self._has_credentials = session.get_credentials() is not None
        if self._has_credentials:
            self._credentials = Boto3CredentialProvider(session)
        self._options = _options(client.meta.endpoint_url, client.meta.region_name)
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()
        self._mine = threading.local()
        """``failed``: the bucket where this thread's last call was made in vain, or None."""

    def get(self, version: ObjectVersion, accept: Callable[[int], None]) -> QuickAnswer | None:
        """One object version, whole; None: ask boto3.

        accept: called with the size before the body is read; what it raises is passed on.
        """
        bucket = self._bucket(version.bucket)
        if bucket is None:
            return None
        self._mine.failed = version.bucket
        wanted: Any = (
            {"version": version.version_id}
            if version.is_versioned
            else {"if_match": f'"{version.etag}"'}
        )
        try:
            answer = bucket.store.get(version.key, options=wanted)
        except _FAILURES:
            return None
        # obstore takes ``/a`` and ``a/`` for ``a``, which is another object.
        if answer.meta["path"] != version.key:
            return None
        size = answer.meta["size"]
        accept(size)
        try:
            body = bytes(answer.bytes())
        except _FAILURES:
            return None
        etag = answer.meta["e_tag"]
        if len(body) != size or etag is None:
            return None
        self._succeeded(bucket)
        attributes = {str(name): str(value) for name, value in answer.attributes.items()}
        metadata = {name: value for name, value in attributes.items() if name not in _NO_METADATA}
        return QuickAnswer(body, etag.strip('"'), metadata, answer.meta["last_modified"])

    def put(self, name: str, key: str, body: bytes, content_type: str) -> bool:
        """Write an object to the bucket ``name``; False: ask boto3."""
        bucket = self._bucket(name)
        if bucket is None or not _is_plain(key):
            return False
        self._mine.failed = name
        attributes: Any = {"Content-Type": content_type}
        try:
            bucket.store.put(key, body, attributes=attributes, use_multipart=False)
        except _FAILURES:
            return False
        self._succeeded(bucket)
        return True

    def boto3_succeeded(self, name: str) -> None:
        """Called when boto3 got an answer from a bucket, in the thread that had tried here
        first."""
        if getattr(self._mine, "failed", None) != name:
            return  # not tried: nothing new is known
        self._mine.failed = None
        bucket = self._buckets[name]
        bucket.failures += 1
        bucket.failed_at = self._clock()

    def _succeeded(self, bucket: _Bucket) -> None:
        self._mine.failed = None
        bucket.failures = 0

    def _bucket(self, name: str) -> _Bucket | None:
        """The bucket, if it is to be tried now."""
        self._mine.failed = None
        if not self._has_credentials:
            return None
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = _Bucket(
                    S3Store(name, credential_provider=self._credentials, **self._options)
                )
        bucket = self._buckets[name]
        paused = self._clock() - bucket.failed_at < _PAUSE_SECONDS
        return None if paused and bucket.failures >= _GIVE_UP_AFTER else bucket


def _options(endpoint: str, region: str | None) -> dict[str, Any]:
    """boto3's own endpoint, path style, unless it is AWS's, whose addresses obstore knows."""
    parts = urlsplit(endpoint)
    options: dict[str, Any] = {
        "region": region or "us-east-1",
        # boto3 retries, so this does not.
        "retry_config": {"max_retries": 0},
        "client_options": {
            "connect_timeout": "5s", "read_timeout": "10s", "timeout": "300s",
            "allow_http": parts.scheme == "http",
        },
    }  # fmt: skip
    if not (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    return options


def _is_plain(key: str) -> bool:
    """Whether obstore leaves the key as it is."""
    return all(segment not in ("", ".", "..") for segment in key.split("/"))
