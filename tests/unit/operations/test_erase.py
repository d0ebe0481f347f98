"""An erased image is nowhere any more, and nothing brings it back."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws
from numpy.typing import NDArray

from ledger_world import DIMENSION, finding, image, new_collection, outcomes, rows, turned
from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Decision, Judged
from pixsift.errors import DependencyDownError
from pixsift.operations.audit import Auditor
from pixsift.operations.erase import Erasure
from pixsift.operations.redact import Redactor, shard_without
from snapshot_world import World, make_world, request

SECRET = b"a face " * 400


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), Database(database_url) as database:
        s3 = boto3.client("s3")
        for bucket in ("raw", "curated", "derived"):
            s3.create_bucket(Bucket=bucket)
        for bucket in ("raw", "curated"):
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield make_world(database_url, database, s3, "raw", "curated")


def erasure(world: World) -> Erasure:
    objects = S3Objects(client=world.s3, confirm_after_seconds=0)
    redactor = Redactor(world.snapshots, objects, "curated")
    return Erasure(
        world.database, world.ledger, objects, redactor,
        derived_bucket="derived", journal=Journal(objects, "curated"),
    )  # fmt: skip


def keep_secret(world: World, key: str = "secret.jpg") -> ObjectVersion:
    thumbnail = f"thumbnails/{pixels().hex()}.webp"
    world.s3.put_object(Bucket="derived", Key=thumbnail, Body=b"small face")
    return keep(world,
        key, content=SECRET, vector=turned(0), thumbnail_key=thumbnail,
        attributes={"metadata": {"person": "N. N."}},
    )  # fmt: skip


def keep(
    world: World, key: str, *, content: bytes | None = None,
    vector: NDArray[np.float16] | None = None, **facts: Any,
) -> ObjectVersion:  # fmt: skip
    """Upload an image and let the ledger judge it; its vector is far from others unless given."""
    content = content or f"bytes of {key}".encode() * 3
    answer = world.s3.put_object(Bucket="raw", Key=key, Body=content)
    version = ObjectVersion("raw", key, answer["VersionId"])
    fresh = np.random.default_rng(list(key.encode())).normal(size=DIMENSION)
    judged = Judged(
        version, "embedded", size_bytes=len(content),
        content_sha256=hashlib.sha256(content).digest(),
        pixel_sha256=hashlib.sha256(b"px" + content).digest(),
        image_facts={"format": "JPEG", "width": 640, "height": 480},
        quality={"sharpness": 0.5},
        embedding=(fresh / np.linalg.norm(fresh)).astype(np.float16)
        if vector is None else vector,
        **facts,
    )  # fmt: skip
    world.ledger.commit(world.collection, [judged])
    return version


def pixels() -> bytes:
    return hashlib.sha256(b"px" + SECRET).digest()


def everything(world: World) -> str:
    """All rows of all tables, as text."""
    tables = rows(
        world.url, "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND"
        " relnamespace = 'public'::regnamespace",
    )  # fmt: skip
    return "\n".join(
        str(row) for (table,) in tables for row in rows(world.url, f"SELECT t::text FROM {table} t")
    )


def bytes_in(world: World, bucket: str) -> list[bytes]:
    """Every version of every object."""
    listing: Any = world.s3.list_object_versions(Bucket=bucket)
    return [
        world.s3.get_object(Bucket=bucket, Key=v["Key"], VersionId=v["VersionId"])["Body"].read()
        for v in listing.get("Versions", [])
    ]


def test_erase__nothing_is_left_anywhere(world: World) -> None:
    version = keep_secret(world)
    for number in range(5):
        keep(world, f"other-{number}.jpg")
    body = request(
        select={"strategy": "all"}, export={"mode": "copy", "formats": ["parquet", "webdataset"]}
    )
    assert world.serve(body) == "done"
    assert any(SECRET in content for content in bytes_in(world, "curated"))
    index = PgvectorSearch(world.database, background=False)
    index.advance(world.collection.collection_id)
    assert everything(world).count("[1,0,0,0,") == 2  # the truth and the index
    eraser = erasure(world)
    done = eraser.erase(eraser.find("raw", "secret.jpg", None), reason="ticket 7", source=True)

    assert (done.vectors, done.thumbnails, done.source_versions) == (1, 1, 1)
    assert done.snapshots == [world.snapshot_id()]
    for bucket in ("raw", "curated", "derived"):
        assert not any(SECRET in content for content in bytes_in(world, bucket)), bucket
    assert bytes_in(world, "derived") == []
    dump = everything(world)
    for trace in (hashlib.sha256(SECRET).hexdigest(), pixels().hex(), "N. N.", "[1,0,0,0,"):
        assert trace not in dump
    assert outcomes(world.url)["secret.jpg@" + version.version_id][:2] == ("gone", "erased")
    files = world.published()
    assert json.loads(files["redactions.json"])["redacted"][0]["path"].endswith("secret.jpg")
    assert "manifest.parquet" in files and "snapshot.json" in files


def test_erase__replay_and_reupload_stay_gone(world: World) -> None:
    version = keep_secret(world)
    eraser = erasure(world)
    eraser.erase(eraser.find("raw", "secret.jpg", None), reason="")
    replay = image("x", turned(0)).__class__(
        version, "embedded", content_sha256=hashlib.sha256(SECRET).digest(),
        pixel_sha256=pixels(), embedding=turned(0),
    )  # fmt: skip
    (decision,) = world.ledger.commit(world.collection, [replay])
    assert (decision.outcome, decision.reason, decision.is_new) == ("gone", "erased", False)
    keep(world, "again.jpg", content=SECRET, vector=turned(0))
    assert [v[:2] for k, v in outcomes(world.url).items() if k.startswith("again")] == [
        ("gone", "erased")
    ]
    assert hashlib.sha256(SECRET).hexdigest() not in everything(world)
    assert rows(world.url, "SELECT count(*) FROM embedding") == [(0,)]


def test_erase__only_this_lets_the_same_bytes_come_again(world: World) -> None:
    keep_secret(world)
    eraser = erasure(world)
    found = eraser.find("raw", "secret.jpg", None, copies=False)
    eraser.erase(found, reason="", block_content=False)
    keep(world, "again.jpg", content=SECRET, vector=turned(0))
    assert [v[0] for k, v in outcomes(world.url).items() if k.startswith("again")] == ["kept"]


def test_erase__copies_go_too_and_near_ones_are_decided_again(world: World) -> None:
    keep_secret(world)
    keep(world, "copy.jpg", content=SECRET, vector=turned(0))
    keep(world, "near.jpg", vector=turned(5))
    eraser = erasure(world)
    found = eraser.find("raw", "secret.jpg", None)
    assert [row["key"] for row in found] == ["secret.jpg", "copy.jpg"]
    eraser.erase(found, reason="")
    now = {key.split("@")[0]: value[:2] for key, value in outcomes(world.url).items()}
    assert now == {
        "secret.jpg": ("gone", "erased"),
        "copy.jpg": ("gone", "erased"),
        "near.jpg": ("kept", "promoted"),
    }


def test_erase__a_copy_that_arrived_since_it_was_asked_goes_too(world: World) -> None:
    keep_secret(world)
    eraser = erasure(world)
    found = eraser.find("raw", "secret.jpg", None)
    keep(world, "copy.jpg", content=SECRET, vector=turned(0))
    done = eraser.erase(found, reason="")
    assert {value[:2] for value in outcomes(world.url).values()} == {("gone", "erased")}
    assert (len(done.objects), done.vectors, done.kept_vectors) == (2, 1, 0)
    assert hashlib.sha256(SECRET).hexdigest() not in everything(world)


@pytest.mark.parametrize("is_representative", [True, False])
def test_erase__a_collection_that_decided_it_since_it_was_asked_forgets_it_too(
    world: World, is_representative: bool
) -> None:
    world.ledger.commit(world.collection, [image("x", turned(0))])
    other = new_collection(world.ledger, "other")
    eraser = erasure(world)
    found = eraser.find("raw", "x", None)
    arriving = [image("x", turned(0)), image("y", turned(5))]
    world.ledger.commit(other, arriving if is_representative else arriving[::-1])
    eraser.erase(found, reason="")
    now = outcomes(world.url)
    assert (now["x@v1"][:2], now["y@v1"][0]) == (("gone", "erased"), "kept")
    assert Auditor(world.database).audit(world.ledger.collection("other")).findings == []
    world.ledger.remove(other, [arriving[1].version])


def test_erase__bytes_that_were_read_since_it_was_asked_are_blocked_too(world: World) -> None:
    version = ObjectVersion("raw", "secret.jpg", "v1")
    world.ledger.commit(world.collection, [finding("secret.jpg", "failed", "timeout")])
    eraser = erasure(world)
    found = eraser.find("raw", "secret.jpg", None)
    secret: dict[str, Any] = {
        "content_sha256": hashlib.sha256(SECRET).digest(),
        "pixel_sha256": pixels(),
    }
    read = Judged(version, "embedded", embedding=turned(0), **secret)
    world.ledger.commit(world.collection, [read])
    eraser.erase(found, reason="")
    keep(world, "again.jpg", content=SECRET, vector=turned(0))
    assert {value[:2] for value in outcomes(world.url).values()} == {("gone", "erased")}


def test_erase__waits_for_a_decision_that_needs_the_vector(world: World) -> None:
    inserted, finished = Event(), Event()

    def pause(point: str) -> None:
        if point == "inserted":
            inserted.set()
            finished.wait(10)

    arriving = image("b", turned(0), content="b", pixels="p")

    class Meanwhile:
        """A redactor that lets a copy of the pixels be decided while it is at work."""

        def redact(self, object_id: int) -> list[str]:
            if not inserted.is_set():
                commit = Ledger(world.database, pause=pause).commit
                decided.append(pool.submit(commit, world.collection, [arriving]))
                inserted.wait(10)
            return []

    world.ledger.commit(world.collection, [image("a", turned(0), content="a", pixels="p")])
    decided: list[Future[list[Decision]]] = []
    session = {"lock_timeout": "50ms"}
    with Database(world.url, session=session) as hurried, ThreadPoolExecutor(1) as pool:
        eraser = Erasure(
            hurried, Ledger(hurried), S3Objects(client=world.s3),
            Meanwhile(),  # type: ignore[arg-type]
            derived_bucket="derived", journal=Journal(S3Objects(client=world.s3), "curated"),
        )  # fmt: skip
        found = eraser.find("raw", "a", None)
        with pytest.raises(DependencyDownError, match="55P03"):
            eraser.erase(found, reason="")
        finished.set()
        assert decided[0].result()[0].outcome == "kept"
        assert rows(world.url, "SELECT count(*) FROM embedding") == [(1,)]
        assert len(eraser.erase(found, reason="").objects) == 2
    assert Auditor(world.database).audit(world.collection).findings == []


def test_erase__a_vector_that_others_need_stays(world: World) -> None:
    keep_secret(world)
    keep(world, "copy.jpg", content=SECRET, vector=turned(0))
    eraser = erasure(world)
    done = eraser.erase(
        eraser.find("raw", "secret.jpg", None, copies=False), reason="", block_content=False
    )
    assert (done.vectors, done.kept_vectors, done.thumbnails) == (0, 1, 0)
    now = {key.split("@")[0]: value[0] for key, value in outcomes(world.url).items()}
    assert now == {"secret.jpg": "gone", "copy.jpg": "kept"}


def test_erase__interrupted_and_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_secret(world)
    eraser = erasure(world)
    found = eraser.find("raw", "secret.jpg", None)

    def fail(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("S3 went away")

    with monkeypatch.context() as patch:
        patch.setattr(S3Objects, "head", fail)
        with pytest.raises(ConnectionError):
            eraser.erase(found, reason="")
    done = eraser.erase(eraser.find("raw", "secret.jpg", None), reason="")
    assert (done.vectors, done.thumbnails) == (1, 1)
    assert rows(world.url, "SELECT count(*) FROM tombstone") == [(1,)]
    again = eraser.erase(eraser.find("raw", "secret.jpg", None), reason="")
    assert (again.vectors, again.thumbnails) == (0, 0)


def test_erase__an_undo_does_not_bring_it_back(world: World) -> None:
    keep_secret(world)
    keep(world, "near.jpg", vector=turned(5))
    generations = Generations(world.database)
    generations.redecide(world.collection, epsilon=0.001)
    eraser = erasure(world)
    eraser.erase(eraser.find("raw", "secret.jpg", None), reason="")
    generations.undo(world.collection)
    now = {key.split("@")[0]: value[:2] for key, value in outcomes(world.url).items()}
    assert now == {"secret.jpg": ("gone", "erased"), "near.jpg": ("kept", "promoted")}


def test_erase__an_object_that_never_was_decided_otherwise(world: World) -> None:
    world.ledger.commit(world.collection, [finding("bad.jpg", "rejected", "truncated")])
    eraser = erasure(world)
    eraser.erase(eraser.find("raw", "bad.jpg", None), reason="")
    assert outcomes(world.url)["bad.jpg@v1"][:2] == ("gone", "erased")


def test_shard_without__only_that_sample_goes(world: World) -> None:
    for number in range(3):
        keep(world, f"{number}.jpg")
    body = request(export={"mode": "copy", "formats": ["webdataset"]})
    assert world.serve(body) == "done"
    (shard,) = [c for k, c in world.published().items() if k.endswith(".tar")]
    without = shard_without(shard, 1)
    assert without is not None
    assert b"000000000.jpg" in without and b"000000002.json" in without
    assert b"000000001." not in without
    assert shard_without(without, 1) is None
