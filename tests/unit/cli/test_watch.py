"""``pixsift watch`` on a real file, with the stub model."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.sources import SourceRule
from pixsift.operations.retrieve import embed_files

Run = Callable[..., tuple[int, str, str]]


def keep(database_url: str, path: Path) -> None:
    """Commit a file as an image of the bucket ``raw``."""
    embedder = StubEmbedder()
    embeddings, _, _ = embed_files([path], embedder)
    with Database(database_url) as database:
        ledger = Ledger(database)
        ledger.ensure_space(embedder.space)
        known = [c for c in ledger.collections() if c.name == "c"]
        collection = known[0] if known else ledger.create_collection(
            "c", sources=[SourceRule("raw")], space_id=embedder.space.space_id, epsilon=0.001
        )  # fmt: skip
        content = path.read_bytes()
        ledger.commit(collection, [
            Judged(ObjectVersion("raw", path.name, "v1"), "embedded",
                   content_sha256=hashlib.sha256(content).digest(),
                   pixel_sha256=hashlib.sha256(b"px" + content).digest(),
                   embedding=embeddings[0].astype(np.float16)),
        ])  # fmt: skip


def photo(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.NEAREST).save(path)
    return path


def test_watch__from_a_file_to_a_page(
    run_pixsift: Run, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    first, second = photo(tmp_path, 1), photo(tmp_path, 2)
    keep(database_url, first)
    like = ["--image", str(first), "--max-distance", "0.01"]
    status, out, err = run_pixsift("watch", "begin", "mine", *like, "--try")
    assert status == 0 and "1 of 1 kept images" in out, err
    status, out, err = run_pixsift("watch", "begin", "mine", *like, "--past")
    assert status == 0 and "1  mine: c within 0.01, 1 mode, 1 hit" in out, err
    keep(database_url, second)
    again = ["--image", str(second), "--max-distance", "2", "--announce", "--json"]
    begun = json.loads(run_pixsift("watch", "begin", "other", *again)[1])
    assert begun["destination"] == "events" and begun["modes"] == [[str(second)]]
    status, out, err = run_pixsift("watch", "past", "other")
    assert status == 0 and "2 new hits among 2 images" in out, err
    assert "1.png" in run_pixsift("watch", "hits", "other")[1]
    assert len(run_pixsift("watch", "list")[1].splitlines()) == 2
    assert "ended (asked)" in run_pixsift("watch", "end", "mine")[1]
    assert len(run_pixsift("watch", "list", "--ended")[1].splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["begin", "x", "--max-distance", "0.1"], "nothing to watch for"),
        (["begin", "x", "--max-distance", "0.1", "--like", "http://x"], "is not an S3 URI"),
        (["hits", "none"], "no open watch 'none'"),
        (["end", "7"], "no watch 7"),
    ],
)
def test_watch__a_mistake_is_one_line(
    run_pixsift: Run, database_url: str, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    status, _, err = run_pixsift("watch", *arguments)
    assert status == 2 and words in err and len(err.splitlines()) == 1
