"""Checks of every request, for all endpoints: limits, host names, security headers.

Plain ASGI, so that a body is counted as it comes and a stream is never buffered.
"""

from collections.abc import MutableMapping
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixsift_server.problems import problem, respond

_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""Headers of every answer that does not set its own. No Access-Control header is ever sent: CORS is
closed."""


class SecurityHeaders:
    """Adds security headers for browsers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                there = {name.lower() for name, _ in headers}
                headers += [(n.encode(), v.encode()) for n, v in _HEADERS.items()
                            if n.encode() not in there]  # fmt: skip
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, add)


class Admission:
    """Refuses a foreign host name, a NUL in the address, and a body beyond the limit."""

    def __init__(self, app: ASGIApp, *, host_names: frozenset[str], body_bytes: int) -> None:
        self._app = app
        self._host_names = host_names
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await respond(problem(*refusal))(scope, receive, send)
            return
        await self._counted(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        headers: MutableMapping[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _without_port(host) not in self._host_names:
            return 421, "unknown_host", "this server does not answer under that host name"
        if b"\0" in unquote_to_bytes(scope.get("raw_path", b"") + b"?" + scope["query_string"]):
            return 400, "nul", "the address contains a NUL character"
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str, str]:
        return 413, "body_too_large", f"the body is larger than {self._body_bytes} bytes"

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut off a body that grows beyond the limit without a Content-Length."""
        seen, started, is_cut = 0, False, False

        async def counting() -> Message:
            nonlocal seen, is_cut
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._body_bytes:
                is_cut = True
                return {"type": "http.disconnect"}
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            if is_cut and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counting, noting)
        except Exception:
            if not is_cut:
                raise
        if is_cut and not started:
            await respond(problem(*self._too_large()))(scope, receive, send)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
