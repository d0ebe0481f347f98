"""``pixsift quality`` on real files, ``pixsift cameras`` on a real ledger."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledger_world import image, ledger_of, new_collection, unit
from pixsift.core.quality import QualityPolicy
from pixsift.operations.quality import measure_folder
from pixsift_cli.quality.report import safe_cell

Run = Callable[..., tuple[int, str, str]]
START = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    return run_pixsift


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good picture, a black one under a hostile name, and a text file."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    good = Image.fromarray(pixels).resize((320, 240), Image.Resampling.NEAREST)
    good.save(root / "deep" / "good.png")
    Image.new("RGB", (64, 64)).save(root / "=HYPERLINK(1).png")
    Image.new("RGB", (64, 64)).save(root / "<script>alert(1)<script>.png")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden").write_text("ignored")
    return root


def test_judge_folder__keeps_thumbnails_only_when_asked(folder: Path) -> None:
    for wanted in (False, True):
        rows = measure_folder(folder, QualityPolicy(), thumbnails=wanted)
        assert any(row.thumbnail_webp for row in rows) == wanted


def test_quality__json_tells_every_file(run: Run, folder: Path) -> None:
    status, out, err = run("quality", str(folder), "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert facts["outcomes"] == {"good": 1, "flagged": 0, "rejected": 2, "refused": 1}
    assert facts["refusals"] == {"not_an_image": 1}
    by_name = {row["image"]: row for row in facts["images"]}
    assert by_name["=HYPERLINK(1).png"]["reason"] == "black"
    assert by_name["deep/good.png"]["metrics"]["sharpness"] > 0.1


def test_quality__csv_and_sheet_are_safe_to_open(run: Run, folder: Path, tmp_path: Path) -> None:
    table, sheet = tmp_path / "t.csv", tmp_path / "s.html"
    status, out, _ = run("quality", str(folder), "--csv", str(table), "--html", str(sheet))
    assert status == 0
    assert "good 1" in out
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert [row["image"] for row in rows] == sorted(
        ["'=HYPERLINK(1).png", "<script>alert(1)<script>.png", "deep/good.png", "notes.txt"],
        key=lambda name: name.lstrip("'").replace("<", "0"),
    )
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(sheet.read_text("utf-8"))
    assert "script" not in tags
    assert tags.count("svg") >= 15 and tags.count("img") >= 2
    assert "http" not in sheet.read_text("utf-8").replace("http-equiv", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_safe_cell__no_text_becomes_a_formula(start: str) -> None:
    assert safe_cell(f"{start}1+1") == f"'{start}1+1"
    assert safe_cell(f"a{start}") == f"a{start}"


def test_quality__policy_from_text_or_file(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"black": "off", "blank": "off", "dark": "off"}')
    _, out, _ = run("quality", str(folder), "--policy", str(file), "--json")
    assert json.loads(out)["outcomes"]["rejected"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quality", "nowhere"], "is not a folder"),
        (["quality", "{folder}", "--policy", '{"blurry": "reject"}'], "unknown quality check"),
        (["quality", "{folder}", "--policy", "nowhere.json"], "cannot read policy file"),
        (["quality", "{folder}", "--policy", "{folder}/deep/good.png"], "is not a text file"),
        (["quality", "{folder}", "--policy", '{"dark": ' + "[" * 9**5], "quality policy"),
        (["quality", "{folder}", "--csv", "nowhere/a.csv"], "cannot write"),
        (["quality", "{folder}", "--html", "{folder}"], "cannot write"),
    ],
)
def test_quality__mistakes_are_one_line(
    run: Run, folder: Path, arguments: list[str], said: str
) -> None:
    status, _, err = run(*[argument.replace("{folder}", str(folder)) for argument in arguments])
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has only names of valid UTF-8")
def test_quality__odd_names_films_and_lost_files(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = (folder / "deep" / "good.png").read_bytes()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(picture)
    (folder / "\x1b[2J.png").write_bytes(b"no image")
    with (folder / "film.mov").open("wb") as film:
        film.truncate(2**32)
    (folder / "lost.png").write_bytes(picture)
    read = Path.read_bytes

    def lose(path: Path) -> bytes:
        if path.name == "lost.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", lose)
    table, sheet = tmp_path / "all.csv", tmp_path / "sheet.html"
    status, out, _ = run("quality", str(folder), "--csv", str(table), "--html", str(sheet))
    assert status == 0
    assert "\x1b[2J" not in out
    rows = {row["image"]: row for row in csv.DictReader(table.read_text("utf-8").splitlines())}
    assert rows["\\udcff.png"]["format"] == "PNG"
    assert rows["film.mov"]["reason"] == "too_many_bytes"
    assert rows["lost.png"]["reason"] == "unreadable"
    assert "film.mov: file too large" in sheet.read_text("utf-8")


def test_cameras__frozen_and_drifting_ones_are_told(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of three cameras, through a real ledger."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, "yard", key_pattern=r"(?P<camera>[^/]+)/")
        for number in range(30):
            ledger.commit(
                collection,
                [
                    image(
                        f"{camera}/{number:03}.jpg", unit(*np.eye(16)[number % 16]), pixels=pixels,
                        content=f"{camera}{number}", quality={"brightness": brightness},
                        captured_at=START + timedelta(minutes=number),
                    )
                    for camera, pixels, brightness in (
                        ("frozen", "same", 0.5),
                        ("fading", f"fading{number}", 0.7 - number * 0.02),
                        ("good", f"good{number}", 0.5 + 0.01 * (number % 2)),
                    )
                ],
            )  # fmt: skip
    status, out, err = run("cameras", "yard", "--json", "--check")
    assert status == 1, err
    found = {row["camera"]: row for row in json.loads(out)}
    assert [name for name, row in found.items() if row["healthy"]] == ["good"]
    assert found["frozen"]["stuck"][0]["frames"] == 30
    assert found["fading"]["drift"]["change"] == pytest.approx(-0.58, abs=0.02)
    status, out, _ = run("cameras", "yard", "--since", "2026-11-22T08:20:00", "--json")
    assert status == 0
    assert {row["frames"] for row in json.loads(out)} == {10}
    assert "stuck" in run("cameras", "yard")[1]


def test_cameras__unknown_collection(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    status, _, err = run("cameras", "yrad")
    assert (status, "no collection" in err) == (2, True)
