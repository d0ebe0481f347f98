"""Watches at a real consumer: one hit for each image, under redelivery, failures and kill -9."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from faults.harness import running
from faults.images import jpeg
from faults.scene import Scene, scene
from faults.stub_aws import StubAws
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.api import Example
from pixsift.api_watches import Watch, WatchAsk
from pixsift.errors import TransientError
from pixsift.operations import watch


def hits(url: str, watch_id: int) -> list[tuple[str, str]]:
    """Key and outcome of every hit."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT o.key, h.outcome FROM watch_hit h JOIN object o USING (object_id)"
            " WHERE h.watch_id = %s ORDER BY 1", [watch_id],
        ).fetchall()  # fmt: skip
    return [(str(key), str(outcome)) for key, outcome in rows]


def everything(database: Database, **more: Any) -> Watch:
    """A watch that every kept image matches."""
    collection = Collections(database).collection("test")
    with database.connection() as connection:
        row = connection.execute("SELECT min(object_id) FROM representative").fetchone()
    assert row is not None
    ask = WatchAsk(name="all", collection=collection.name, max_distance=2,
                   examples=[Example(object_id=row[0])], **more)  # fmt: skip
    return watch.begin(database, ask, actor="test")


def test_consumer__matches_arrivals_and_announces_what_the_bus_at_first_refused(
    database_url: str,
) -> None:
    sent: list[Mapping[str, Any]] = []
    refused = threading.Event()

    def send(kind: str, details: Sequence[Mapping[str, Any]]) -> None:
        if not refused.is_set():
            refused.set()
            raise TransientError("the bus is busy")
        sent.extend(details)

    with StubAws() as aws, running(aws, database_url, send=send) as consumer:
        aws.raw.put("example.jpg", jpeg(0))
        consumer.wait_until_drained()
        begun = everything(consumer.ledger._database, destination="events")
        versions = [(f"{n}.jpg", aws.raw.put(f"{n}.jpg", jpeg(n))) for n in range(1, 13)]
        consumer.wait_until_drained()
        aws.raw.put("copy.jpg", jpeg(3))  # afterwards: of two at once, either may be kept
        consumer.wait_until_drained()
        for key, version in versions:
            for _ in range(3):
                aws.ingest.send(aws.raw.event("ObjectCreated:Put", key, version))
        consumer.wait_until_drained()
        expected = sorted((f"{n}.jpg", "kept") for n in range(1, 13))
        assert hits(database_url, begun.watch_id) == expected
        consumer.wait(refused.is_set)  # its hits stay claimed; then that claim ends
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE watch_hit SET claimed_until = NULL")
        consumer.wait(lambda: len({each["id"] for each in sent}) == 12)
        assert len({each["hit_id"] for each in sent}) == 12
        watch.end(consumer.ledger._database, begun.watch_id)
        aws.raw.put("late.jpg", jpeg(99))
        consumer.wait_until_drained()
        assert hits(database_url, begun.watch_id) == expected


@contextmanager
def watched(database_url: str, folder: Path) -> Iterator[tuple[Scene, Watch]]:
    """A scene with a first image and a watch for everything, duplicates as well."""
    with scene(database_url, folder, max_receive_count=1000) as place:
        place.put("first", jpeg(77_000), "kept")
        place.settle()
        with Database(database_url) as database:
            yield place, everything(database, duplicates=True)


def killed(database_url: str, folder: Path, points: Sequence[str]) -> None:
    with watched(database_url, folder) as (place, begun):
        for number, point in enumerate(points):
            place.put_mixture(number)
            with place.consumer(PIXSIFT_FAULT_POINT=f"{point}:1") as consumer:
                assert consumer.process.wait(90) == -9, consumer.log_text()
        place.settle()
        with psycopg.connect(database_url) as connection:
            expected = connection.execute(
                "SELECT DISTINCT o.key FROM decision d JOIN object o USING (object_id)"
                " WHERE d.outcome IN ('kept', 'duplicate') AND d.valid_from_seq > %s"
                " ORDER BY 1", [begun.from_seq],
            ).fetchall()  # fmt: skip
        found = hits(database_url, begun.watch_id)
        assert [key for key, _ in found] == [key for (key,) in expected]
        assert len(found) >= 6 * len(points)


def test_consumer__killed_around_the_commit_leaves_one_hit_for_each_image(
    database_url: str, tmp_path: Path
) -> None:
    killed(database_url, tmp_path, ["inserted", "committed"])


@pytest.mark.full
def test_consumer__killed_often_leaves_one_hit_for_each_image(
    database_url: str, tmp_path: Path
) -> None:
    killed(database_url, tmp_path, ["planned", "lock_held", "inserted", "committed", "acked"] * 3)
