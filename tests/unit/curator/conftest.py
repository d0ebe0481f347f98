"""The world of the curator's tests."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.postgres.database import Database
from snapshot_world import World, make_world


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Twelve kept images in a versioned bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), Database(database_url, max_connections=8) as database:
        s3 = boto3.client("s3")
        for bucket in ("raw", "curated"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        made = make_world(database_url, database, s3, "raw", "curated")
        for start in (0, 4, 8):  # seq 1, 2, 3
            made.keep(*(f"robot-{n % 3}/cam/{n:02d}.jpg" for n in range(start, start + 4)))
        yield made
