"""The process between us and the decoder's children: no credentials, no pickles towards us.

Pebble runs and replaces the children, but its results are pickles, and a pickle written by a
hijacked child runs code in whoever reads it. So Pebble lives here, in a process that was started
with an empty environment and speaks a checked, length-prefixed format with the one that holds
credentials. It cannot open a socket either (libseccomp). When its standard input ends, everything
here ends.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import IO, Final

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.child import (
    OUT_OF_MEMORY,
    decode_chunk,
    enter_sandbox,
    forbid_inspection,
    forbid_network,
)
from pixsift.adapters.decode.recipe import DecodeLimits
from pixsift.core.images import DecodeFailure

MAX_CHUNK_IMAGES: Final = 8
MAX_CHUNK_BYTES: Final = 4 * 2**20
_REQUESTS_AT_ONCE: Final = 64
_TASKS_PER_CHILD: Final = 5_000
"""Chunks after which a child is replaced, should a decoder leak."""
_SLACK_SECONDS: Final = 5.0
"""Pebble's clock starts when a child takes the chunk; the child's own alarm comes first."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What the pool tells its host in the first frame."""

    input_side: int
    workers: int
    decode: str
    limits: DecodeLimits


def main() -> None:
    """Serve until standard input ends."""
    requests, replies = _take_over_pipes()
    forbid_inspection()
    forbid_network()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = read_config(wire.read_frame(requests)[1][0])
    pool = ProcessPool(
        max_workers=config.workers, max_tasks=_TASKS_PER_CHILD, initializer=enter_sandbox,
        initargs=(config.limits, config.decode), context=_WidePipes(),
    )  # fmt: skip
    server = _Server(config, pool, replies)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
        try:
            while True:
                request, blobs = wire.read_frame(requests)
                threads.submit(server.serve, request, blobs)
        except (EOFError, OSError):
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join(timeout=5)
            os._exit(0)


def write_config(config: HostConfig) -> bytes:
    """The first frame's part."""
    limits = {name: getattr(config.limits, name) for name in DecodeLimits.__slots__}
    return json.dumps([config.input_side, config.workers, config.decode, limits]).encode()


def read_config(part: bytes) -> HostConfig:
    """The other way around."""
    input_side, workers, decode, limits = json.loads(part)
    limits["formats"] = tuple(limits["formats"])
    return HostConfig(input_side, workers, decode, DecodeLimits(**limits))


class _WidePipes(SpawnContext):
    """Spawn, never fork; and pipes that hold whole images, so that nobody waits for a reader."""

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:  # noqa: N802
        """As everywhere, but wide."""
        reader, writer = super().Pipe(duplex)
        widen_pipe(writer.fileno())
        return reader, writer


class _Server:
    def __init__(self, config: HostConfig, pool: ProcessPool, replies: IO[bytes]) -> None:
        self._config = config
        self._pool = pool
        self._replies = replies
        self._writing = threading.Lock()

    def serve(self, request: int, blobs: Sequence[bytes]) -> None:
        try:
            results = self._decode(blobs)
            with self._writing:
                wire.write_frame(self._replies, request, results)
        except BaseException as error:  # a broken pool: the other side starts a new host
            os.write(2, f"decoder host: {type(error).__name__}: {error}\n".encode())
            os._exit(1)

    def _decode(self, blobs: Sequence[bytes]) -> list[bytes]:
        chunks = chunk(blobs, self._config.workers)
        futures = [self._schedule([blobs[i] for i in members]) for members in chunks]
        results: dict[int, bytes] = {}
        suspects: list[int] = []
        for members, future in zip(chunks, futures, strict=True):
            payloads = _result(future)
            if isinstance(payloads, DecodeFailure):
                suspects.extend(members)
            else:
                results.update(zip(members, payloads, strict=True))
        # Second try, each alone: whoever crashes now does so by its own doing.
        for index, future in [(i, self._schedule([blobs[i]])) for i in suspects]:
            payloads = _result(future)
            results[index] = (
                wire.pack_result(payloads) if isinstance(payloads, DecodeFailure) else payloads[0]
            )
        return [results[index] for index in range(len(blobs))]

    def _schedule(self, blobs: list[bytes]) -> ProcessFuture[list[bytes]]:
        config = self._config
        return self._pool.schedule(
            decode_chunk,
            args=(blobs, config.input_side, config.limits, config.decode),
            timeout=config.limits.wall_seconds + _SLACK_SECONDS,
        )


def chunk(blobs: Sequence[bytes], workers: int) -> list[list[int]]:
    """Indices in chunks: few crossings, yet work for every child, and no chunk too heavy."""
    share = -(-len(blobs) // (2 * workers))
    most = max(1, min(MAX_CHUNK_IMAGES, share))
    chunks: list[list[int]] = []
    weight = 0
    for index, blob in enumerate(blobs):
        if not chunks or len(chunks[-1]) >= most or weight + len(blob) > MAX_CHUNK_BYTES:
            chunks.append([])
            weight = 0
        chunks[-1].append(index)
        weight += len(blob)
    return chunks


def _result(future: ProcessFuture[list[bytes]]) -> list[bytes] | DecodeFailure:
    try:
        payloads: list[bytes] = future.result()
    except TimeoutError:
        return DecodeFailure("decoder_timeout", "no answer within the wall time")
    except ProcessExpired as error:
        if error.exitcode in (-signal.SIGALRM, -signal.SIGXCPU):
            return DecodeFailure("decoder_timeout", "wall or CPU time used up")
        if error.exitcode == OUT_OF_MEMORY:
            return DecodeFailure("decoder_memory", "memory limit reached, twice")
        return DecodeFailure("decoder_crash", f"exit status {error.exitcode}")
    return payloads


def widen_pipe(descriptor: int) -> None:
    """Let a pipe hold 1 MiB instead of 64 KiB (Linux); only slower where that is refused."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 2**20)


def _take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Move the protocol off 0 and 1, which children would inherit."""
    requests = os.fdopen(os.dup(0), "rb", buffering=2**16)
    replies = os.fdopen(os.dup(1), "wb", buffering=2**16)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return requests, replies


if __name__ == "__main__":
    main()
