"""Untrusted bytes to pixels, in processes that hold nothing worth stealing.

``DecoderPool`` starts one host process (``decode_host``) with an empty environment; the host runs
the children (``decode_child``), which decode by one recipe (``decode_recipe``). A crash, hang or
balloon costs its own image only: after two tries it is an outcome. When the host itself is lost,
or does not answer in time, it is started again and the images are asked once more; a second loss
says that the decoder is down.
"""

import base64
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from typing import IO, Self

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.child import Decode, forbid_inspection, seccomp_available
from pixsift.adapters.decode.host import HostConfig, widen_pipe, write_config
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image, recipe_id
from pixsift.core.images import DecodeFailure, DecodeResult
from pixsift.errors import DependencyDownError, TransientError

__all__ = ["DecodeLimits", "DecoderPool", "forbid_inspection", "recipe_id", "seccomp_available"]

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""All that the decoder's processes ever see: constants, nothing of ours."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_TINY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""One black pixel."""


class DecoderPool:
    """Isolated decoder processes. Thread-safe; a context manager; starts on first use."""

    def __init__(
        self,
        input_side: int,
        *,
        workers: int = 2,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008  (frozen)
        decoder: Decode = decode_image,
    ) -> None:
        """decoder: an importable function; tests pass ones that crash."""
        self._config = HostConfig(
            input_side, workers, f"{decoder.__module__}:{decoder.__qualname__}", limits
        )
        self._lock = threading.Lock()
        self._host: _Host | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        """Decode ``blobs``; results in the same order. Blocks.

        Raises DependencyDownError when the decoder's processes cannot be kept alive, and
        TransientError after ``close``.
        """
        if not blobs:
            return []
        for _ in range(2):
            host = self._running_host()
            payloads = host.ask(blobs, self._patience(len(blobs)))
            if payloads is not None:
                return [self._unpack(payload) for payload in payloads]
        raise DependencyDownError("the decoder's host process was lost twice")

    def ping(self) -> None:
        """Decode one pixel. Raises DependencyDownError unless a child lives to answer."""
        (result,) = self.decode([_TINY_PNG])
        if isinstance(result, DecodeFailure) and result.reason.startswith("decoder_"):
            raise DependencyDownError(f"the decoder: {result.reason}: {result.detail}")

    def close(self) -> None:
        """Stop all processes; waits for them."""
        with self._lock:
            self._closed = True
            host, self._host = self._host, None
        if host is not None:
            host.stop()

    def _running_host(self) -> "_Host":
        with self._lock:
            if self._closed:
                raise TransientError("the decoder is closed")
            if self._host is None or not self._host.alive:
                if self._host is not None:
                    self._host.stop()
                self._host = _Host(self._config)
            return self._host

    def _patience(self, images: int) -> float:
        """Seconds within which even a request of nothing but hangs is answered."""
        limits = self._config.limits
        return _START_SECONDS + 2 * (limits.wall_seconds + 6) * max(1, images)

    def _unpack(self, payload: bytes) -> DecodeResult:
        try:
            return wire.unpack_result(payload, self._config.input_side)
        except wire.WireError as error:
            return DecodeFailure("decoder_crash", f"unreadable result: {error}")


class _Host:
    """One run of the host process, and the thread that reads its replies."""

    def __init__(self, config: HostConfig) -> None:
        self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            [sys.executable, "-I", "-c", _BOOT, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        widen_pipe(self._requests.fileno())
        widen_pipe(self._replies.fileno())
        self._numbers = count(1)
        self._pending: dict[int, Future[list[bytes] | None]] = {}
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self.alive = True
        self._send(0, [write_config(config)])
        self._reader = threading.Thread(target=self._read, name="decoder-replies", daemon=True)
        self._reader.start()

    def ask(self, blobs: Sequence[bytes], timeout: float) -> list[bytes] | None:
        """Replies for ``blobs``, or None when the host was lost on the way.

        timeout: seconds until a host that does not read or does not answer counts as lost.
        """
        future: Future[list[bytes] | None] = Future()
        with self._lock:
            if not self.alive:
                return None
            number = next(self._numbers)
            self._pending[number] = future
        with self._lost_after(timeout):
            self._send(number, blobs)
            payloads = future.result()
        return payloads if payloads is not None and len(payloads) == len(blobs) else None

    def stop(self) -> None:
        """End the host and, through it, the children; by force where it does not end itself."""
        with self._lost_after(_STOP_SECONDS):
            with suppress(OSError):  # it may have gone already
                self._requests.close()
            self._process.wait()
        self._reader.join(10)
        self._replies.close()

    @contextmanager
    def _lost_after(self, seconds: float) -> Iterator[None]:
        """Kill the host when the block lasts longer: a write to a full pipe knows no timeout."""
        timer = threading.Timer(seconds, self._lose)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _send(self, number: int, parts: Sequence[bytes]) -> None:
        with self._write_lock:
            try:
                wire.write_frame(self._requests, number, parts)
            except (OSError, ValueError):
                self._lose()

    def _read(self) -> None:
        try:
            while True:
                number, payloads = wire.read_frame(self._replies)
                with self._lock:
                    future = self._pending.pop(number, None)
                if future is not None:
                    future.set_result(payloads)
        except (EOFError, OSError, ValueError, wire.WireError):
            self._lose()

    def _lose(self) -> None:
        """Nobody waits for a host that does not answer."""
        with self._lock:
            self.alive = False
            pending = list(self._pending.values())
            self._pending.clear()
        self._process.kill()
        for future in pending:
            future.set_result(None)


_BOOT = (
    "import sys; sys.path[:] = sys.argv[1:]; sys.argv[1:] = []; "
    "from pixsift.adapters.decode.host import main; main()"
)
