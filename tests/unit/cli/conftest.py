"""The command as a user runs it."""

import io
from collections.abc import Callable, Iterator

import boto3
import pytest
from moto import mock_aws

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


@pytest.fixture
def curated(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The curated bucket of the defaults, which holds the journal."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="pixsift-curated")
        yield "pixsift-curated"
