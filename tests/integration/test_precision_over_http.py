"""Precision of a search by a photograph over HTTP: that of the bare embedder, on real classes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage
from pixsift.core.outcomes import Judged
from pixsift.core.retrieval import unit
from pixsift.core.sources import SourceRule
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.find import QueryEmbedder
from server_world import aws, client_of, new_database, parts_over

MODEL = "efficientnet-lite0"
RANKS = (1, 5, 10)


@pytest.fixture
def files(real_images: Path, request: pytest.FixtureRequest) -> list[Path]:
    """Every n-th clothing photograph."""
    every = int(getattr(request, "param", 1))
    return sorted((real_images / "photos" / "clothing").glob("*/*.jpg"))[::every]


@pytest.fixture
def database(
    postgres: EmbeddedPostgres, template_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with new_database(postgres, template_database) as url, Database(url, max_connections=6) as made:
        yield made


def keep(database: Database, files: list[Path]) -> NDArray[np.float64]:
    """Every file kept as ``s3://raw/<class>/<name>``; its vectors, as stored."""
    embedder = load_embedder(MODEL, device="cpu")
    with DecoderPool(embedder.input_side) as decoder:
        decoded = decoder.decode([path.read_bytes() for path in files])
    sound = [image for image in decoded if isinstance(image, DecodedImage)]
    assert len(sound) == len(files)
    parts = [embedder.embed([image.model_input for image in sound[start : start + 16]]).embeddings
             for start in range(0, len(sound), 16)]  # fmt: skip
    rows = np.concatenate(parts).astype(np.float16)
    ledger = Ledger(database)
    ledger.ensure_space(embedder.space)
    collection = ledger.create_collection(
        "c", sources=[SourceRule("raw")], space_id=embedder.space.space_id, epsilon=0.0
    )
    ledger.commit(collection, [
        Judged(
            ObjectVersion("raw", f"{path.parent.name}/{path.name}", "v1"), "embedded",
            content_sha256=hashlib.sha256(path.read_bytes()).digest(),
            pixel_sha256=image.pixel_sha256, embedding=row,
        )
        for path, image, row in zip(files, sound, rows, strict=True)
    ])  # fmt: skip
    return unit(rows.astype(np.float64))


@pytest.mark.parametrize(
    ("files", "asked"),
    [(12, 5), pytest.param(1, 341, marks=pytest.mark.full)],
    indirect=["files"],
)
def test_search_over_http__finds_as_well_as_the_bare_embedder(
    database: Database, files: list[Path], asked: int
) -> None:
    from moto import mock_aws

    rows = keep(database, files)
    classes = np.array([path.parent.name for path in files])
    cosines = np.round(rows @ rows.T, 9)
    np.fill_diagonal(cosines, -np.inf)
    chosen = np.linspace(0, len(files) - 1, min(asked, len(files))).astype(int)
    with mock_aws(), QueryEmbedder(ModelChoice(MODEL, device="cpu")) as embedder:
        aws()
        parts = parts_over(database, needs_identity=False)
        object.__setattr__(parts, "embedder", embedder)
        found: list[list[str]] = []
        with client_of(parts) as client:
            for row in chosen.tolist():
                sent = [("files", (files[row].name, files[row].read_bytes(), "image/jpeg"))]
                answer = client.post("/v1/search/upload", files=sent, data={"ask": '{"k": 10}'})
                assert answer.status_code == 200, answer.text
                found.append([hit["uri"].split("/")[3] for hit in answer.json()["hits"]])
    for k in RANKS:
        bare = [
            float((classes[np.argsort(-cosines[row], kind="stable")[:k]] == classes[row]).mean())
            for row in chosen.tolist()
        ]
        over_http = [
            sum(name == classes[row] for name in names[:k]) / k
            for row, names in zip(chosen.tolist(), found, strict=True)
        ]
        assert over_http == pytest.approx(bare), k
    assert any(classes[r] in names for r, names in zip(chosen, found, strict=True))
