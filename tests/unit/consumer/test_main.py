"""What the consumer says of its place before it starts."""

import json

import pytest

from pixsift.telemetry import make_logger
from pixsift_consumer import main


@pytest.mark.parametrize(("available", "lines"), [(False, 1), (True, 0)])
def test_warn_if_unconfined__only_without_seccomp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], available: bool, lines: int
) -> None:
    monkeypatch.setattr(main, "seccomp_available", lambda: available)
    main.warn_if_unconfined(make_logger(f"test-main-{available}"))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["level"] for line in told] == ["WARNING"] * lines
    assert all("libseccomp" in line["message"] for line in told)
