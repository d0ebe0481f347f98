"""An S3 for measuring copies, in a process of its own: lists, copies, counts what it is asked.

    python tests/bench/copy_stub.py OBJECTS

Prints its URL. ``GET /_counts`` answers and forgets the number of requests by operation.
"""

import json
import sys
import threading
from base64 import b64encode
from collections import Counter
from hashlib import sha256

from faults.stub_http import HttpServer, Request, Response

BODY = b"x" * 1000
_ETAG = '"5ef7ba61cbb1ca5fe0b5f5ff2d2a4a4c"'
_COPIED = (
    f"<CopyObjectResult><ETag>{_ETAG}</ETag><LastModified>2026-11-22T10:00:00.000Z</LastModified>"
    f"<ChecksumSHA256>{b64encode(sha256(BODY).digest()).decode()}</ChecksumSHA256>"
    "</CopyObjectResult>"
).encode()
_PAGE = 1000


def keys(count: int) -> list[str]:
    """Keys of the source bucket, in the order of a listing."""
    return [f"robot-1/cam/{number:07d}.jpg" for number in range(count)]


def main() -> None:
    """Serve until standard input is closed."""
    objects = keys(int(sys.argv[1]))
    counts: Counter[str] = Counter()

    async def answer(request: Request) -> Response:
        if request.path == "/_counts":
            told = json.dumps(counts).encode()
            counts.clear()
            return Response(body=told)
        operation = _operation(request)
        counts[operation] += 1
        if operation == "copy":
            return Response(body=_COPIED)
        if operation == "list":
            return _listed(objects, request)
        return Response(length=len(BODY), headers={"ETag": _ETAG})

    with HttpServer(answer) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
        threading.Event().wait(0)


def _operation(request: Request) -> str:
    if request.method == "PUT" and "x-amz-copy-source" in request.headers:
        return "copy"
    if request.method == "GET" and "list-type" in request.query:
        return "list"
    return request.method.lower()


def _listed(objects: list[str], request: Request) -> Response:
    start = int(request.query.get("continuation-token", 0))
    page = objects[start : start + _PAGE] if request.path.startswith("/raw") else []
    more = start + _PAGE < len(objects) and bool(page)
    lines = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(BODY)}</Size><ETag>{_ETAG}</ETag>"
        "<LastModified>2026-11-22T10:00:00.000Z</LastModified></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if more else ""
    return Response(
        body=f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{lines}"
        "</ListBucketResult>".encode()
    )


if __name__ == "__main__":
    main()
