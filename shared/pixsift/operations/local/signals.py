"""Signals while processes are stopped: none interrupts that."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the stopping."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    known: dict[int, Any] = {n: signal.signal(n, signal.SIG_IGN) for n in numbers}
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
