"""A bucket of images, a ledger that keeps them, and a curator, for tests of snapshots."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ledger_world import DIMENSION, new_collection
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.s3_stream import StreamWriter
from pixsift.adapters.aws.thread_copier import ThreadCopier
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.sources import SourceRule
from pixsift.operations.export import Exporter, ExportSettings
from pixsift.operations.resolve import resolve
from pixsift.operations.serve_request import RequestMessage, renew_lease
from pixsift.serving import Reaction
from pixsift.telemetry import Telemetry, make_logger
from pixsift_curator.curator import Announcer, Curator
from pixsift_curator.lease import Lease

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOGGER = make_logger("test", "CRITICAL")


@dataclass
class News:
    """An event bus that remembers."""

    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def announce(self, detail_type: str, detail: dict[str, Any]) -> None:
        self.told.append((detail_type, json.loads(json.dumps(detail, default=str))))


@dataclass
class World:
    """One collection ``c`` over the bucket ``raw``, exported to ``curated``."""

    url: str
    database: Database
    s3: "S3Client"
    raw: str
    curated: str
    collection: Collection
    ledger: Ledger
    news: News = field(default_factory=News)
    events: Announcer | None = None
    """Where the curator tells its news; None: ``news``."""
    telemetry: Telemetry = field(default_factory=lambda: Telemetry("test"))
    uploaded: list[tuple[ObjectVersion, bytes]] = field(default_factory=list)

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.database)

    def keep(self, *keys: str, content: bytes | None = None) -> list[ObjectVersion]:
        """Upload images, in one decision transaction; their vectors are far from each other."""
        judged = [self._upload(key, content) for key in keys]
        self.ledger.commit(self.collection, judged)
        return [item.version for item in judged]

    def _upload(self, key: str, content: bytes | None) -> Judged:
        content = content or f"bytes of {key} {len(self.uploaded)}".encode() * 3
        answer = self.s3.put_object(Bucket=self.raw, Key=key, Body=content)
        etag = answer["ETag"].strip('"')
        version = ObjectVersion(self.raw, key, answer.get("VersionId", f"etag:{etag}"))
        self.uploaded.append((version, content))
        vector = np.random.default_rng(len(self.uploaded)).normal(size=DIMENSION)
        return Judged(
            version, "embedded", etag=etag, size_bytes=len(content),
            content_sha256=hashlib.sha256(content).digest(),
            pixel_sha256=hashlib.sha256(b"px" + content).digest(),
            image_facts={"format": "JPEG", "width": 640, "height": 480},
            quality={"sharpness": 0.5},
            embedding=(vector / np.linalg.norm(vector)).astype(np.float16),
        )  # fmt: skip

    def exporter(
        self, *, at_point: Callable[[str], None] = lambda point: None, **settings: Any
    ) -> Exporter:
        chosen = ExportSettings(bucket=self.curated, **settings)
        return Exporter(
            chosen,
            snapshots=self.snapshots,
            copier=ThreadCopier(
                self.curated, concurrency=4, client=self.s3, confirm_after_seconds=0
            ),
            objects=S3Objects(client=self.s3, confirm_after_seconds=0),
            writer=StreamWriter(self.curated, client=self.s3),
            keep_lease=partial(
                Lease,
                partial(renew_lease, self.snapshots, seconds=chosen.lease_seconds),
                seconds=chosen.lease_seconds,
                logger=LOGGER,
            ),
            logger=LOGGER,
            at_point=at_point,
        )

    def curator(self, exporter: Exporter | None = None) -> Curator:
        return Curator(
            snapshots=self.snapshots,
            resolve=partial(resolve, self.database, spill_dir=None),
            exporter=exporter or self.exporter(),
            events=self.events or self.news,
            logger=LOGGER,
            telemetry=self.telemetry,
        )

    def serve(
        self,
        body: dict[str, Any] | str,
        exporter: Exporter | None = None,
        *,
        message_id: str = "m-1",
    ) -> Reaction:
        """Let a curator serve one message."""
        text = body if isinstance(body, str) else json.dumps(body)
        message = RequestMessage("snapshot-requests", message_id, text)
        return self.curator(exporter).serve(message, threading.Event())

    def snapshot_id(self, request_id: str = "r1") -> str:
        taken = self.snapshots.request(request_id)
        assert taken is not None
        assert taken.snapshot_id is not None, taken.error
        return taken.snapshot_id

    def exported(self, prefix: str = "") -> dict[str, bytes]:
        """Key -> bytes of everything in the curated bucket."""
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.curated, Prefix=prefix
        ):
            for entry in page.get("Contents", []):
                body = self.s3.get_object(Bucket=self.curated, Key=entry["Key"])["Body"]
                found[entry["Key"]] = body.read()
        return found

    def published(self, request_id: str = "r1") -> dict[str, bytes]:
        """Path -> bytes of a snapshot, which must have been published."""
        snapshot = self.snapshots.get(self.snapshot_id(request_id))
        assert snapshot.state == "published", snapshot.error
        return {
            key.removeprefix(snapshot.prefix): content
            for key, content in self.exported(snapshot.prefix).items()
        }


def make_world(url: str, database: Database, s3: "S3Client", raw: str, curated: str) -> World:
    """A world over buckets that exist; ``raw`` must be versioned for versions to count."""
    ledger = Ledger(database)
    collection = new_collection(ledger, sources=[SourceRule(raw)])
    return World(url, database, s3, raw, curated, collection, ledger)


def request(**changes: Any) -> dict[str, Any]:
    """A request for three images of ``c``."""
    return {
        "schema": "pixsift.snapshot-request/1", "request_id": "r1", "collection": "c",
        "name": "set", "select": {"strategy": "k_center", "k": 3, "seed": 7}, **changes,
    }  # fmt: skip


def images_in(files: dict[str, bytes]) -> dict[str, bytes]:
    """The images among the files of a snapshot."""
    return {
        path: content
        for path, content in files.items()
        if path.startswith("data/") and not path.endswith(".parquet")
    }


def refusal(world: World, request_id: str = "r1") -> str:
    """Why a request led to no snapshot."""
    taken = world.snapshots.request(request_id)
    assert taken is not None
    assert taken.snapshot_id is None
    assert taken.error is not None
    assert world.news.told[-1][0] == "SnapshotFailed"
    assert world.news.told[-1][1]["reason"] == taken.error
    return taken.error


class KilledError(BaseException):
    """Stands for a kill -9: no handler of ours runs for it, and the lease is not given back."""


class Kill:
    """Raises at the n-th passage of a point."""

    def __init__(self, point: str, count: int = 1) -> None:
        self.point, self.left = point, count

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise KilledError(point)


def expire_leases(world: World) -> None:
    """What time does."""
    with world.database.connection() as connection:
        connection.execute("UPDATE snapshot SET lease_until = now() - interval '1 second'")
