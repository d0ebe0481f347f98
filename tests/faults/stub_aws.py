"""A counting stand-in for S3 and SQS on one port: what moto and LocalStack do not do.

Versions in S3's order, conditions, sequencers of mixed length, visibility, receive counts, a DLQ,
old receipt handles, and faults on demand: refusals, throttling, bodies that are cut or stall. It
runs in a thread of a test, or as a process of its own for benchmarks:

    python tests/faults/stub_aws.py --port 0       prints {"url": ...}, then serves
"""

import argparse
import asyncio
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from faults.stub_http import HttpServer, Request, Response
from faults.stub_s3 import StubBucket, StubS3, refusal
from faults.stub_sqs import StubQueue, StubSqs

RAW, DERIVED, CURATED = "pixsift-raw", "pixsift-derived", "pixsift-curated"
INGEST, DLQ = "pixsift-ingest", "pixsift-ingest-dlq"


@dataclass(slots=True)
class Fault:
    """What goes wrong: with which calls, how, and how often."""

    operation: str
    """``GetObject``, ``ReceiveMessage``, ...; a regular expression."""
    status: int = 503
    code: str = "SlowDown"
    key: str = ""
    """Regular expression the S3 path must contain."""
    times: int = sys.maxsize
    cut_at: int | None = None
    """Send only so many bytes of the body, then close."""
    stall_seconds: float = 0.0
    """Wait before answering."""
    hits: int = field(default=0)

    def applies(self, operation: str, path: str) -> bool:
        return (
            self.times > 0
            and re.fullmatch(self.operation, operation) is not None
            and re.search(self.key, path) is not None
        )


class StubAws:
    """The server with pixsift's buckets and queues. Context manager."""

    def __init__(
        self,
        *,
        port: int = 0,
        versioned: bool = True,
        visibility_seconds: float = 30.0,
        max_receive_count: int = 10,
        latency_seconds: float = 0.0,
    ) -> None:
        """latency_seconds: added to every answer, as a network and a service would."""
        self.latency_seconds = latency_seconds
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self._server = HttpServer(self._handle, port=port)
        self._s3_door: HttpServer | None = None
        """A second door, for S3 alone, which can be shut while SQS goes on."""
        self.sqs = StubSqs(lambda: self._server.url)
        self.s3 = StubS3()
        self.dlq: StubQueue = self.sqs.create(DLQ, visibility_seconds=visibility_seconds)
        self.ingest: StubQueue = self.sqs.create(
            INGEST,
            visibility_seconds=visibility_seconds,
            max_receive_count=max_receive_count,
            dlq=self.dlq,
        )
        self.raw: StubBucket = self.s3.create(RAW, versioned=versioned, notify=self.ingest.send)
        self.derived: StubBucket = self.s3.create(DERIVED, versioned=False)
        self.curated: StubBucket = self.s3.create(CURATED)

    def __enter__(self) -> "StubAws":
        self._server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._s3_door is not None:
            self._s3_door.__exit__(kind, error, tb)
        self._server.__exit__(kind, error, tb)

    @contextmanager
    def s3_unreachable(self) -> Iterator[None]:
        """S3's port is closed; SQS continues."""
        door = self._s3_door
        assert door is not None, "nobody was told where S3 is"
        door.__exit__(None, None, None)
        try:
            yield
        finally:
            self._s3_door = HttpServer(self._handle, port=door.port)
            self._s3_door.__enter__()

    @property
    def url(self) -> str:
        return self._server.url

    def environment(self) -> dict[str, str]:
        """What a process needs to take this for AWS."""
        if self._s3_door is None:
            self._s3_door = HttpServer(self._handle)
            self._s3_door.__enter__()
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self._s3_door.url,
            "AWS_ACCESS_KEY_ID": "stub",
            "AWS_SECRET_ACCESS_KEY": "stub",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No request is answered inside: for looking at, or changing, several things at once."""
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait()

        self._server.loop.call_soon_threadsafe(hold)
        held.wait()
        try:
            yield
        finally:
            release.set()

    @property
    def is_drained(self) -> bool:
        """Whether both queues are empty, hidden messages included."""
        return not self.ingest.messages and not self.dlq.messages

    async def _handle(self, request: Request) -> Response:
        if request.path.startswith("/_stub/"):
            return self._control(request)
        target = request.headers.get("x-amz-target")
        operation = target.partition(".")[2] if target else self.s3.operation(request)
        self.calls[operation] += 1
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        fault = next((f for f in self.faults if f.applies(operation, request.path)), None)
        if fault is not None:
            fault.times -= 1
            fault.hits += 1
            if fault.stall_seconds:
                await asyncio.sleep(fault.stall_seconds)
            elif fault.cut_at is None:
                return _sqs_refusal(fault) if target else refusal(fault.status, fault.code)
        if target:
            status, body = await self.sqs.call(operation, request.body)
            return Response(status, body, {"Content-Type": "application/x-amz-json-1.0"})
        response = self.s3.call(operation, request)
        if fault is not None and fault.cut_at is not None:
            response.length = len(response.body)
            response.body, response.cut = response.body[: fault.cut_at], True
        return response

    def _control(self, request: Request) -> Response:
        """For benchmarks, which run this in a process of its own."""
        if request.path == "/_stub/reset":
            self.calls.clear()
        if request.path == "/_stub/latency":
            self.latency_seconds = float(request.query["seconds"])
        facts = {"calls": dict(self.calls), "left": len(self.ingest.messages),
                 "dlq": len(self.dlq.messages)}  # fmt: skip
        return Response(200, json.dumps(facts).encode())


def _sqs_refusal(fault: Fault) -> Response:
    body = json.dumps({"__type": fault.code, "message": fault.code}).encode()
    return Response(fault.status, body, {"Content-Type": "application/x-amz-json-1.0"})


def main() -> None:
    """Serve until the parent closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--visibility-seconds", type=float, default=60.0)
    options = parser.parse_args()
    with StubAws(port=options.port, visibility_seconds=options.visibility_seconds) as aws:
        sys.stdout.write(json.dumps({"url": aws.url}) + "\n")
        sys.stdout.flush()
        while sys.stdin.read(1):
            time.sleep(0.1)


if __name__ == "__main__":
    main()
