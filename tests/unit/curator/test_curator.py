"""A request from message to published snapshot, on moto's S3 and a real ledger."""

import hashlib
import io
import json
import random
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from ledger_world import finding
from pixsift.adapters.ledger.snapshots import LeaseLostError
from pixsift.adapters.local.events_stack import events_template
from pixsift.adapters.postgres.database import Database
from pixsift.core.manifest import parse_duplicates, parse_manifest
from pixsift.errors import DependencyDownError, TransientError
from pixsift.operations.serve_request import RequestMessage
from snapshot_world import World, make_world, request

KILLS = [
    ("claimed", 1), ("image_copied", 1), ("image_copied", 4), ("copied", 1), ("file_written", 1),
    ("file_written", 3), ("described", 1), ("descriptor_written", 1),
]  # fmt: skip


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


def images(files: dict[str, bytes]) -> dict[str, bytes]:
    """The images among the files of a snapshot."""
    return {
        path: content
        for path, content in files.items()
        if path.startswith("data/") and not path.endswith(".parquet")
    }


def expire_leases(world: World) -> None:
    """What time does."""
    with world.database.connection() as connection:
        connection.execute("UPDATE snapshot SET lease_until = now() - interval '1 second'")


def refusal(world: World, request_id: str = "r1") -> str:
    """Why a request led to no snapshot."""
    taken = world.snapshots.request(request_id)
    assert taken is not None
    assert taken.snapshot_id is None
    assert taken.error is not None
    assert world.news.told[-1][0] == "SnapshotFailed"
    assert world.news.told[-1][1]["reason"] == taken.error
    return taken.error


# -- what is published ----------------------------------------------------------------------


def test_serve__publishes_what_was_chosen(world: World) -> None:
    assert world.serve(request()) == "done"
    files = world.published()
    rows = parse_manifest(files["manifest.parquet"])
    contents = dict(world.uploaded)
    assert [row.rank for row in rows] == [0, 1, 2]
    assert images(files) == {row.path: contents[row.source] for row in rows}
    descriptor = json.loads(files["snapshot.json"])
    assert descriptor["images"]["count"] == 3
    assert descriptor["at_seq"] == 3
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


def test_serve__says_whom_the_chosen_stand_for(world: World) -> None:
    version, content = world.uploaded[0]
    world.keep("robot-9/cam/again.jpg", content=content)
    world.serve(request(select={"strategy": "all"}))
    files = world.published()
    (duplicate,) = parse_duplicates(files["duplicates.parquet"])
    rows = parse_manifest(files["manifest.parquet"])
    assert duplicate.source.key == "robot-9/cam/again.jpg"
    assert duplicate.reason == "content"
    assert rows[duplicate.representative_rank].source == version
    assert rows[duplicate.representative_rank].duplicates == 1
    assert len(rows) == 12


def test_serve__two_versions_of_a_key_go_to_two_places(world: World) -> None:
    (again,) = world.keep("robot-0/cam/00.jpg", content=b"another image under the same key")
    world.serve(request(select={"strategy": "all"}))
    files = world.published()
    assert len(images(files)) == 13
    assert f"data/train/robot-0/cam/00.{again.version_id}.jpg" in files


def test_serve__a_reference_snapshot_holds_no_bytes(world: World) -> None:
    world.serve(request(export={"mode": "reference"}))
    files = world.published()
    assert not images(files)
    assert len(parse_manifest(files["manifest.parquet"])) == 3


def test_serve__webdataset_shards_are_cut_and_repeat(world: World) -> None:
    small = world.exporter(shard_bytes=120)
    export = {"formats": ["parquet", "webdataset"]}
    world.serve(request(select={"strategy": "all"}, export=export), small)
    files = world.published()
    shards = {path: content for path, content in files.items() if path.startswith("webdataset/")}
    assert len(shards) > 2
    contents = {row.rank: dict(world.uploaded)[row.source]
                for row in parse_manifest(files["manifest.parquet"])}  # fmt: skip
    found = {}
    for content in shards.values():
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                assert member.mtime == 0
                stream = tar.extractfile(member)
                assert stream is not None
                if member.name.endswith(".jpg"):
                    found[int(member.name.removesuffix(".jpg"))] = stream.read()
                else:
                    assert json.loads(stream.read())["split"] == "train"
    assert found == contents


def test_serve__where_and_past_points_choose_from_less(world: World) -> None:
    world.serve(request(at_seq=1, select={"strategy": "all"}, where={"prefix": "robot-0/"}))
    rows = parse_manifest(world.published()["manifest.parquet"])
    assert {row.source.key for row in rows} == {"robot-0/cam/00.jpg", "robot-0/cam/03.jpg"}


def test_serve__grows_from_an_earlier_snapshot(world: World) -> None:
    world.serve(request())
    grown = {"strategy": "k_center", "k": 4, "preselected_snapshot": "set"}
    world.serve(request(request_id="r2", name="more", select=grown))
    first = {row.source for row in parse_manifest(world.published()["manifest.parquet"])}
    second = {row.source for row in parse_manifest(world.published("r2")["manifest.parquet"])}
    assert len(second) == 4
    assert not first & second


def test_serve__grown_in_the_second_version_it_keeps_the_splits_of_groups(world: World) -> None:
    keys = [f"r{i % 8}/{i:02d}.jpg" for i in range(40)]
    world.keep(*keys)
    with world.database.connection() as connection:
        connection.execute(
            "INSERT INTO attribute SELECT %s, object_id, 'key',"
            " jsonb_build_object('run', split_part(key, '/', 1)), 1 FROM object",
            (world.collection.collection_id,),
        )
    second = {
        "schema": "pixsift.snapshot-request/2",
        "split": {"train": 0.5, "test": 0.5, "group_by": ["run"]},
    }
    world.serve(request(select={"k": 14}, **second))
    grown = {"k": 20, "preselected_snapshot": "set", "seed": 5}
    world.serve(request(select=grown, request_id="r2", name="grown", **second))
    homes: dict[str, set[str]] = {}
    for name in ("r1", "r2"):
        for row in world.snapshots.manifest_rows(world.snapshot_id(name)):
            homes.setdefault(row.source.key.split("/")[0], set()).add(row.split)
    assert len(homes) >= 8
    assert all(len(splits) == 1 for splits in homes.values())
    first = {row.source for row in world.snapshots.manifest_rows(world.snapshot_id("r1"))}
    again = {row.source for row in world.snapshots.manifest_rows(world.snapshot_id("r2"))}
    assert not first & again


def test_serve__auto_is_resolved_before_the_hash_and_says_why(world: World) -> None:
    world.keep(*(f"{i:02d}.jpg" for i in range(20)))
    second = {"schema": "pixsift.snapshot-request/2"}
    world.serve(request(select={"k": 3}, **second))
    world.serve(request(select={"k": 3, "strategy": "typical"}, request_id="r2", **second))
    assert world.snapshot_id("r1") == world.snapshot_id("r2")
    report = world.snapshots.get(world.snapshot_id()).report
    assert report["strategy"] == "typical"
    assert "3 of 32 images (9.38 %)" in report["auto"]


def test_serve__grows_from_no_snapshot_that_failed(world: World) -> None:
    world.serve(request())
    with world.database.connection() as connection:
        connection.execute("UPDATE snapshot SET state = 'failed', error = 'no room'")
    grown = {"strategy": "k_center", "k": 4, "preselected_snapshot": "set"}
    world.serve(request(request_id="r2", name="more", select=grown))
    assert "snapshot 'set' failed and was never published: no room" in refusal(world, "r2")


def test_serve__grows_from_a_snapshot_with_an_erased_image(world: World) -> None:
    world.serve(request())
    with world.database.connection() as connection:
        connection.execute(
            "WITH gone AS (UPDATE object SET erased_at = now() WHERE object_id ="
            " (SELECT object_id FROM snapshot_item ORDER BY rank LIMIT 1) RETURNING pixel_sha256)"
            " DELETE FROM embedding e USING gone WHERE e.pixel_sha256 = gone.pixel_sha256"
        )
    grown = {"strategy": "k_center", "k": 4, "preselected_snapshot": "set"}
    world.serve(request(request_id="r2", name="more", select=grown))
    assert len(images(world.published("r2"))) == 4


# -- repetitions ----------------------------------------------------------------------------


def test_serve__the_same_request_again_changes_nothing(world: World) -> None:
    world.serve(request())
    before = world.exported()
    world.keep("robot-0/cam/late.jpg")  # "now" was pinned by the first delivery
    world.serve(request())
    assert world.exported() == before
    assert len(world.snapshots.recent()) == 1
    assert [kind for kind, _ in world.news.told] == ["SnapshotPublished"]


def test_serve__the_same_spec_at_the_same_point_is_the_same_snapshot(world: World) -> None:
    world.serve(request())
    world.serve(request(request_id="r2"))
    assert world.snapshot_id("r1") == world.snapshot_id("r2")
    world.keep("robot-0/cam/late.jpg")
    world.serve(request(request_id="r3"))
    assert world.snapshot_id("r3") != world.snapshot_id("r1")
    world.serve(request(request_id="r4", select={"strategy": "k_center", "k": 3, "seed": 8}))
    assert world.snapshot_id("r4") != world.snapshot_id("r3")


def test_serve__fifty_at_once_give_one_snapshot(world: World) -> None:
    with ThreadPoolExecutor(10) as threads:
        reactions = list(threads.map(
            lambda number: world.serve(request(request_id=f"p{number % 5}")), range(50)
        ))  # fmt: skip
    assert set(reactions) == {"done"}
    assert len({world.snapshot_id(f"p{number}") for number in range(5)}) == 1
    assert len(world.snapshots.recent()) == 1
    rows = parse_manifest(world.published("p0")["manifest.parquet"])
    assert len(images(world.published("p0"))) == len(rows) == 3
    assert sum(kind == "SnapshotPublished" for kind, _ in world.news.told) >= 1


# -- kills and leases -----------------------------------------------------------------------


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
    assert images(files) == {row.path: contents[row.source] for row in rows}
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
    assert images(files) == {row.path: contents[row.source] for row in rows}
    described = json.loads(files["snapshot.json"])["files"]
    assert {file["path"]: file["sha256"] for file in described} == {
        path: hashlib.sha256(content).hexdigest()
        for path, content in files.items()
        if path not in images(files) and path != "snapshot.json"
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
    assert not images(world.published())  # they would be there if they had been copied again


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
    assert len(images(world.published())) == 12


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


# -- failures -------------------------------------------------------------------------------


def test_serve__a_source_that_is_gone_fails_the_snapshot(world: World) -> None:
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket="raw", Key=version.key, VersionId=version.version_id)
    assert world.serve(request(select={"strategy": "all"})) == "done"
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("source_missing: ")
    assert version.uri in snapshot.error
    assert not any(key.endswith("snapshot.json") for key in world.exported())
    kind, detail = world.news.told[-1]
    assert (kind, detail["reason"]) == ("SnapshotFailed", snapshot.error)


def test_serve__a_delete_marker_does_not_hide_the_version(world: World) -> None:
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket="raw", Key=version.key)
    world.serve(request(select={"strategy": "all"}))
    assert len(images(world.published())) == 12


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"collection": "nowhere"}, "unknown_collection: 'nowhere' does not exist"),
    ({"at_seq": 4}, "at_seq 4 is in the future: collection 'c' is at 3"),
    ({"select": {"strategy": "k_center", "k": 13}}, "cannot choose 13 of 12 candidates"),
    ({"where": {"prefix": "nothing/"}}, "no image matches the filter"),
    ({"select": {"strategy": "random", "k": 1, "preselected_snapshot": "x"}},
     "snapshot 'x' does not exist"),
    ({"select": {"strategy": "k_center"}}, "invalid_request: select: "),
    ({"select": {"strategy": "all", "k": 3}}, "strategy 'all' takes every image: remove k"),
    ({"select": {"k": 1, "clusters": 2}}, "clusters and cluster_share need strategy 'balanced'"),
    ({"select": {"k": 1, "cluster_share": "sqrt"}}, "clusters and cluster_share need strategy"),
    ({"select": {"k": 1, "dissimilar_to": ["s3://a/b"]}}, "need strategy 'similar'"),
    ({"select": {"strategy": "all", "quota": {"by": "a"}}},
     "strategy 'all' cannot be combined with a quota"),
    ({"select": {"k": 1, "strategy": "stratified", "quota": {"by": "a", "inside": "similar"}}},
     "strategy 'similar' needs similar_to"),
    ({"select": {"k": 1, "strategy": "random", "quota": {"by": "a", "inside": "balanced"}}},
     "quota.inside 'balanced' contradicts strategy 'random'"),
    ({"select": {"k": 1, "quota": {"by": "a", "share": "explicit", "counts": {"b": -1}}}},
     "select.quota.counts.b: "),
    ({"select": {"k": 1, "at_most": True, "quota": {"by": "a", "share": "explicit"}}},
     "at_most cannot be combined with explicit counts"),
    ({"where": {"quality": {"sharpness": {"min": 2, "max": 1}}}}, "min 2 is above max 1"),
    ({"where": {"captured_after": "2026-11-02T00:00:00Z", "captured_before": "2026-11-01"}},
     "captured_after must be before captured_before"),
    ({"select": {"strategy": "random", "k": 1, "seed": 1 << 63}}, "invalid_request: select.seed: "),
    ({"select": {"strategy": "random", "k": 1, "quota": {"by": "a", "counts": {"b": 1}}}},
     "counts need share 'explicit', not 'equal'"),
    ({"at_seq": 1 << 63}, "invalid_request: at_seq: "),
    ({"k": 5}, "invalid_request: k: Extra inputs are not permitted"),
    ({"schema": "pixsift.snapshot-request/3"}, "invalid_request: schema: "),
]  # fmt: skip
RUBBISH = ["", "{", "[]", '"x"', "null", '{"request_id": "a\\u0000"}', "[" * 100_000,
           '{"request_id": "\\ud800"}']  # fmt: skip


def test_serve__what_cannot_be_done_is_recorded_and_told(world: World) -> None:
    for number, (changes, reason) in enumerate(REFUSED):
        body = request(request_id=f"n{number}", **changes)
        for _ in range(2):  # the second delivery comes to the same end, and tells it again
            told = len(world.news.told)
            assert world.serve(body) == "done"
            assert reason in refusal(world, f"n{number}")
            assert len(world.news.told) == told + 1
    assert not world.exported()


def test_serve__the_schedules_own_request_needs_no_thousand_images(world: World) -> None:
    resources = json.loads(events_template())["Resources"].values()
    (rule,) = (r["Properties"] for r in resources if r["Type"] == "AWS::Events::Rule")
    parts = rule["Targets"][0]["InputTransformer"]["InputTemplate"]["Fn::Join"][1]
    text = "".join(part if isinstance(part, str) else "c" for part in parts)
    assert world.serve(text.replace("<id>", '"tick-1"')) == "done"
    snapshot = world.snapshots.get(world.snapshot_id("tick-1"))
    assert (snapshot.state, snapshot.images) == ("published", 12)
    assert snapshot.report["fewer"] == "all 12 there are, where 1000 were asked for at most"


def test_serve__rubbish_is_kept_as_an_anomaly(world: World) -> None:
    for number, body in enumerate(RUBBISH):
        assert world.serve(body, message_id=f"m-{number}") == "done"
        assert refusal(world, f"message:m-{number}").startswith("invalid_request: ")
    with world.database.connection() as connection:
        rows = connection.execute("SELECT body FROM anomaly ORDER BY anomaly_id").fetchall()
    assert [bytes(row[0]).decode() for row in rows] == RUBBISH


def test_serve__a_bus_that_refuses_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(detail_type: str, detail: dict[str, Any]) -> None:
        raise DependencyDownError("not allowed to put events")

    monkeypatch.setattr(world.news, "announce", refuse)
    assert world.serve(request()) == "done"
    assert world.published()


def test_serve__a_bucket_that_is_away_is_no_failure(world: World) -> None:
    world.s3.delete_bucket(Bucket="curated")
    with pytest.raises((DependencyDownError, TransientError)):
        world.serve(request())
    assert world.snapshots.get(world.snapshot_id()).state == "copying"
    world.s3.create_bucket(Bucket="curated")
    expire_leases(world)
    assert world.serve(request()) == "done"
    assert world.published()


def test_serve__the_location_of_another_snapshot_is_not_overwritten(world: World) -> None:
    with pytest.raises(KilledError):
        world.serve(request(), world.exporter(at_point=Kill("described")))
    prefix = world.snapshots.get(world.snapshot_id()).prefix
    world.s3.put_object(Bucket="curated", Key=prefix + "snapshot.json", Body=b"{}")
    expire_leases(world)
    world.curator().resume(threading.Event())
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("location_taken")
    assert world.exported(prefix + "snapshot.json") == {prefix + "snapshot.json": b"{}"}


def test_serve__a_later_decision_does_not_change_a_past_point(world: World) -> None:
    gone = world.uploaded[0][0]
    world.ledger.commit(
        world.collection, [finding(gone.key, "gone", "deleted", version=gone.version_id)]
    )
    world.serve(request(at_seq=3, select={"strategy": "all"}))
    assert len(images(world.published())) == 12
