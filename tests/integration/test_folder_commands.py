"""The other commands on a folder's ledger: they take a path where they take a URI."""

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image
from typer.testing import CliRunner, Result

from pixsift import curation
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.errors import NotFoundError
from pixsift.operations.curate import Tools, Wishes
from pixsift.operations.embedder import ModelChoice
from pixsift_cli import wiring
from pixsift_cli.main import app

CHOSEN = 3


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """``photos`` with a second save and a black picture, curated into ``ledger``, which runs."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp")).resolve()
    root.chmod(0o755)
    photos = root / "photos"
    (photos / "trip").mkdir(parents=True)
    for seed in range(6):
        small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        made = Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)
        made.save(photos / "trip" / f"{seed}.png")
    made.save(photos / "trip" / "5-again.jpg", quality=95)
    Image.new("RGB", (96, 96)).save(photos / "black.png")
    try:
        with FolderLedger(root / "ledger"):
            wishes = Wishes(out=root / "out", select={"k": CHOSEN, "strategy": "k_center"},
                            where={"flagged": "include"})  # fmt: skip
            tools = Tools(model=ModelChoice("stub"), logger=curation.quiet_logger())
            curation.run(photos, FolderLedger(root / "ledger"), wishes, tools, threading.Event())
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("PIXSIFT_DATABASE_URL", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")
    yield
    wiring.forget_folder_ledger()


def run(place: Path, *arguments: str) -> Result:
    ledger = str(place / "ledger")
    result = CliRunner().invoke(app, [*arguments, "--ledger", ledger], catch_exceptions=False)
    return result


def answered(place: Path, *arguments: str) -> Any:
    result = run(place, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_explain__tells_of_a_file(place: Path) -> None:
    (story,) = answered(place, "explain", str(place / "photos" / "trip" / "5.png"))
    chapter = story["collections"][0]
    assert chapter["outcome"] == "duplicate"
    assert "photos//trip/5-again.jpg" in chapter["representative"]
    (chosen,) = answered(place, "explain", str(place / "photos" / "trip" / "0.png"))
    assert chosen["snapshots"] == [] or chosen["snapshots"][0]["state"] == "published"


def test_explain__a_relative_path_and_a_folder_that_was_not_curated(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "photos")
    assert answered(place, "explain", "trip/0.png")
    with pytest.raises(NotFoundError, match="in no folder that was curated"):
        run(place, "explain", "/usr/share/0.png")
    with pytest.raises(NotFoundError, match=r"knows no image trip/9\.png"):
        run(place, "explain", "trip/9.png")


def test_status__counts_without_queues(place: Path) -> None:
    told = answered(place, "status")
    assert told["queues"] == {} and told["collections"][0]["outcomes"]["kept"] == 6


def test_images_whatif_audit__by_the_folder(place: Path) -> None:
    photos = str(place / "photos")
    told = answered(place, "images", "--collection", photos, "--outcome", "rejected")
    assert [Path(row["uri"].split("?")[0]).name for row in told["images"]] == ["black.png"]
    assert answered(place, "whatif", photos, "--preset", "photos")
    assert answered(place, "audit", photos)


def test_search__finds_the_folder_s_own_picture(place: Path) -> None:
    query = place / "photos" / "trip" / "2.png"
    page = place / "found.html"
    told = answered(place, "search", "--image", str(query), "--collection",
                    str(place / "photos"), "-k", "2", "--own", "--html", str(page))  # fmt: skip
    assert told["neighbors"][0]["uri"].split("?")[0].endswith("trip/2.png")
    assert page.read_text().count("data:image/webp") == 2


def test_select__excludes_a_file_by_its_path(place: Path) -> None:
    excluded = place / "photos" / "trip" / "0.png"
    told = answered(place, "select", "--dry-run", "--collection", str(place / "photos"),
                    "--strategy", "all", "--flagged", "include",
                    "--exclude", str(excluded))  # fmt: skip
    names = {Path(row["uri"].split("?")[0]).name for row in told["images"]}
    assert len(names) == 5 and "0.png" not in names


def test_rule_undo__one_picture_by_its_path(place: Path) -> None:
    photos = place / "photos"
    again = str(photos / "trip" / "5.png")
    result = run(place, "rule", "also-keep", again, "--why", "wanted", "--who", "me")
    assert result.exit_code == 0, result.output
    result = run(place, "undo", str(photos / "black.png"))
    assert "judged again by the next run" in result.output
    tools = Tools(model=ModelChoice("stub"), logger=curation.quiet_logger())
    done = curation.run(photos, FolderLedger(place / "ledger"), Wishes(), tools, threading.Event())
    assert done.tally.judged == 1
    assert done.counts.outcomes["rejected", "black"] == 1


def test_upload__sends_what_was_chosen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PIXSIFT_LEDGER_DIR", str(place / "ledger"))
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="raw")
        result = CliRunner().invoke(
            app, ["upload", str(place / "photos"), "s3://raw/p", "--selected", "--json"],
            catch_exceptions=False,
        )  # fmt: skip
        assert json.loads(result.stdout)["uploaded"] == CHOSEN
        keys = boto3.client("s3").list_objects_v2(Bucket="raw")["Contents"]
    assert all(item["Key"].startswith("p/trip/") for item in keys)
