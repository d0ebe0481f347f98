"""One child process from the outside: started, asked, watched, and killed when it does not answer.

Every read and write has a deadline, so that a child that stops (or is stopped) costs seconds, never
a thread. What comes back is bytes that ``wire`` checks; nothing of it is ever executed.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.child import OUT_OF_MEMORY, ChildConfig, write_config
from pixsift.core.images import DecodeFailure

START_SECONDS: Final = 25.0
"""Within which a child must have loaded everything and locked itself in."""
SLACK_SECONDS: Final = 5.0
"""The child's own alarm, after the wall time of an image, comes first."""
_WRITE_SECONDS: Final = 5.0
"""Within which a child must take what is sent: it reads before it decodes."""
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The whole environment of the decoder's processes: constants, none of our variables."""
_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[1:]; sys.argv[1:] = []; "
    "from pixsift.adapters.decode.child import main; main()"
)
_READ_BYTES: Final = 2**20


class ChildLostError(Exception):
    """The child ended or was ended: ``failure`` says what that means for the image in hand."""

    def __init__(self, failure: DecodeFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Child:
    """A running, locked-in child. Used by one thread at a time; the thread that starts it must
    live as long as it does (Linux ends a child with the thread of its parent)."""

    def __init__(self, config: ChildConfig) -> None:
        """Start it; ``get_ready`` waits for it."""
        self._config = config
        self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            [sys.executable, "-I", "-c", _BOOT, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        self._requests = self._process.stdin.fileno()
        self._replies = self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        _widen_pipe(self._requests)
        _widen_pipe(self._replies)
        self._read = bytearray()
        self.locks: tuple[str, ...] = ()
        """The locks that hold, as the child reported before it saw an image."""

    def get_ready(self) -> None:
        """Wait until it has locked itself down. Raises ChildLostError if that takes more than
        ``START_SECONDS``.
        """
        self._send(wire.READY, [write_config(self._config)])
        number, locks = self._receive(monotonic() + START_SECONDS)
        self._check(number == wire.READY)
        self.locks = tuple(lock.decode("ascii", "replace") for lock in locks)

    def decode(self, number: int, blobs: Sequence[bytes]) -> Iterator[bytes]:
        """Results for ``blobs``, one by one, in order, as the child sent them.

        Raises ChildLostError when the child is lost on the way; the results before it stand.
        """
        self._send(number, blobs)
        for _ in blobs:
            answered, parts = self._receive(
                monotonic() + self._config.limits.wall_seconds + SLACK_SECONDS
            )
            self._check(answered == number and len(parts) == 1)
            yield parts[0]

    def kill(self) -> None:
        """End it now and take its exit status. Safe to call from another thread, and again."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and free its pipes; only for the thread that uses it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _check(self, in_turn: bool) -> None:
        if not in_turn:
            self.kill()
            raise ChildLostError(DecodeFailure("decoder_crash", "the child spoke out of turn"))

    def _send(self, number: int, parts: Sequence[bytes]) -> None:
        deadline = monotonic() + _WRITE_SECONDS
        for piece in wire.frame(number, parts):
            rest = memoryview(piece)
            while rest:
                if not _ready(self._requests, select.POLLOUT, deadline):
                    raise self._lost(timed_out=True)
                try:
                    rest = rest[os.write(self._requests, rest) :]
                except BlockingIOError:
                    continue
                except OSError:  # it has gone
                    raise self._lost() from None

    def _receive(self, deadline: float) -> tuple[int, list[bytes]]:
        while (found := self._whole_frame()) is None:
            if not _ready(self._replies, select.POLLIN, deadline):
                raise self._lost(timed_out=True)
            data = os.read(self._replies, _READ_BYTES)
            if not data:
                raise self._lost()
            self._read += data
        frame, used = found
        del self._read[:used]
        return frame

    def _whole_frame(self) -> tuple[tuple[int, list[bytes]], int] | None:
        try:
            return wire.parse_frame(self._read)
        except wire.WireError as error:
            self.kill()
            raise ChildLostError(DecodeFailure("decoder_crash", str(error))) from error

    def _lost(self, *, timed_out: bool = False) -> ChildLostError:
        """End it if it still runs, and say what its end means."""
        if timed_out:
            self.kill()
            return ChildLostError(
                DecodeFailure("decoder_timeout", "no answer within the wall time")
            )
        try:
            self._process.wait(SLACK_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its pipe and still runs
            self.kill()
        return ChildLostError(_meaning(self._process.returncode))


def _meaning(status: int) -> DecodeFailure:
    if status in (-signal.SIGALRM, -signal.SIGXCPU):
        return DecodeFailure("decoder_timeout", "wall or CPU time used up")
    if status == OUT_OF_MEMORY:
        return DecodeFailure("decoder_memory", "memory limit reached, twice")
    return DecodeFailure("decoder_crash", f"exit status {status}")


def _ready(descriptor: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - monotonic()) * 1000))


def _widen_pipe(descriptor: int) -> None:
    """Let a pipe hold 1 MiB instead of 64 KiB (Linux); only slower where that is refused."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 2**20)
