"""Ctrl-C ends a command in order, also where Python itself drops it."""

import time

import pytest
import typer

from pixsift_cli.local.signals import stopped_by_signals


class _Interrupted:
    """Something that is collected in the moment in which the user presses Ctrl-C."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("heeded_signals")
def test_stopped_by_signals__an_interrupt_in_a_finalizer_is_not_lost() -> None:
    with pytest.raises(typer.Exit) as ended, stopped_by_signals():
        _Interrupted()
        time.sleep(10)
    assert ended.value.exit_code == 130
