"""``pixsift calibrate`` from a folder to a file that ``collection create`` takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixsift.core.calibration import Calibration
from pixsift.errors import UserError
from pixsift.operations import calibrate as operation
from pixsift_cli.main import app


def save_pictures(folder: Path, count: int, *, seed: int = 0, side: int = 96) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"f{index:03}.png")
    return folder


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_calibrate__writes_what_a_collection_can_store(tmp_path: Path) -> None:
    images = save_pictures(tmp_path / "images" / "cam1", 5)
    save_pictures(tmp_path / "images" / "cam2", 3, seed=1)
    sequences = save_pictures(tmp_path / "sequences" / "belt", 3, seed=2).parent
    out, drawn = tmp_path / "calibration.json", tmp_path / "curve.svg"
    printed = run(
        "--model", "stub", "--images", images.parent, "--sequences", sequences,
        "--edited", "4", "--precision", "0.8", "--recall", "0.9", "--sequence-gap", "2",
        "--camera-pattern", r"/(?P<camera>cam\d)/", "--out", out, "--chart", drawn, "--json",
    )  # fmt: skip
    stored = json.loads(out.read_text())
    assert json.loads(printed) == stored
    calibration = Calibration.from_json(stored)
    assert calibration.calibrated
    assert calibration.model == "stub"
    assert calibration.images["pictures"] == 11
    assert calibration.images["positive_pairs"] == 4 * 30
    assert calibration.images["distinct_pairs"] == 8 * 7 // 2 + 8 * 3 + 1  # one pair 2 frames apart
    assert calibration.reached
    assert calibration.reached["recall"] >= 0.9
    assert calibration.noise is not None
    assert set(calibration.per_camera) == {"cam1", "cam2"}
    assert [row["gap"] for row in calibration.sequences] == [1, 2]
    assert [(row["degrees"], row["pairs"]) for row in calibration.recolored] == [(120, 4), (180, 4)]
    assert drawn.read_text().startswith("<svg")


def test_calibrate__prints_a_table_for_people(tmp_path: Path) -> None:
    printed = run(
        "--model", "stub", "--images", save_pictures(tmp_path / "i", 4), "--edited", "2",
        "--precision", "0.6", "--recall", "0.5",
    )  # fmt: skip
    assert "proposed epsilon" in printed
    assert "second look" in printed


def test_calibrate__what_cannot_be_sure_is_not_proposed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few"):
        run("--model", "stub", "--images", save_pictures(tmp_path / "i", 2), "--edited", "1",
            "--precision", "0.999")  # fmt: skip


@pytest.mark.parametrize("pattern", ["(", "cam"])
def test_calibrate__a_camera_pattern_needs_its_group(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="camera pattern"):
        run("--model", "stub", "--images", save_pictures(tmp_path / "i", 1),
            "--camera-pattern", pattern)  # fmt: skip


@pytest.mark.parametrize("option", ["--out", "--chart"])
@pytest.mark.parametrize("file", ["absent/x.json", "."])
def test_calibrate__where_it_writes_is_checked_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, file: str
) -> None:
    monkeypatch.setattr(operation, "_measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(UserError, match="name a file in a writable folder"):
        run("--model", "stub", "--images", save_pictures(tmp_path / "i", 1),
            option, tmp_path / file)  # fmt: skip


def test_cameras__a_group_that_took_no_part_is_no_camera() -> None:
    assert operation._cameras([Path("cam1/a"), Path("b")], "(?P<camera>cam.)?") == ["cam1", ""]


def test_calibrate__a_broken_picture_is_named(tmp_path: Path) -> None:
    images = save_pictures(tmp_path / "i", 1)
    (images / "z.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(UserError, match=r"z\.jpg"):
        run("--model", "stub", "--images", images)
