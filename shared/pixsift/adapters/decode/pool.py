"""Decodes untrusted bytes to pixels, in processes that hold no secrets.

``DecoderPool`` keeps a few children (``child``), each locked down and each with its own pipes: a
child sees the images that were given to it, and no others. Results cross in a format that cannot
carry code (``wire``) and every field is checked. A crash, a hang or too much memory costs only its
own image: the image is tried once more, alone, in a new child, and a second failure is an outcome.
If no child lives long enough to lock itself down, the machine has no decoder: that is an outage.
"""

import base64
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Final, Self

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.child import ChildConfig, Decode
from pixsift.adapters.decode.process import Child, ChildLostError
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image, recipe_id
from pixsift.adapters.decode.sandbox import forbid_inspection, landlock_version, seccomp_available
from pixsift.core.images import DecodeFailure, DecodeResult
from pixsift.errors import DependencyDownError, TransientError

__all__ = [
    "DecodeLimits", "DecoderPool", "forbid_inspection", "landlock_version", "recipe_id",
    "seccomp_available",
]  # fmt: skip

MAX_CHUNK_IMAGES: Final = 8
MAX_CHUNK_BYTES: Final = 4 * 2**20
_CHUNKS_PER_CHILD: Final = 5_000
"""Chunks after which a child is replaced, should a decoder leak."""
_TINY_PNG: Final = base64.b64decode(
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
        name = f"{decoder.__module__}:{decoder.__qualname__}"
        self._config = ChildConfig(input_side, name, limits)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._keepers = [_Keeper(self._config, self._tasks, number) for number in range(workers)]
        self._lock = threading.Lock()
        self._started = self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        """Decode ``blobs``; results in the same order. Blocks.

        Raises DependencyDownError when the decoder's processes cannot be kept alive, and
        TransientError after ``close``.
        """
        chunks = chunk(blobs, len(self._keepers))
        tasks = [self._schedule([blobs[index] for index in members]) for members in chunks]
        results: dict[int, DecodeResult] = {}
        for members, task in zip(chunks, tasks, strict=True):
            results.update(zip(members, task.done.result(), strict=True))
        return [results[index] for index in range(len(blobs))]

    def ping(self) -> None:
        """Decode one pixel. Raises DependencyDownError unless a child lives to answer."""
        (result,) = self.decode([_TINY_PNG])
        if isinstance(result, DecodeFailure) and result.reason.startswith("decoder_"):
            raise DependencyDownError(f"the decoder: {result.reason}: {result.detail}")

    def locks(self) -> tuple[str, ...]:
        """The locks that hold on this machine: ``memory limit``, ``landlock``, ``seccomp``."""
        self.ping()
        return next(keeper.locks for keeper in self._keepers if keeper.locks is not None)

    def close(self) -> None:
        """Stop all processes and wait for them. Callers that still wait for results get
        TransientError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            started = self._started
        for keeper in self._keepers:
            keeper.stop()
        if started:
            for _ in self._keepers:
                self._tasks.put(None)
            for keeper in self._keepers:
                keeper.join()
        with suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                if task is not None:
                    task.done.set_exception(_closed())

    def _schedule(self, blobs: list[bytes]) -> "_Task":
        task = _Task(blobs)
        with self._lock:
            if self._closed:
                raise _closed()
            if not self._started:
                for keeper in self._keepers:
                    keeper.start()
                self._started = True
            self._tasks.put(task)
        return task


class _Task:
    """A chunk of images and the promise of their results."""

    def __init__(self, blobs: list[bytes]) -> None:
        self.blobs = blobs
        self.done: Future[list[DecodeResult]] = Future()


class _Keeper:
    """A thread that keeps one child alive and feeds it chunks."""

    def __init__(
        self, config: ChildConfig, tasks: "queue.SimpleQueue[_Task | None]", number: int
    ) -> None:
        self._config = config
        self._tasks = tasks
        self._child: Child | None = None
        self._chunks = 0
        self._numbers = count(wire.READY + 1)
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"decoder-{number}", daemon=True)
        self.locks: tuple[str, ...] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the child at once; the thread ends with its next task."""
        with self._lock:
            self._stopped = True
            child = self._child
        if child is not None:
            child.kill()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task.done.set_result(self._decode(task.blobs))
            except (
                BaseException
            ) as error:  # the waiting caller must get the error; the thread continues
                task.done.set_exception(_closed() if self._stopped else error)
        if self._child is not None:
            self._child.close()

    def _decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        """Results in order. The image that a child dies of is tried once more, alone."""
        results: list[DecodeResult] = []
        second_try = False
        while len(results) < len(blobs):
            rest = blobs[len(results) :]
            child = self._living_child()
            try:
                for payload in child.decode(next(self._numbers), rest[:1] if second_try else rest):
                    results.append(self._unpack(payload))
                    second_try = False
            except ChildLostError as lost:
                self._drop()
                if second_try:
                    results.append(lost.failure)
                second_try = not second_try
        return results

    def _living_child(self) -> Child:
        """A child to ask; a new one where there is none or it has done enough.

        Raises DependencyDownError when two in a row fail before they have locked themselves down.
        """
        self._chunks += 1
        if self._chunks > _CHUNKS_PER_CHILD:
            self._drop()
        if self._child is None:
            try:
                self._start_child()
            except ChildLostError:
                self._start_again()
        assert self._child is not None  # noqa: S101
        return self._child

    def _start_again(self) -> None:
        try:
            self._start_child()
        except ChildLostError as lost:
            detail = lost.failure.detail
            raise DependencyDownError(f"the decoder's processes do not start: {detail}") from lost

    def _start_child(self) -> None:
        with self._lock:
            if self._stopped:
                raise _closed()
            self._child = child = Child(self._config)
        self._chunks = 0
        try:
            child.get_ready()
        except ChildLostError:
            self._drop()
            raise
        self.locks = child.locks

    def _drop(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _unpack(self, payload: bytes) -> DecodeResult:
        try:
            return wire.unpack_result(payload, self._config.input_side)
        except wire.WireError as error:
            return DecodeFailure("decoder_crash", f"unreadable result: {error}")


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


def _closed() -> TransientError:
    return TransientError("the decoder is closed")
