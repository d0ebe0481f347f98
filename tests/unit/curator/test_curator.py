"""A request from message to published snapshot, on moto's S3 and a real ledger."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from pixsift.core.manifest import parse_duplicates, parse_manifest
from snapshot_world import World, images_in, refusal, request


def test_serve__publishes_what_was_chosen(world: World) -> None:
    assert world.serve(request()) == "done"
    files = world.published()
    rows = parse_manifest(files["manifest.parquet"])
    contents = dict(world.uploaded)
    assert [row.rank for row in rows] == [0, 1, 2]
    assert images_in(files) == {row.path: contents[row.source] for row in rows}
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
    assert len(images_in(files)) == 13
    assert f"data/train/robot-0/cam/00.{again.version_id}.jpg" in files


def test_serve__a_reference_snapshot_holds_no_bytes(world: World) -> None:
    world.serve(request(export={"mode": "reference"}))
    files = world.published()
    assert not images_in(files)
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
    world.serve(request(select={"k": 3, "strategy": "balanced"}, request_id="r2", **second))
    assert world.snapshot_id("r1") == world.snapshot_id("r2")
    report = world.snapshots.get(world.snapshot_id()).report
    assert report["strategy"] == "balanced"
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
    assert len(images_in(world.published("r2"))) == 4


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
    assert len(images_in(world.published("p0"))) == len(rows) == 3
    assert sum(kind == "SnapshotPublished" for kind, _ in world.news.told) >= 1
