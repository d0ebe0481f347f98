"""The console: files that were built beforehand, or a page that says how to build them.

Everything is read once, at the start. An address that is neither an endpoint nor a file belongs to
the console, which chooses the screen by the address. Nothing here needs a token: the files contain
nothing of the ledger, and the API that they call does need one.
"""

import gzip
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STATIC: Final = Path(__file__).parent / "static"
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: a picture that is about to be searched for
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_YEAR_SECONDS: Final = 31_536_000
_MISSING: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pixsift</title></head><body>
<h1>The console is not built</h1>
<p>The server works, and its HTTP API is under <a href="/v1">/v1</a>
(<a href="/v1/openapi.json">description</a>). Only the files of the console are missing.</p>
<p>In a checkout, run <code>make console</code>, then start the server again. This needs the npm
registry. An installed wheel has the console if it was built where the registry answers.</p>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    packed: bytes
    """The same, gzipped."""
    media_type: str
    headers: dict[str, str]


class ConsoleFiles:
    """Answers every address without an endpoint. ASGI."""

    def __init__(self, folder: Path, otherwise: object) -> None:
        self._files = _read(folder)
        self._index = self._files.get("/index.html") or _page(_MISSING.encode())
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        found = self._find(scope) if scope["type"] == "http" else None
        if found is None:
            await self._otherwise(scope, receive, send)  # type: ignore[operator]
            return
        headers = dict(found.headers)
        body = found.body
        if "gzip" in Headers(scope=scope).get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = found.packed
        await Response(body, headers=headers, media_type=found.media_type)(scope, receive, send)

    def _find(self, scope: Scope) -> _File | None:
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD") or path == "/v1" or path.startswith("/v1/"):
            return None
        is_file = path.startswith("/assets/") or path in ("/favicon.ico", "/robots.txt")
        return self._files.get(path) or (None if is_file else self._index)


def serve_console(app: FastAPI, folder: Path = STATIC) -> None:
    """Let ``app`` answer every address without an endpoint with the console."""
    app.router.default = ConsoleFiles(folder, app.router.default)


def _read(folder: Path) -> dict[str, _File]:
    """Path of the address -> file; empty where nothing is built."""
    return {
        f"/{path.relative_to(folder).as_posix()}": _file(path, path.parent.name == "assets")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _file(path: Path, is_immutable: bool) -> _File:
    body = path.read_bytes()
    if path.suffix == ".html":
        return _page(body)
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kept = f"public, max-age={_YEAR_SECONDS}, immutable" if is_immutable else "no-cache"
    return _File(body, gzip.compress(body, mtime=0), media_type, {
        "Cache-Control": kept, "Vary": "Accept-Encoding",
    })  # fmt: skip


def _page(body: bytes) -> _File:
    return _File(body, gzip.compress(body, mtime=0), "text/html", {
        "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY, "Vary": "Accept-Encoding",
    })  # fmt: skip
