"""``pixsift search`` on real files, real decoding and the stub model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.sources import SourceRule
from pixsift.errors import UserError
from pixsift.operations.retrieve import embed_files
from pixsift_cli.main import app


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Six images that are far from each other."""
    rng = np.random.default_rng(5)
    paths = []
    for number in range(6):
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.NEAREST).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def kept(database_url: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A ledger that keeps the images, and the settings to search it."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")
    embedder = StubEmbedder()
    embeddings, files, _ = embed_files(photos, embedder)
    with Database(database_url) as database:
        ledger = Ledger(database)
        ledger.ensure_space(embedder.space)
        collection = ledger.create_collection(
            "c", sources=[SourceRule("raw")], space_id=embedder.space.space_id, epsilon=0.001
        )
        ledger.commit(collection, [
            Judged(
                ObjectVersion("raw", path.name, "v1"), "embedded",
                content_sha256=hashlib.sha256(path.read_bytes()).digest(),
                pixel_sha256=hashlib.sha256(b"px" + path.read_bytes()).digest(),
                embedding=row.astype(np.float16),
            )
            for path, row in zip(files, embeddings, strict=True)
        ])  # fmt: skip
    return photos


def search(*arguments: str) -> dict[str, Any]:
    """The command's JSON."""
    result = CliRunner().invoke(app, ["search", *arguments, "--json"])
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_search__an_image_is_nearest_to_itself(kept: list[Path]) -> None:
    found = search("--image", str(kept[3]), "--k", "4")
    assert found["neighbors"][0]["uri"] == "s3://raw/3.png?versionId=v1"
    distances = [match["distance"] for match in found["neighbors"]]
    assert distances[0] < 1e-9
    assert distances == sorted(distances)
    assert len(distances) == 4


def test_search__a_folder_is_near_whatever_is_near_one_of_its_images(
    kept: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "query"
    folder.mkdir()
    for number in (1, 4):
        (folder / kept[number].name).write_bytes(kept[number].read_bytes())
    (folder / "notes.txt").write_text("no image")
    found = search("--folder", str(folder), "--k", "2")
    assert {match["uri"] for match in found["neighbors"]} == {
        "s3://raw/1.png?versionId=v1", "s3://raw/4.png?versionId=v1",
    }  # fmt: skip
    assert {Path(match["nearest_to"]).name for match in found["neighbors"]} == {"1.png", "4.png"}
    assert found["failures"] == {str(folder / "notes.txt"): "not_an_image"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give --image FILE or --folder DIR"),
        (["--image", "absent.png"], "the file does not exist"),
        (["--folder", "absent"], "the folder does not exist"),
    ],
)
def test_search__mistakes_have_a_remedy(
    kept: list[Path], arguments: list[str], complaint: str
) -> None:
    result = CliRunner().invoke(app, ["search", *arguments])
    assert isinstance(result.exception, UserError)
    assert complaint in str(result.exception)


def test_search__another_model_is_refused(
    kept: list[Path], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    with Database(database_url) as database, database.connection() as connection:
        connection.execute("INSERT INTO model SELECT 'other', name, revision, weights_sha256,"
                           " recipe_id, pooling, dimension FROM model")  # fmt: skip
        connection.execute("UPDATE collection SET space_id = 'other'")
    result = CliRunner().invoke(app, ["search", "--image", str(kept[0])])
    assert isinstance(result.exception, UserError)
    assert "another embedding space" in str(result.exception)


def test_embed_files__one_that_cannot_be_read_is_left_out(photos: list[Path]) -> None:
    gone = photos[0].with_name("gone.png")
    _, embedded, failures = embed_files([*photos[:2], gone], StubEmbedder())
    assert embedded == photos[:2]
    assert failures == {str(gone): "unreadable: No such file or directory"}
