"""Calls of the file system that may never return, as on a network share whose server is gone.

Nothing can interrupt such a call, so it runs in a thread of its own: when it takes too long the
thread is abandoned, and the caller continues with another one.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from pixsift.errors import DependencyDownError, TransientError

T = TypeVar("T")
_MOST_HANGING = 8
"""After this many abandoned calls the whole file system counts as hanging."""


class Patience:
    """Runs calls for at most ``seconds`` each. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._own = threading.local()
        self._hanging = 0

    def call(self, what: str, work: Callable[[], T]) -> T:
        """The result of ``work``, or what it raises.

        Raises TransientError when it takes too long, DependencyDownError when too many calls hang.
        """
        if self._hanging >= _MOST_HANGING:
            raise DependencyDownError(f"{what}: the file system does not respond")
        helper: _Helper | None = getattr(self._own, "helper", None)
        if helper is None:
            helper = self._own.helper = _Helper()
        try:
            result, error = helper.call(work, self._seconds)
        except Empty:
            self._own.helper = None
            self._hanging += 1
            raise TransientError(f"{what}: no answer within {self._seconds:.0f} s") from None
        if error is not None:
            raise error
        return cast(T, result)


class _Helper:
    """A thread that does one call after another."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._results: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="file-system", daemon=True).start()

    def call(
        self, work: Callable[[], object], seconds: float
    ) -> "tuple[object, BaseException | None]":
        """Result and error of ``work``. Raises Empty after ``seconds``."""
        self._calls.put(work)
        return self._results.get(timeout=seconds)

    def _run(self) -> None:
        while True:
            work = self._calls.get()
            try:
                self._results.put((work(), None))
            except BaseException as error:
                self._results.put((None, error))
