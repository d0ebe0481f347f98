"""A small HTTP/1.1 server on asyncio, fast enough not to be what a benchmark measures."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qsl, unquote

Handler = Callable[["Request"], Awaitable["Response"]]
_REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 403: "Forbidden", 404: "Not Found",
            405: "Method Not Allowed", 412: "Precondition Failed", 503: "Slow Down"}  # fmt: skip


@dataclass(slots=True)
class Request:
    method: str
    path: str
    """Decoded."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length to announce when it is not that of the body (HEAD, a body that is cut)."""
    cut: bool = False
    """Close the connection after the body."""


class HttpServer:
    """Serves ``handler`` on a port of 127.0.0.1, in a thread of its own. Context manager."""

    def __init__(self, handler: Handler, *, port: int = 0) -> None:
        self._handler = handler
        self._wanted = port
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stub-aws", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "HttpServer":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self._wanted, limit=2**20)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self._close(server))
        self.loop.close()

    async def _close(self, server: asyncio.Server) -> None:
        """A client may connect until the end: what is left open would be found as leaked later."""
        server.close()
        await asyncio.sleep(0)  # a task that is cancelled before it starts closes nothing
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (request := await _read(reader, writer)) is not None:
                response = await self._handler(request)
                _write(writer, response, head=request.method == "HEAD")
                if response.cut:
                    break
                if writer.transport.get_write_buffer_size() > 2**20:
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._open.discard(writer)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    if length := int(headers.get("content-length") or 0):
        body = await reader.readexactly(length)
    path, _, query = target.partition("?")
    return Request(method, unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers,
                   body)  # fmt: skip


def _write(writer: asyncio.StreamWriter, response: Response, *, head: bool) -> None:
    length = len(response.body) if response.length is None else response.length
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Whatever')}",
             f"Content-Length: {length}"]  # fmt: skip
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    writer.write(
        "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + (b"" if head else response.body)
    )
