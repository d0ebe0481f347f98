"""A real uvicorn inside the tests' process, and a connection to it that can go silent."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

LONG_SECONDS = 120.0
"""A generous limit: it passes only where something is wrong."""


class _Server(uvicorn.Server):
    """Leaves no connection behind."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn closes the connections that exist when the stop begins. A connection accepted in
        that moment would stay open, and its client would wait forever."""
        await super().shutdown(sockets)
        while self.server_state.connections:
            for connection in list(self.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0.01)


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """The URL of the app on loopback. At the end every connection is closed, the thread over."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    bound = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server did not start")
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(LONG_SECONDS)
        bound.close()
        assert not thread.is_alive(), "the server did not stop"


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for it; `what` says what is wrong where it never comes."""
    tick = threading.Event()
    for _ in range(int(LONG_SECONDS / 0.02)):
        if is_so():
            return
        tick.wait(0.02)
    raise AssertionError(what)


class Wire:
    """Forwards to a port of loopback. After `cut` it accepts everything and forwards nothing, like
    a network that drops packets: it refuses and closes no connection."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._is_cut = False
        self._generation = 0
        self._is_up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> "Wire":
        self._thread.start()
        assert self._is_up.wait(LONG_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(LONG_SECONDS)
        self._loop.close()

    def cut(self) -> None:
        """From now on: silence."""
        self._is_cut = True
        self._generation += 1

    def restore(self) -> None:
        """Forward new connections; those made before stay dead."""
        self._is_cut = False

    async def _run(self) -> None:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # aborted transports close in the loop's next rounds

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation, is_cut = self._generation, self._is_cut
        beyond = None
        try:
            if is_cut:
                await self._end.wait()
            behind, beyond = await asyncio.open_connection("127.0.0.1", self._target)
            both = [
                asyncio.create_task(self._pump(reader, beyond, generation)),
                asyncio.create_task(self._pump(behind, writer, generation)),
            ]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        finally:
            for each in (writer, beyond):
                if each is not None:
                    each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, generation: int
    ) -> None:
        while data := await reader.read(65536):
            if generation != self._generation:
                await self._end.wait()
            writer.write(data)
            await writer.drain()
        if generation != self._generation:
            await self._end.wait()
