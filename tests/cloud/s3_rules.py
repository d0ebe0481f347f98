"""A rule of S3 that MiniStack does not know, put before it: without the right to list, what is
missing is refused (403) instead of missing (404). See GetObject in S3's API reference.

A proxy of the test's own, on loopback; everything else passes through unchanged.
"""

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}
_REFUSAL = b"<Error><Code>AccessDenied</Code><Message>not authorized to list</Message></Error>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    target = ("", 0)
    cannot_list: set[str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(*self.server.target, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        status = answer.status
        found = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        of_object = urlsplit(self.path).path.strip("/").count("/") >= 1
        if status == 404 and of_object and found and found[1] in self.server.cannot_list:
            status, content = 403, _REFUSAL
        self.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - the names it looks for

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def s3_rules(url: str) -> Iterator[tuple[str, set[str]]]:
    """Its URL, and the access keys that cannot list (add to it before they are used)."""
    parts = urlsplit(url)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.target = (parts.hostname or "", parts.port or 80)
    server.cannot_list = set()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.cannot_list
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
