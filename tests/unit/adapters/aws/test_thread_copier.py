"""Copies against a scripted S3: what S3 says under stress, and what must come of it."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config

from pixsift.adapters.aws.thread_copier import ThreadCopier
from pixsift.core.copyplan import GIB, CopyItem
from pixsift.core.identity import ObjectVersion
from pixsift.errors import AccessDeniedError, DependencyDownError, TransientError
from pixsift.ports import CopyResult

CONTENT = b"some image"
SHA256 = hashlib.sha256(CONTENT).digest()


@dataclass(frozen=True)
class Answer:
    """One response of the scripted S3."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def copied(digest: bytes = SHA256) -> Answer:
    """A copy that S3 has made, with the checksum it computed."""
    checksum = base64.b64encode(digest).decode()
    return Answer(
        body="<CopyObjectResult><ETag>&quot;e&quot;</ETag>"
        f"<ChecksumSHA256>{checksum}</ChecksumSHA256></CopyObjectResult>"
    )


def error(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>")


COPIED_PLAIN = Answer(body="<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>")


@dataclass
class ScriptedS3:
    """Answers requests from a script per key; the last answer repeats."""

    script: dict[str, list[Answer]] = field(default_factory=dict)
    default: Answer = field(default_factory=copied)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    delay_seconds: float = 0.0
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        with self._lock:
            self.seen.append((method, path, headers))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            script = self.script.get(path.split("?", maxsplit=1)[0].rsplit("/", 1)[-1], [])
            found = script.pop(0) if len(script) > 1 else script[0] if script else self.default
        if self.delay_seconds:
            threading.Event().wait(self.delay_seconds)
        with self._lock:
            self._now -= 1
        return found


@pytest.fixture
def s3() -> Iterator[ScriptedS3]:
    scripted = ScriptedS3()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = scripted.answer(self.command, self.path, dict(self.headers.items()))
            body = b"" if self.command == "HEAD" else answer.body.encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET = serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    scripted.url = f"http://127.0.0.1:{server.server_port}"
    yield scripted
    server.shutdown()
    thread.join()
    server.server_close()


def copier(s3: ScriptedS3, **options: Any) -> ThreadCopier:
    client = boto3.client(
        "s3", endpoint_url=s3.url, region_name="us-east-1", aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 2}, max_pool_connections=16,
            read_timeout=5,
            request_checksum_calculation="when_required", s3={"addressing_style": "path"},
        ),
    )  # fmt: skip
    return ThreadCopier(
        "curated", client=client, confirm_after_seconds=0, **{"concurrency": 4, **options}
    )


def item(rank: int = 0, **changes: Any) -> CopyItem:
    facts: dict[str, Any] = {
        "rank": rank, "object_id": rank, "source": ObjectVersion("raw", f"a b+ü/{rank}.jpg", "v1"),
        "etag": "e1", "size_bytes": len(CONTENT), "content_sha256": SHA256, "split": "train",
        "destination_key": f"data/train/{rank}.jpg", **changes,
    }  # fmt: skip
    return CopyItem(**facts)


def run(copier: ThreadCopier, items: list[CopyItem]) -> list[CopyResult]:
    found = copier.copy(items, prefix="set/s1/", stop=threading.Event())
    return sorted(found, key=lambda result: result.item.rank)


def test_copy__one_request_per_object_pinned_and_verified(s3: ScriptedS3) -> None:
    results = run(copier(s3), [item(rank) for rank in range(50)])
    assert [(r.failure, r.checksum) for r in results] == [("", f"sha256:{SHA256.hex()}")] * 50
    assert len(s3.seen) == 50
    method, path, headers = next(seen for seen in s3.seen if seen[1].endswith("/7.jpg"))
    assert (method, path) == ("PUT", "/curated/set/s1/data/train/7.jpg")
    assert headers["x-amz-copy-source"] == "raw/a%20b%2B%C3%BC/7.jpg?versionId=v1"
    assert headers["x-amz-copy-source-if-match"] == '"e1"'
    assert headers["x-amz-checksum-algorithm"] == "SHA256"


def test_copy__an_unversioned_source_is_pinned_by_its_etag(s3: ScriptedS3) -> None:
    run(copier(s3), [item(source=ObjectVersion("raw", "a.jpg", "etag:e9"), etag="")])
    headers = s3.seen[0][2]
    assert headers["x-amz-copy-source"] == "raw/a.jpg"
    assert headers["x-amz-copy-source-if-match"] == '"e9"'


@pytest.mark.parametrize(
    ("answers", "failure"),
    [
        # CopyObject may fail after it has said 200: the body tells
        ([error(200, "InternalError"), copied()], ""),
        ([error(503, "SlowDown"), copied()], ""),
        # the source is gone only if S3 says it twice
        ([error(404, "NoSuchKey"), copied()], ""),
        ([error(404, "NoSuchKey")], "source_missing"),
        ([error(404, "NoSuchVersion")], "source_missing"),
        ([error(412, "PreconditionFailed")], "source_changed"),
        # the bytes are not those the consumer judged
        ([copied(hashlib.sha256(b"other").digest())], "checksum_mismatch"),
        # a store that computes no checksum: the size at least
        ([COPIED_PLAIN, Answer(headers={"Content-Length": "10", "ETag": '"e"'})], ""),
        ([COPIED_PLAIN, Answer(headers={"Content-Length": "11", "ETag": '"e"'})], "size_mismatch"),
    ],
)  # fmt: skip
def test_copy__what_s3_says_decides(s3: ScriptedS3, answers: list[Answer], failure: str) -> None:
    s3.script["1.jpg"] = list(answers)
    results = run(copier(s3), [item(0), item(1), item(2)])
    assert [result.failure for result in results] == ["", failure, ""]
    assert bool(results[1].checksum) == (not failure)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(403, "AccessDenied"), AccessDeniedError),  # never "gone": keys may only be hidden
        (error(404, "NoSuchBucket"), DependencyDownError),
        (error(200, "InternalError"), TransientError),
        (error(503, "SlowDown"), TransientError),
    ],
)
def test_copy__a_refusal_is_raised_after_the_others_have_their_results(
    s3: ScriptedS3, answer: Answer, expected: type[Exception]
) -> None:
    s3.script["1.jpg"] = [answer]
    results = []
    with pytest.raises(expected):
        for result in copier(s3).copy(
            [item(0), item(1), item(2)], prefix="p/", stop=threading.Event()
        ):
            results.append(result.item.rank)
    assert set(results) == {0, 2}


def test_copy__a_stop_ends_it_early_and_loses_no_result(s3: ScriptedS3) -> None:
    stop, results = threading.Event(), []
    for result in copier(s3, concurrency=2).copy(
        [item(rank) for rank in range(100)], prefix="p/", stop=stop
    ):
        results.append(result.item.rank)
        stop.set()
    assert 1 <= len(results) <= 5
    assert len(results) == len(s3.seen)


def test_copy__keeps_to_its_concurrency(s3: ScriptedS3) -> None:
    s3.delay_seconds = 0.02
    run(copier(s3, concurrency=3), [item(rank) for rank in range(12)])
    assert 1 < s3.most_at_once <= 3


def test_copy__above_5_gib_goes_in_parts_with_its_headers(
    s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 * GIB + 1
    answer_by: dict[str, Callable[[str], Answer]] = {
        "HEAD": lambda path: Answer(headers={
            "Content-Length": str(size), "ETag": '"e"', "Content-Type": "image/x-raw",
            "x-amz-meta-robot": "r1",
        }),
        "POST": lambda path: Answer(body="<CompleteMultipartUploadResult/>")
        if "uploadId" in path
        else Answer(body="<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                    "</InitiateMultipartUploadResult>"),
        "PUT": lambda path: Answer(
            body="<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
        ),
    }  # fmt: skip
    plain = s3.answer

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        plain(method, path, headers)
        return answer_by[method](path)

    monkeypatch.setattr(s3, "answer", answer)
    (result,) = run(copier(s3), [item(size_bytes=size)])
    assert result.failure == ""
    parts = [headers for method, _, headers in s3.seen if method == "PUT"]
    assert [part["x-amz-copy-source-range"] for part in parts] == [
        f"bytes={first * GIB}-{min((first + 1) * GIB, size) - 1}" for first in range(6)
    ]
    assert {part["x-amz-copy-source-if-match"] for part in parts} == {'"e1"'}
    begun = next(headers for method, path, headers in s3.seen if path.endswith("?uploads"))
    assert begun["x-amz-meta-robot"] == "r1"
    assert begun["Content-Type"] == "image/x-raw"


def test_copy__parts_that_fail_are_taken_back(
    s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = s3.answer

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        plain(method, path, headers)
        if method == "POST":
            return Answer(body="<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                          "</InitiateMultipartUploadResult>")  # fmt: skip
        if method == "PUT":
            return error(412, "PreconditionFailed")
        if method == "HEAD":
            return Answer(headers={"Content-Length": "1", "ETag": '"e"'})
        return Answer(204)

    monkeypatch.setattr(s3, "answer", answer)
    (result,) = run(copier(s3), [item(size_bytes=6 * GIB)])
    assert result.failure == "source_changed"
    begun = sum(path.endswith("?uploads") for _, path, _ in s3.seen)
    aborted = [path for method, path, _ in s3.seen if method == "DELETE"]
    assert len(aborted) == begun == 2  # tried twice, and nothing is left behind
    assert all("uploadId=u" in path for path in aborted)
