"""Signals to a command that starts processes: it stops them before it ends."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from pixsift_cli.terminal import say


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """A closed terminal (SIGHUP) or SIGTERM ends the command as Ctrl-C does: code inside stops what
    it started on KeyboardInterrupt. Python drops an interrupt that comes while it runs a finalizer,
    so it is sent again.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    unraisable = sys.unraisablehook

    def send_again(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            # From a thread: sent from this handler, it would be dropped again.
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            unraisable(dropped)

    # Keep an ignored signal ignored, as nohup wants.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    known: dict[int, Any] = {number: signal.signal(number, interrupt) for number in numbers}
    sys.unraisablehook = send_again
    try:
        yield
    except KeyboardInterrupt:
        say("pixsift: interrupted; everything that was started is stopped", err=True)
        raise typer.Exit(130) from None
    finally:
        sys.unraisablehook = unraisable
        for number, handler in known.items():
            signal.signal(number, handler)
