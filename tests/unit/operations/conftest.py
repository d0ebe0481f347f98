"""A ledger with a collection ``c`` over the bucket ``raw``, and an ingest queue."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from ledger_world import new_collection
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, max_connections=4) as opened:
        yield opened


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """With one collection, ``c``."""
    made = Ledger(database)
    new_collection(made)
    return made


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqsQueue]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        boto3.client("sqs").create_queue(QueueName="ingest")
        yield SqsQueue("ingest")
