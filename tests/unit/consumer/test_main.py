"""How the process ends, and what it tries before it starts."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from pixsift.adapters.models.load import load_embedder
from pixsift.core.images import Pixels
from pixsift.errors import (
    DependencyDownError,
    DeviceLostError,
    LoginRefusedError,
    PixsiftError,
    SettingError,
)
from pixsift.ports import EmbeddingResult
from pixsift.telemetry import make_logger
from pixsift_consumer import main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingError("x"), 2),
        (DependencyDownError("x"), 3),
        (DeviceLostError("x"), 4),
        (LoginRefusedError("x"), 5),
    ],
)
def test_main__the_status_tells_what_ended_it(
    error: PixsiftError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr(main, "forbid_inspection", lambda: None)
    monkeypatch.setattr(main, "run", end)
    with pytest.raises(SystemExit) as told:
        main.main([])
    assert told.value.code == status


class NotANumber:
    """A model whose weights are spoiled."""

    def __init__(self) -> None:
        sound = load_embedder("stub")
        self.space, self.input_side, self.batch_size = sound.space, sound.input_side, 1

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        nothing = np.empty((0, self.space.dimension), np.float32)
        return EmbeddingResult(nothing, np.empty(0, np.intp), {0: "embed_nonfinite"})


def test_try_model__a_model_that_makes_no_vector_does_not_start() -> None:
    main._try_model(load_embedder("stub"))
    with pytest.raises(SettingError, match="embed_nonfinite"):
        main._try_model(NotANumber())


@pytest.mark.parametrize(("available", "lines"), [(False, 1), (True, 0)])
def test_warn_if_unconfined__only_without_seccomp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], available: bool, lines: int
) -> None:
    monkeypatch.setattr(main, "seccomp_available", lambda: available)
    main.warn_if_unconfined(make_logger(f"test-main-{available}"))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["level"] for line in told] == ["WARNING"] * lines
    assert all("libseccomp" in line["message"] for line in told)
