"""The command as a user runs it."""

import io
from collections.abc import Callable

import pytest

from pixsift_cli import main as cli

Run = Callable[..., tuple[int, str, str]]
"""Arguments -> exit status, standard output, standard error. ``answer``: what is typed."""


@pytest.fixture
def run_pixsift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``pixsift`` with its real ``main``, in this process."""

    def command(*arguments: str, answer: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pixsift", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command
