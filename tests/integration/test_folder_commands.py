"""The other commands on a folder's ledger: they take a path where they take a URI."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from PIL import Image
from typer.testing import CliRunner, Result

from curated_folders import picture
from pixsift import curation
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.curate import Tools, Wishes
from pixsift.operations.embedder import ModelChoice
from pixsift_cli import wiring
from pixsift_cli.main import app

CHOSEN = 3
KEPT = 7


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """``photos`` with a second save and a black picture, curated into ``ledger``, which runs."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp")).resolve()
    root.chmod(0o755)
    photos = root / "photos"
    (photos / "trip").mkdir(parents=True)
    for seed in range(6):
        picture(seed).save(photos / "trip" / f"{seed}.png")
    picture(5).save(photos / "trip" / "5-again.jpg", quality=95)
    picture(9).save(os.fsdecode(os.fsencode(photos / "trip") + b"/caf\xe9.png"))
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


def test_explain__shows_paths_and_no_internal_names(place: Path) -> None:
    trip = place / "photos" / "trip"
    told = run(place, "explain", str(trip / "5.png")).stdout
    assert told.startswith(f"{trip / '5.png'}\n")
    assert f"representative  {trip / '5-again.jpg'}\n" in told
    assert "file:" not in told and "ETag" not in told
    kept = run(place, "explain", str(trip / "5-again.jpg")).stdout
    assert str(trip / "5.png") in kept and "file:" not in kept


def test_explain__a_name_that_is_not_utf8_as_the_ledger_shows_it(place: Path) -> None:
    told = run(place, "explain", str(place / "photos" / "trip" / "caf\\xe9.png"))
    assert told.exit_code == 0 and "caf\\xe9.png" in told.stdout


def test_status__counts_without_queues(place: Path) -> None:
    told = answered(place, "status")
    assert told["queues"] == {} and told["collections"][0]["outcomes"]["kept"] == KEPT


def test_images_whatif_audit__by_the_folder(place: Path) -> None:
    photos = str(place / "photos")
    told = answered(place, "images", "--collection", photos, "--outcome", "rejected")
    assert [Path(row["uri"].split("?")[0]).name for row in told["images"]] == ["black.png"]
    assert answered(place, "whatif", photos, "--preset", "photos")
    assert answered(place, "audit", photos)
    with pytest.raises(RequestError, match="--snapshots looks into a bucket"):
        run(place, "audit", photos, "--snapshots")


def test_search__finds_the_folder_s_own_picture(place: Path) -> None:
    query = place / "photos" / "trip" / "2.png"
    page = place / "found.html"
    told = answered(place, "search", "--image", str(query), "--collection",
                    str(place / "photos"), "-k", "2", "--own", "--html", str(page))  # fmt: skip
    assert told["neighbors"][0]["uri"].split("?")[0].endswith("trip/2.png")
    assert page.read_text().count("data:image/webp") == 2


def test_search__like_a_file_and_below_a_folder(place: Path) -> None:
    trip = place / "photos" / "trip"
    told = answered(place, "search", "--like", str(trip / "2.png"), "-k", "2")
    names = [Path(row["uri"].split("?")[0]).name for row in told["neighbors"]]
    assert len(names) == 2 and "2.png" not in names
    assert told["neighbors"][0]["nearest_to"].endswith("photos//trip/2.png")
    below = answered(place, "search", "--prefix", str(trip), "--own", "-k", "9")
    assert len(below["neighbors"]) == KEPT
    whole = answered(place, "search", "--prefix", str(place / "photos"), "--own", "-k", "9")
    assert len(whole["neighbors"]) == KEPT
    unlike = answered(place, "search", "--like", str(trip / "2.png"), "-k", "1",
                      "--unlike", str(trip / names[0]))  # fmt: skip
    assert Path(unlike["neighbors"][0]["uri"].split("?")[0]).name != names[0]
    lines = run(place, "search", "--like", str(trip / "2.png")).stdout
    assert str(trip) in lines and "file:" not in lines
    with pytest.raises(NotFoundError, match="in no folder that was curated"):
        run(place, "search", "--like", "/usr/share/2.png")
    with pytest.raises(NotFoundError, match="in no folder that was curated"):
        run(place, "search", "--prefix", "/usr/share")


def test_images_whatif_select__show_paths(place: Path) -> None:
    photos = str(place / "photos")
    listed = run(place, "images", "--collection", photos).stdout
    assert f"{photos}/black.png" in listed and "file:" not in listed
    would = run(place, "whatif", photos, "--epsilon", "0.9", "--no-second-look").stdout
    assert f"{photos}/trip/" in would and "file:" not in would
    compared = run(place, "select", "--collection", photos, "--compare", "--size", "2",
                   "--flagged", "include")  # fmt: skip
    assert compared.exit_code == 0 and "k_center" in compared.stdout


def test_select__excludes_a_file_by_its_path(place: Path) -> None:
    excluded = place / "photos" / "trip" / "0.png"
    told = answered(place, "select", "--dry-run", "--collection", str(place / "photos"),
                    "--strategy", "all", "--flagged", "include",
                    "--exclude", str(excluded))  # fmt: skip
    names = {Path(row["uri"].split("?")[0]).name for row in told["images"]}
    assert len(names) == KEPT - 1 and "0.png" not in names


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


def test_undo__a_file_that_is_not_there_any_more(place: Path) -> None:
    with pytest.raises(NotFoundError, match=r"knows no object .*trip/gone\.png"):
        run(place, "undo", str(place / "photos" / "trip" / "gone.png"))
    with pytest.raises(NotFoundError, match="in no folder that was curated"):
        run(place, "undo", "/usr/share/gone.png")


def test_redecide_undo__another_rule_and_back(place: Path) -> None:
    photos = str(place / "photos")
    before = answered(place, "status")["collections"][0]["outcomes"]
    result = run(place, "redecide", photos, "--epsilon", "1.9", "--no-second-look")
    assert result.exit_code == 0 and "generation 2" in result.output, result.output
    assert answered(place, "status")["collections"][0]["outcomes"]["kept"] < before["kept"]
    result = run(place, "undo", photos)
    assert result.exit_code == 0, result.output
    assert answered(place, "status")["collections"][0]["outcomes"] == before
    assert answered(place, "audit", photos)[0]["findings"] == []


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
