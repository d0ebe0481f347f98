"""Collections take their threshold from a calibration, and ``explain`` shows the second look."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ledger_world import image, ledger_of, turned
from pixsift.adapters.calibration.calibrations import UNCALIBRATED_EPSILON, default_calibration
from pixsift.adapters.models.load import load_embedder
from pixsift.core.presets import REACH, UNCALIBRATED_REACH
from pixsift.core.second_look import LookRule, look_signals
from pixsift.errors import UserError
from pixsift_cli.main import app

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")

    def command(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return command


def create(run: Run, *options: str | Path, name: str = "c") -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        run("collection", "create", name, "--source", "s3://raw", "--json", *options)
    )
    return made


def looks(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return look_signals(np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1))


def test_create__an_uncalibrated_model_says_so(run: Run) -> None:
    made = create(run)
    assert made["epsilon"] == UNCALIBRATED_REACH
    assert made["second_look"] == LookRule(narrow=UNCALIBRATED_EPSILON).to_json()
    assert made["calibration"] is None
    assert "not calibrated" in run("collection", "show", "c")


def test_create__the_shipped_calibration_is_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXSIFT_MODEL", "efficientnet-lite0")
    made = create(run)
    shipped = default_calibration(load_embedder("efficientnet-lite0", device="cpu").space)
    assert (made["epsilon"], made["second_look"]["narrow"]) == (REACH, shipped.epsilon)
    assert made["calibration"] == json.loads(json.dumps(shipped.summary()))
    assert "not calibrated" not in run("collection", "show", "c")


def test_create__ones_own_calibration_and_an_epsilon_beside_it(run: Run, tmp_path: Path) -> None:
    shipped = default_calibration(load_embedder("stub").space).to_json()
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(shipped | {"calibrated": True, "epsilon": 0.077}))
    made = create(run, "--calibration", file)
    assert (made["second_look"]["narrow"], made["calibration"]["epsilon"]) == (0.077, 0.077)
    other = json.loads(
        run("collection", "create", "d", "--source", "s3://raw", "--calibration", file,
            "--epsilon", "0.3", "--json")
    )  # fmt: skip
    assert (other["epsilon"], other["calibration"]) == (0.3, None)  # it vouches for its own only
    create(run, "--calibration", file, "--second-look", "off", name="e")
    assert "embedding alone, not calibrated" in run("collection", "show", "e")


@pytest.mark.parametrize("rule", ['{"bias": null}', '{"bias": [1]}'])
def test_create__a_rule_of_no_numbers_is_a_users_mistake(run: Run, rule: str) -> None:
    with pytest.raises(UserError, match="--second-look: bias of a second-look rule is a finite"):
        create(run, "--second-look", rule)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"weights_sha256": "0" * 64}, "other weights"), ({"schema": "x"}, "schema")],
)
def test_create__a_calibration_of_something_else_is_refused(
    run: Run, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(default_calibration(load_embedder("stub").space).to_json() | change))
    with pytest.raises(UserError, match=words):
        create(run, "--calibration", file)


def test_explain__shows_the_second_look(run: Run, database_url: str) -> None:
    create(run, "--epsilon", "0.05")
    with ledger_of(database_url) as ledger:
        ledger.commit(
            ledger.collection("c"),
            [
                image("kept.jpg", turned(0, 384), look=looks(1)),
                image("copy.jpg", turned(5, 384), look=looks(1)),
                image("alike.jpg", turned(6, 384), look=looks(2)),
            ],
        )
    (story,) = json.loads(run("explain", "s3://raw/copy.jpg", "--json"))
    chapter = story["collections"][0]
    assert chapter["reason"] == "near_look"
    assert chapter["proof"]["second_look"]["agrees"] is True
    assert chapter["proof"]["second_look"]["signals"]["hash_bits"] == 0
    assert "second look     agrees" in run("explain", "s3://raw/copy.jpg")
    (other,) = json.loads(run("explain", "s3://raw/alike.jpg", "--json"))
    assert other["collections"][0]["outcome"] == "kept"  # within epsilon, and refused
