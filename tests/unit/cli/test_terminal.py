"""What reaches a terminal: names that strangers chose, drawn and never obeyed."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from pixsift_cli import terminal

HOSTILE = "zz/[/red]\x1b]0;title\x07\x1b[2J\r\n\x9b31m\u202egpj.[link=x]y.jpg"
SHOWN = r"zz/[/red]\x1b]0;title\x07\x1b[2J\r\n\x9b31m\u202egpj.[link=x]y.jpg"
OWN = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""The escape sequences of rich itself: colors, cursor, erase line."""


def on_a_terminal(code: str) -> str:
    """What a process writes to a terminal of its own, as its standard output and error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "400"},
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            written += read
        os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


CASES = {
    "lines": "terminal.say([NAME]); terminal.say(NAME, err=True)",
    "cells": "t = Table('a'); t.add_row(terminal.cell(NAME)); terminal.console().print(t)",
    "plain strings": "terminal.console().print(NAME)",
    "texts of others": "terminal.console().print(Text(NAME))",
    "live": "with Live(terminal.cell(NAME), console=terminal.console()): pass",
    "status line": "with terminal.status_line(NAME) as tell: tell(NAME)",
    "backfill": "with reconcile._shown() as tell: tell(Differences(listed=1, last_key=NAME))",
    "status": "report = StatusReport(collections=[], anomalies=[], queues={'ingest':"
    " QueueDepth(waiting=0, in_flight=0, error=NAME)})\n"
    "terminal.console().print(status._screen(report), soft_wrap=True)",
}
_IMPORTS = """
from rich.live import Live
from rich.table import Table
from rich.text import Text
from pixsift.answers.collections import StatusReport
from pixsift.answers.queues import QueueDepth
from pixsift.core.reconcile import Differences
from pixsift_cli import reconcile, status, terminal
"""


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """What each case writes to one terminal."""
    parts = [f"terminal.say('<<<')\n{code}\n" for code in CASES.values()]
    written = on_a_terminal(f"{_IMPORTS}\nNAME = {HOSTILE!r}\n{''.join(parts)}")
    return dict(zip(CASES, written.split("<<<")[1:], strict=True))


@pytest.mark.parametrize("case", CASES)
def test_terminal__obeys_no_name(case: str, shown: dict[str, str]) -> None:
    written = shown[case]
    assert "\x1b]" not in written and "\x1b[2J" not in written
    rest = OWN.sub("", written)
    assert not set("\x1b\x07\x9b\u202e") & set(rest)
    if case not in {"texts of others", "plain strings"}:  # their line feeds are their own
        assert SHOWN in rest


def test_confirm__a_line_feed_forges_no_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert terminal.confirm("Erase s3://b/a\nErase nothing?")
    assert r"s3://b/a\nErase nothing?" in capsys.readouterr().err
