"""Kills, stops and lost leases: another curator finishes the snapshot."""

import hashlib
import json
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from pixsift.adapters.ledger.snapshots import LeaseLostError
from pixsift.core.manifest import parse_manifest
from pixsift.operations.serve_request import RequestMessage
from snapshot_world import Kill, KilledError, World, expire_leases, images_in, request

KILLS = [
    ("claimed", 1), ("image_copied", 1), ("image_copied", 4), ("copied", 1), ("file_written", 1),
    ("file_written", 3), ("described", 1), ("descriptor_written", 1),
]  # fmt: skip


@pytest.mark.parametrize(("point", "count"), KILLS)
def test_serve__killed_anywhere_resumes_to_the_whole(world: World, point: str, count: int) -> None:
    chosen = request(select={"strategy": "k_center", "k": 6})
    with pytest.raises(KilledError):
        world.serve(chosen, world.exporter(at_point=Kill(point, count)))
    snapshot = world.snapshots.get(world.snapshot_id())
    exported = world.exported(snapshot.prefix)
    assert (snapshot.prefix + "snapshot.json" in exported) == (point == "descriptor_written")
    expire_leases(world)
    assert world.curator().resume(threading.Event())
    files = world.published()
    contents = dict(world.uploaded)
    rows = parse_manifest(files["manifest.parquet"])
    assert len(rows) == 6
    assert images_in(files) == {row.path: contents[row.source] for row in rows}
    listed = {file["path"]: file["sha256"] for file in json.loads(files["snapshot.json"])["files"]}
    assert len(listed) == 4
    assert not world.curator().resume(threading.Event())
    assert [kind for kind, _ in world.news.told] == ["SnapshotPublished"]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(20))
def test_serve__killed_over_and_over_still_publishes_the_whole(world: World, seed: int) -> None:
    rng = random.Random(seed)
    points = [point for point, _ in KILLS] + ["shard_written"]
    body = request(
        select={"strategy": "k_center", "k": 9, "seed": seed}, request_id=f"full-{seed}",
        split={"train": 0.5, "val": 0.5}, export={"formats": ["parquet", "webdataset"]},
    )  # fmt: skip
    for _ in range(25):
        kill = Kill(rng.choice(points), rng.randint(1, 5))
        with suppress(KilledError):
            world.serve(body, world.exporter(at_point=kill, shard_bytes=100))
        expire_leases(world)
    world.serve(body)
    files = world.published(f"full-{seed}")
    contents = dict(world.uploaded)
    rows = parse_manifest(files["manifest.parquet"])
    assert len(rows) == 9
    assert images_in(files) == {row.path: contents[row.source] for row in rows}
    described = json.loads(files["snapshot.json"])["files"]
    assert {file["path"]: file["sha256"] for file in described} == {
        path: hashlib.sha256(content).hexdigest()
        for path, content in files.items()
        if path not in images_in(files) and path != "snapshot.json"
    }
    assert [kind for kind, _ in world.news.told] == ["SnapshotPublished"]


def test_serve__copied_images_are_not_copied_again(world: World) -> None:
    with pytest.raises(KilledError):
        world.serve(request(select={"strategy": "all"}), world.exporter(at_point=Kill("copied")))
    expire_leases(world)
    prefix = world.snapshots.get(world.snapshot_id()).prefix
    for key in world.exported(prefix):
        world.s3.delete_object(Bucket="curated", Key=key)
    world.curator().resume(threading.Event())
    assert not images_in(world.published())  # they would be there if they had been copied again


def test_serve__a_stop_hands_the_work_on(world: World) -> None:
    stop = threading.Event()

    def stop_after_first(point: str) -> None:
        if point == "image_copied":
            stop.set()

    curator = world.curator(world.exporter(at_point=stop_after_first))
    message = RequestMessage("q", "m", json.dumps(request(select={"strategy": "all"})))
    assert curator.serve(message, stop) == "stopped"
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "copying"
    assert snapshot.copied > 0
    assert world.curator().serve(message, threading.Event()) == "done"
    assert len(images_in(world.published())) == 12


def test_export__only_one_at_a_time_and_a_sleeper_writes_nothing(world: World) -> None:
    with pytest.raises(KilledError):
        world.serve(request(), world.exporter(at_point=Kill("claimed")))
    snapshot_id = world.snapshot_id()
    assert world.exporter().run(snapshot_id, threading.Event()) == "busy"
    asleep = world.snapshots.get(snapshot_id).fence
    expire_leases(world)
    assert world.exporter().run(snapshot_id, threading.Event()) == "published"
    late: list[Callable[[], None]] = [
        lambda: world.snapshots.mark_copied(snapshot_id, asleep, {0: "sha256:00"}),
        lambda: world.snapshots.fail(snapshot_id, asleep, error="late"),
        lambda: world.snapshots.publish(snapshot_id, asleep, location="late"),
        lambda: world.snapshots.renew(snapshot_id, asleep, lease_seconds=9),
    ]
    for write in late:
        with pytest.raises(LeaseLostError):
            write()
    assert world.snapshots.get(snapshot_id).state == "published"


def test_export__a_lost_lease_stops_the_exporter(world: World) -> None:
    def taken_over(point: str) -> None:
        if point == "copied":
            with world.database.connection() as connection:
                connection.execute("UPDATE snapshot SET fence = fence + 1")

    with pytest.raises(LeaseLostError):
        world.serve(request(), world.exporter(at_point=taken_over))
    assert "snapshot.json" not in " ".join(world.exported())


def test_export__an_image_erased_on_the_way_does_not_stay_behind(world: World) -> None:
    arrived: list[str] = []

    def erase(point: str) -> None:
        if point == "copied":
            item = world.snapshots.items(world.snapshot_id(), everything=True)[1]
            world.snapshots.redact(world.snapshot_id(), item.object_id)
            # Its copy was deleted, and then a copy that was in flight arrived.
            arrived.append(world.snapshots.get(world.snapshot_id()).prefix + item.destination_key)
            world.s3.put_object(Bucket="curated", Key=arrived[0], Body=b"late")

    with pytest.raises(LeaseLostError):
        world.serve(request(), world.exporter(at_point=erase))
    assert arrived
    assert arrived[0] not in world.exported()
    assert world.serve(request()) == "done"
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("source_erased")
    assert world.news.told[-1][0] == "SnapshotFailed"
