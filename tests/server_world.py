"""A server over a small real ledger, an S3 and SQS of moto, and callers of every role."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import psycopg
from fastapi.testclient import TestClient
from moto import mock_aws

from ledger_world import finding, image, new_collection, turned
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.choose import new_search
from pixsift.api import ROLES, TokenAsk
from pixsift.core.sources import SourceRule
from pixsift.operations.access import create_token
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.events import Watcher
from pixsift.operations.find import Finder, QueryEmbedder
from pixsift.operations.obligations import obligations_of
from pixsift.telemetry import make_logger
from pixsift_server.app import make_app
from pixsift_server.jobs import Jobs
from pixsift_server.parts import AccessRules, Limits, Parts

HOST = "localhost"
THUMBNAIL = b"RIFF....WEBPVP8 a thumbnail"
QUEUES = {
    "ingest": "ingest", "ingest_dlq": "ingest-dlq", "snapshot_requests": "requests",
    "snapshot_requests_dlq": "requests-dlq",
}  # fmt: skip
STRANGE = 'in/"><img src=x onerror=alert(1)>\x1b[31m.jpg'
"""A key that a robot may choose."""


@dataclass(frozen=True, slots=True)
class World:
    """A served ledger with the collection ``c``."""

    parts: Parts
    client: TestClient
    tokens: Mapping[str, str]
    """Role -> its token."""

    def get(self, path: str, role: str = "viewer", **options: Any) -> Any:
        """What a caller of that role is answered, as JSON; the status must be good."""
        found = self.client.get(path, headers=self.as_(role), **options)
        assert found.status_code == 200, found.text
        return found.json()

    def as_(self, role: str) -> dict[str, str]:
        """The header of that role; empty for ``nobody``."""
        return {"Authorization": f"Bearer {self.tokens[role]}"} if role in self.tokens else {}

    def id_of(self, key: str) -> int:
        """The object id of a key of the bucket ``raw``."""
        found = self.get("/v1/images", params={"uri": f"s3://raw/{key}"})
        return int(found["images"][0]["object_id"])


@contextmanager
def new_database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """A migrated database of one's own."""
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fill(ledger: Ledger) -> None:
    """Kept a, b and a strange key; two near a; rejected, failed; attributes by key."""
    collection = new_collection(
        ledger, sources=[SourceRule("raw", exclude=("*.txt",))],
        key_pattern=r"(?P<robot>[^/]+)/.*",
    )  # fmt: skip
    ledger.commit(collection, [
        image("r1/a.jpg", turned(0), thumbnail_key="t/a.webp", quality={"sharpness": 0.9},
              image_facts={"format": "JPEG", "width": 4, "height": 3}),
        image("r2/b.jpg", turned(90), quality={"sharpness": 0.1}),
    ])  # fmt: skip
    ledger.commit(collection, [image("r1/near.jpg", turned(5)), image("r1/nearer.jpg", turned(2))])
    ledger.commit(collection, [image(STRANGE, turned(45))])
    ledger.commit(collection, [finding("r1/dark.jpg", "rejected", "black")])
    ledger.commit(collection, [finding("r2/odd.jpg", "failed", "gave_up")])


def aws() -> None:
    """Buckets and queues as the world needs them; call it inside ``mock_aws``."""
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("raw", "derived", "curated"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="derived", Key="t/a.webp", Body=THUMBNAIL)
    for name in QUEUES.values():
        sqs.create_queue(QueueName=name)


def parts_over(database: Database, **rules: Any) -> Parts:
    """Parts of a server whose callers need a token."""
    options: dict[str, Any] = {"needs_identity": True, "host_names": frozenset({HOST})}
    queues = {name: SqsQueue(queue) for name, queue in QUEUES.items()}
    return Parts(
        database=database,
        objects=S3Objects(),
        queues=queues,
        watcher=Watcher(database, queues),
        jobs=Jobs(make_logger("test", "ERROR")),
        obligations=obligations_of(database, S3Objects(), "curated"),
        derived_bucket="derived",
        curated_bucket="curated",
        access=AccessRules(**{**options, **rules}),
        rejudging=new_search(database, "auto", memory_bytes=1 << 30),
        finder=Finder(database),
        embedder=QueryEmbedder(ModelChoice("stub")),
        limits=Limits(body_bytes=1_000_000, requests_per_second=1e6, burst=10**6),
    )


def client_of(parts: Parts) -> TestClient:
    """A client whose server's bugs are answers, as a caller would see them."""
    return TestClient(
        make_app(parts, make_logger("test", "ERROR")), base_url=f"http://{HOST}",
        raise_server_exceptions=False,
    )  # fmt: skip


@contextmanager
def served(url: str) -> Iterator[World]:
    """The world, and a token for each role."""
    with mock_aws(), Database(url, max_connections=8) as database:
        aws()
        fill(Ledger(database))
        tokens: dict[str, str] = {
            role: create_token(database, TokenAsk(name=role, role=role), actor="test").token
            for role in ROLES
        }
        parts = parts_over(database)
        with client_of(parts) as client:
            yield World(parts, client, tokens)
