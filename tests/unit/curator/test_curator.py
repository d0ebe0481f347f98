"""A request from message to published snapshot, on moto's S3 and a real ledger."""

import io
import json
from collections.abc import Iterator

import boto3
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from pixsift.adapters.postgres import Database
from pixsift.core.manifest import parse_manifest
from snapshot_world import World, make_world, request


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Twelve kept images in a versioned bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), Database(database_url) as database:
        s3 = boto3.client("s3")
        for bucket in ("raw", "curated"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        made = make_world(database_url, database, s3, "raw", "curated")
        for number in range(12):
            made.keep(f"robot-{number % 3}/cam/{number:02d}.jpg")
        yield made


def test_serve__publishes_what_was_chosen(world: World) -> None:
    assert world.serve(request()) == "done"
    files = world.published()
    rows = parse_manifest(files["manifest.parquet"])
    contents = dict(world.uploaded)
    assert [row.rank for row in rows] == [0, 1, 2]
    for row in rows:
        assert files[row.path] == contents[row.source]
    descriptor = json.loads(files["snapshot.json"])
    assert descriptor["images"]["count"] == 3
    assert descriptor["at_seq"] == 12
    assert {file["path"] for file in descriptor["files"]} == {
        "manifest.parquet", "duplicates.parquet", "croissant.json", "data/train/metadata.parquet",
    }  # fmt: skip
    metadata = pq.read_table(io.BytesIO(files["data/train/metadata.parquet"]))
    assert {f"data/train/{name}" for name in metadata["file_name"].to_pylist()} == {
        row.path for row in rows
    }
    kind, detail = world.news.told[0]
    assert kind == "SnapshotPublished"
    assert detail["request_ids"] == ["r1"]
    assert detail["location"] == f"s3://curated/set/{detail['snapshot_id']}/"
