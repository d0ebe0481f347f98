"""An erasure in the middle of a backfill wins, at whichever named point it comes."""

import hashlib
import threading
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from faults.harness import running
from faults.images import jpeg
from faults.stub_aws import RAW, StubAws
from invariants import violations
from ledger_world import rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.postgres.database import Database
from pixsift.messages import Backfill, BackfillObject
from pixsift.operations.erase import new_erasure
from pixsift_consumer.faults import POINTS, FaultPoints

SECRET = jpeg(7)
_EVERY_TIME = ("fetched", "lock_held", "committed")
"""The others run in ``make test-full``."""


class EraseAt(FaultPoints):
    """Erases the secret the first time that a point is passed after ``arm``.

    The erasure runs in a thread and is given half a second: under the lock it has to wait for it.
    """

    def __init__(self, point: str) -> None:
        super().__init__()
        self._at = point
        self._armed: list[tuple[StubAws, str]] = []
        self.thread: threading.Thread | None = None

    def arm(self, aws: StubAws, url: str) -> None:
        self._armed.append((aws, url))

    def passed(self, point: str) -> None:
        if point == self._at and self._armed:
            self.thread = threading.Thread(target=_erase, args=self._armed.pop())
            self.thread.start()
            self.thread.join(0.5)


def _erase(aws: StubAws, url: str) -> None:
    with patch.dict("os.environ", aws.environment()), Database(url) as database:
        eraser = new_erasure(
            database, S3Objects(), derived_bucket="pixsift-derived",
            curated_bucket="pixsift-curated", journal_bucket="pixsift-curated",
        )  # fmt: skip
        eraser.erase(eraser.find(RAW, "secret.jpg", None), reason="ticket 7")


@pytest.fixture
def aws() -> Iterator[StubAws]:
    with StubAws() as made:
        yield made


@pytest.mark.parametrize(
    "point",
    [pytest.param(p, marks=[] if p in _EVERY_TIME else [pytest.mark.full]) for p in POINTS],
)
def test_backfill__an_erasure_at_any_point_leaves_nothing(
    aws: StubAws, database_url: str, point: str
) -> None:
    faults = EraseAt(point)
    bodies = {"a.jpg": jpeg(1), "secret.jpg": SECRET, "b.jpg": jpeg(2)}
    with running(aws, database_url) as consumer:
        objects = [
            BackfillObject(key=key, version_id=aws.raw.put(key, body).version_id)
            for key, body in bodies.items()
        ]
        consumer.wait_until_drained()
    # A second collection over the same objects, which only a backfill judges.
    with running(
        aws, database_url, faults=faults, collections={"test": {}, "late": {}}
    ) as consumer:
        faults.arm(aws, database_url)
        aws.ingest.send(Backfill(bucket=RAW, objects=objects).model_dump_json(by_alias=True))
        consumer.wait_until_drained()
        assert faults.thread is not None, "the point was not passed"
        faults.thread.join(60)
        for name in ("test", "late"):
            found = {key.split("@")[0]: value for key, value in consumer.outcomes(name).items()}
            assert found.get("secret.jpg", ("gone", "erased")) == ("gone", "erased")
            assert found["a.jpg"] == found["b.jpg"] == ("kept", "new")
            assert violations(database_url, name) == []
    digest = hashlib.sha256(SECRET).digest()
    for table in ("object", "representative"):
        held = rows(database_url, f"SELECT count(*) FROM {table} WHERE content_sha256 = %s", digest)
        assert held == [(0,)], table
    assert rows(database_url, "SELECT count(*) FROM embedding") == [(2,)]
    left = [key for key, versions in aws.derived.keys.items() if versions]
    assert len(left) == 2, "the thumbnail of the erased image is there again"
