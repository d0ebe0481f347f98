"""Snapshots on LocalStack: the curator as its own process, conditions that moto ignores."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from localstack_client.session import Session

from faults.small_disk import fill, small_disk
from pixsift.adapters.aws.event_bus import EventBus
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.local.events_stack import EventsStack
from pixsift.adapters.local.localstack import LocalStackPlace
from pixsift.adapters.postgres.database import Database
from pixsift.core.manifest import parse_manifest
from snapshot_world import World, make_world, request

pytestmark = pytest.mark.localstack


@pytest.fixture
def world(
    database_url: str, events_stack: EventsStack, localstack_session: Session
) -> Iterator[World]:
    """Twelve kept images in the stack's raw bucket."""
    with Database(database_url) as database:
        made = make_world(
            database_url, database, localstack_session.client("s3"),
            events_stack.raw_bucket, events_stack.curated_bucket,
        )  # fmt: skip
        made.keep(*(f"robot-{n % 3}/cam a+b/{n:02d} ü.jpg" for n in range(12)))
        yield made


@pytest.fixture
def queue(events_stack: EventsStack) -> SqsQueue:
    """The stack's queue of requests; the environment leads to LocalStack."""
    return SqsQueue(events_stack.snapshot_queue)


@contextmanager
def curator_process(
    world: World, place: LocalStackPlace, stack: EventsStack, **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """``pixsift-curator`` as production runs it."""
    environment = {
        **os.environ, **place.environment(), **stack.environment(),
        "PIXSIFT_DATABASE_URL": world.url, "PIXSIFT_REQUEST_POLL_SECONDS": "1",
        "PIXSIFT_VISIBILITY_TIMEOUT_SECONDS": "2", "PIXSIFT_LEASE_SECONDS": "1",
        "PIXSIFT_COPY_CONCURRENCY": "2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **settings,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", "from pixsift_curator.main import main; main()"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert "Traceback" not in output, output


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def is_published(world: World, request_id: str = "r1") -> bool:
    taken = world.snapshots.request(request_id)
    if taken is None or taken.snapshot_id is None:
        return False
    return world.snapshots.get(taken.snapshot_id).state == "published"


def check_whole(world: World, request_id: str = "r1") -> None:
    """Every image of the list is there with the bytes of the version listed."""
    files = world.published(request_id)
    contents = dict(world.uploaded)
    rows = parse_manifest(files["manifest.parquet"])
    assert rows
    assert {row.path: contents[row.source] for row in rows} == {
        path: content
        for path, content in files.items()
        if path.startswith("data/") and not path.endswith(".parquet")
    }
    assert json.loads(files["snapshot.json"])["images"]["count"] == len(rows)


def test_curator__serves_a_request_from_the_queue(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    queue.send([json.dumps(request()), "{not json", json.dumps(request(request_id="r2", k=1))])
    with curator_process(world, localstack, events_stack):
        wait_until(lambda: is_published(world))
        wait_until(lambda: queue.depth() == (0, 0))
    check_whole(world)
    taken = world.snapshots.request("r2")
    assert taken is not None
    assert taken.error == "invalid_request: k: Extra inputs are not permitted"


def test_copies__are_verified_by_the_checksum_that_s3_computes(world: World) -> None:
    world.serve(request())
    check_whole(world)
    with world.database.connection() as connection:
        checksums = connection.execute("SELECT checksum FROM snapshot_item").fetchall()
    assert all(checksum.startswith("sha256:") for (checksum,) in checksums)


def test_curator__killed_again_and_again_still_publishes_the_whole(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    export = {"formats": ["parquet", "webdataset"]}
    queue.send([json.dumps(request(select={"strategy": "all"}, export=export))])
    for point in ("image_copied:3", "descriptor_written"):
        with curator_process(world, localstack, events_stack, PIXSIFT_FAULT_POINT=point) as process:
            assert process.wait(timeout=40) == -signal.SIGKILL
        assert not is_published(world)
    with curator_process(world, localstack, events_stack):
        wait_until(lambda: is_published(world))
        wait_until(lambda: queue.depth() == (0, 0))
    check_whole(world)
    assert len(world.snapshots.recent()) == 1


def test_curator__sigterm_hands_the_request_back(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    queue.send([json.dumps(request(select={"strategy": "all"}))])
    with curator_process(world, localstack, events_stack, PIXSIFT_COPY_CONCURRENCY="1") as process:
        wait_until(world.snapshots.recent)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    with curator_process(world, localstack, events_stack):
        wait_until(lambda: is_published(world))
        wait_until(lambda: queue.depth() == (0, 0))
    check_whole(world)


def refusal(world: World, request_id: str = "r1") -> str | None:
    """Why a request ended without a snapshot; None while it has not."""
    taken = world.snapshots.request(request_id)
    return None if taken is None else taken.error


def test_curator__a_full_spill_disk_is_outlasted(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    """The request waits, costs no receive, and is served once there is room."""
    with small_disk(2) as disk:
        filler = fill(disk)
        queue.send([json.dumps(request())])
        with curator_process(
            world, localstack, events_stack, PIXSIFT_SPILL_DIR=str(disk)
        ) as process:
            said = read_until(process, "free space there")
            assert "Traceback" not in said
            assert not is_published(world) and refusal(world) is None
            filler.unlink()
            wait_until(lambda: is_published(world), 60)
            wait_until(lambda: queue.depth() == (0, 0))
    check_whole(world)
    assert SqsQueue(events_stack.snapshot_dlq).depth() == (0, 0)


def test_curator__a_disk_that_stays_full_ends_as_an_announced_failure(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    with small_disk(2) as disk:
        fill(disk)
        queue.send([json.dumps(request())])
        with curator_process(
            world, localstack, events_stack, PIXSIFT_SPILL_DIR=str(disk),
            PIXSIFT_REQUEST_GIVE_UP_SECONDS="4",
        ):  # fmt: skip
            wait_until(lambda: refusal(world), 60)
            wait_until(lambda: queue.depth() == (0, 0))
    assert "gave_up" in (refusal(world) or "") and "PIXSIFT_SPILL_DIR" in (refusal(world) or "")
    assert SqsQueue(events_stack.snapshot_dlq).depth() == (0, 0)


def test_curator__drains_the_dead_letters(
    world: World, queue: SqsQueue, localstack: LocalStackPlace, events_stack: EventsStack
) -> None:
    """A request that earlier curators left there is served; anything else is refused."""
    dead = SqsQueue(events_stack.snapshot_dlq)
    dead.send([json.dumps(request()), "{not json"])
    with curator_process(world, localstack, events_stack):
        wait_until(lambda: is_published(world), 60)
        wait_until(lambda: dead.depth() == (0, 0))
    check_whole(world)
    assert any("not JSON" in row["error"] for row in world.snapshots.refused())


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What a process says until it says ``words``."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def test_snapshot__a_version_that_is_gone_fails_it(world: World) -> None:
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket=world.raw, Key=version.key, VersionId=version.version_id)
    world.serve(request(select={"strategy": "all"}))
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("source_missing")
    assert not any(key.endswith("snapshot.json") for key in world.exported())


def test_snapshot__an_overwritten_object_fails_it_where_there_are_no_versions(
    world: World, events_stack: EventsStack
) -> None:
    plain = f"{events_stack.prefix}-plain"
    world.s3.create_bucket(Bucket=plain)
    world.raw = plain
    (version,) = world.keep("plain/a.jpg")
    assert version.version_id.startswith("etag:")
    only = request(select={"strategy": "all"}, where={"prefix": "plain/"})
    world.serve(only)
    check_whole(world)
    world.s3.put_object(Bucket=plain, Key="plain/a.jpg", Body=b"something else")
    world.serve({**only, "request_id": "r2", "name": "again"})
    snapshot = world.snapshots.get(world.snapshot_id("r2"))
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("source_changed")


def test_event_bus__tells_rules_that_listen(
    world: World, localstack_session: Session, events_stack: EventsStack
) -> None:
    bus = localstack_session.client("events")
    sqs = localstack_session.client("sqs")
    name = f"{events_stack.prefix}-news"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    bus.put_rule(Name=name, EventPattern=json.dumps({"source": ["pixsift"]}))
    bus.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn["QueueArn"]}])
    try:
        world.events = EventBus()
        world.serve(request())
        (message,) = SqsQueue(name).receive(1, wait_seconds=10)
        EventBus().announce_all("WatchMatched", [{"id": f"1/{n}"} for n in range(10)])
        matched: set[str | None] = set()
        for _ in range(10):
            found = SqsQueue(name).receive(10, wait_seconds=5)
            matched |= {json.loads(each.body)["detail"].get("id") for each in found}
            if len(matched) == 10:
                break
    finally:
        bus.remove_targets(Rule=name, Ids=["q"])
        bus.delete_rule(Name=name)
    event = json.loads(message.body)
    assert event["detail-type"] == "SnapshotPublished"
    assert event["detail"]["snapshot_id"] == world.snapshot_id()
    assert matched - {None} == {f"1/{n}" for n in range(10)}
