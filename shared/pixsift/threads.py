"""Threads whose failure ends the process, and the clock that tests may replace."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from aws_lambda_powertools import Logger

Clock = Callable[[], float]
THREAD_DIED = 7
"""Exit status: an exception escaped from a thread."""
STOPPED_LATE = 6
"""Exit status: asked to stop, but a hanging dependency prevented it in time."""


def end_process(status: int, last_words: Callable[[], object]) -> None:
    """End this process now, like a kill: the queue returns the messages that it held.

    last_words: written to the log first, unless that fails or takes longer than two seconds.
    """

    def speak() -> None:
        with suppress(Exception):
            last_words()
            sys.stdout.flush()

    speaker = threading.Thread(target=speak, name="last-words", daemon=True)
    speaker.start()
    speaker.join(2.0)
    os._exit(status)


def start_guarded(work: Callable[[], object], *, name: str, logger: Logger) -> threading.Thread:
    """Start a daemon thread whose failure ends the process. An exception from ``work`` is logged,
    and ends the process with status ``THREAD_DIED``: a process that lacks one of its threads holds
    messages and never finishes them, while it looks alive.
    """

    def run() -> None:
        try:
            work()
        except BaseException as error:
            cause = error
            end_process(
                THREAD_DIED,
                lambda: logger.critical(
                    "a thread died: the process ends", exc_info=cause, extra={"thread_name": name}
                ),
            )

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
