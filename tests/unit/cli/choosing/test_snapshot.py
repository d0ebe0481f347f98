"""``pixsift snapshot`` on moto's S3 and SQS and a real ledger."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.postgres.database import Database
from pixsift.core.manifest import parse_manifest
from pixsift.errors import UserError
from pixsift.operations.download import Piece, fetch_all
from pixsift.operations.serve_request import RequestMessage
from pixsift_cli.choosing.snapshot import build_request
from snapshot_world import World, make_world, request

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Six kept images, and the queue of requests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_CURATED_BUCKET", "curated")
    with mock_aws(), Database(database_url) as database:
        s3 = boto3.client("s3")
        for bucket in ("raw", "curated"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        boto3.client("sqs").create_queue(QueueName="pixsift-snapshot-requests")
        made = make_world(database_url, database, s3, "raw", "curated")
        made.keep(*(f"robot-{n % 2}/cam/{n}.jpg" for n in range(6)))
        yield made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    """The command as a user runs it: exit status, standard output, standard error."""

    return partial(run_pixsift, "snapshot")


def serve_queue(world: World) -> None:
    """What the curator does with the messages that wait."""
    client = boto3.client("sqs")
    url = client.get_queue_url(QueueName="pixsift-snapshot-requests")["QueueUrl"]
    for message in client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]:
        world.curator().serve(RequestMessage("q", "m", message["Body"]), threading.Event())
        client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_snapshot__request_list_show_download(world: World, run: Run, tmp_path: Path) -> None:
    status, out, err = run(
        "request", "--collection", "c", "--name", "set", "--k", "4", "--split", "0.5,0.25,0.25",
        "--request-id", "mine", "--json",
    )  # fmt: skip
    assert (status, json.loads(out)["request_id"]) == (0, "mine"), err
    serve_queue(world)
    listed = json.loads(run("list", "--json")[1])
    assert [(row["name"], row["state"], row["images"]) for row in listed["snapshots"]] == [
        ("set", "published", 4)
    ]
    shown = json.loads(run("show", "mine", "--json")[1])
    assert shown["snapshot_id"] == listed["snapshots"][0]["snapshot_id"]
    assert sorted(item["split"] for item in shown["items"]) == ["test", "train", "train", "val"]
    assert "coverage" in shown["report"]
    folder = tmp_path / "set"
    first = json.loads(run("download", "set", str(folder), "--json")[1])
    assert first["missing"] == []
    assert first["fetched"] == first["files"] > 4
    contents = dict(world.uploaded)
    for row in parse_manifest((folder / "manifest.parquet").read_bytes()):
        assert (folder / row.path).read_bytes() == contents[row.source]
    again = json.loads(run("download", "set", str(folder), "--json")[1])
    assert again["fetched"] == 1  # the descriptor, whose hash is not stored
    assert "4/4" in run("list")[1]
    assert "published" in run("show", "set")[1]


def test_snapshot__diff_and_verify(world: World, run: Run) -> None:
    for name, k, split in (("one", "3", "1,0,0"), ("two", "5", "0,0,1")):
        run("request", "--collection", "c", "--name", name, "--k", k, "--split", split,
            "--request-id", name)  # fmt: skip
        serve_queue(world)
    found = json.loads(run("diff", "one", "two", "--json")[1])
    assert (found["kept"], len(found["added"]), found["removed"]) == (3, 2, [])
    assert {(each["was"], each["split"]) for each in found["moved"]} == {("train", "test")}
    back = json.loads(run("diff", "two", "one", "--json")[1])
    assert [each["represented_by"] for each in back["removed"]] == [None, None]

    status, out, _ = run("verify", "two", "--json")
    whole = json.loads(out)
    assert (status, whole["is_whole"], whole["checked"] > 5) == (0, True, True)
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket="curated")["Contents"]
    lost, short = [o["Key"] for o in listed if o["Key"].startswith("two/") and "/data/" in o["Key"]
                   and o["Key"].endswith(".jpg")][:2]  # fmt: skip
    s3.delete_object(Bucket="curated", Key=lost)
    s3.put_object(Bucket="curated", Key=short, Body=b"short")
    status, out, _ = run("verify", "two", "--json")
    problems = {each["path"]: each["what"] for each in json.loads(out)["problems"]}
    assert status == 1
    assert sorted(problems.values()) == ["missing", "wrong_size"]
    assert all(lost.endswith(path) or short.endswith(path) for path in problems)


def test_snapshot__request_waits_and_tells_the_end(world: World, run: Run) -> None:
    world.serve(request())  # the answer is there already: the same request id finds it
    wait = ("request", "--collection", "c", "--name", "set", "--k", "3", "--wait")
    status, out, _ = run(*wait, "--request-id", "r1")
    assert status == 0
    assert world.snapshot_id() in out
    world.serve(request(request_id="r2", collection="nowhere"))
    status, _, err = run(*wait, "--request-id", "r2", "--timeout", "5")
    assert status == 1
    assert "unknown_collection" in err
    assert "Traceback" not in err
    status, _, err = run(*wait, "--request-id", "r3", "--timeout", "0.2")
    assert status == 1
    assert "is pixsift-curator running?" in err


def test_snapshot__a_reference_is_downloaded_from_the_sources(
    world: World, run: Run, tmp_path: Path
) -> None:
    world.serve(request(export={"mode": "reference"}))
    assert run("download", "r1", str(tmp_path))[0] == 0
    contents = dict(world.uploaded)
    rows = parse_manifest((tmp_path / "manifest.parquet").read_bytes())
    assert rows
    for row in rows:
        assert (tmp_path / row.path).read_bytes() == contents[row.source]


def test_snapshot__clean_removes_only_what_failed(world: World, run: Run) -> None:
    world.serve(request())
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket="raw", Key=version.key, VersionId=version.version_id)
    world.serve(request(request_id="r2", name="broken", select={"strategy": "all"}))
    broken = world.snapshots.get(world.snapshot_id("r2")).prefix
    before = world.exported()
    assert any(key.startswith(broken) for key in before)
    assert json.loads(run("clean", "--json")[1])["objects"] == {}  # not old enough
    assert json.loads(run("clean", "--older-than-days", "0", "--json")[1])["applied"] is False
    assert world.exported() == before
    assert run("clean", "--older-than-days", "0", "--apply")[0] == 0
    left = world.exported()
    assert left == {key: content for key, content in before.items() if not key.startswith(broken)}
    assert left


MISTAKES = [
    (["request", "--collection", "c", "--name", "set"], "needs k"),
    (["request", "--collection", "c", "--k", "3"], "name: Field required"),
    (["request", "--collection", "c", "--name", "Not/Good", "--k", "3"], "name: "),
    (["request", "--file", "absent.json"], "--file absent.json"),
    (["request", "--collection", "c", "--name", "s", "--k", "1", "--where", "robot"],
     "write it as attribute=value"),
    (["request", "--collection", "c", "--name", "s", "--k", "1", "--split", "all"],
     "write three shares"),
    (["show", "nothing"], "snapshot 'nothing' does not exist"),
]  # fmt: skip


def test_snapshot__mistakes_are_one_line_with_the_remedy(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    for arguments, complaint in MISTAKES:
        status, _, err = run(*arguments)
        assert status == 2
        assert complaint in err
        assert err.count("\n") == 1


def test_build_request__options_change_the_file(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request(where={"attributes": {"robot": ["r1"]}})))
    nothing = {"name": None, "select": {"k": None, "quota": {"by": None}}, "where": {}}
    assert build_request(file, nothing).model_dump(by_alias=True)["where"]["attributes"] == {
        "robot": ["r1"]
    }
    changed = build_request(file, {"name": "other", "select": {"k": 9}})
    assert (changed.name, changed.select.k, changed.select.seed) == ("other", 9, 7)
    assert changed.request_id == "r1"


def test_fetch_all__never_leaves_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would be written outside"):
        fetch_all([Piece("../x", "", lambda: b"x")], tmp_path / "in")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--limit", "-1"),
        ("list", "--limit", "99999999999999999999"),
        ("clean", "--older-than-days", "1e300"),
        ("clean", "--older-than-days", "nan"),
        ("show", "\udcff"),
    ],
)
def test_snapshot__what_the_ledger_cannot_hold_is_a_users_mistake(
    world: World, run: Run, arguments: tuple[str, ...]
) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert "Traceback" not in err


def test_snapshot__a_target_that_is_no_folder_is_told_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    def fetch() -> bytes:
        raise AssertionError("was fetched")

    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        with pytest.raises(UserError, match="cannot write"):
            fetch_all([Piece("a.jpg", "", fetch)], folder)


def test_snapshot__a_file_in_the_place_of_a_folder_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*data/a\.jpg"):
        fetch_all([Piece("data/a.jpg", "", lambda: b"x")], tmp_path)


def test_build_request__a_file_nested_without_end_is_a_users_mistake(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="--file"):
        build_request(file, {})
