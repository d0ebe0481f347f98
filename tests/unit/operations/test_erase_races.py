"""Erasure wins every race: an export at each of its points, alive or killed, imports, builds."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ledger_world import rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger import attributes, generation_build, generations
from pixsift.adapters.postgres.database import Database
from pixsift.core.sidecar import SidecarRow
from pixsift.errors import PixsiftError
from pixsift.operations.audit import Auditor
from pixsift.operations.erase import new_erasure
from snapshot_world import World, make_world, request

SECRET = b"a face " * 100
EVERY_FORM = request(
    select={"strategy": "all"}, export={"mode": "copy", "formats": ["parquet", "webdataset"]}
)
POINTS = (
    "claimed", "image_copied", "copied", "file_written", "shard_uploaded", "shard_written",
    "described", "descriptor_uploaded", "descriptor_written",
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the exporter runs after it."""


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
        made = make_world(database_url, database, s3, "raw", "curated")
        made.keep("a.jpg", "b.jpg")
        made.keep("secret.jpg", content=SECRET)
        yield made


def erase(world: World, *, source: bool = False) -> None:
    eraser = new_erasure(
        world.database, S3Objects(client=world.s3, confirm_after_seconds=0),
        derived_bucket="derived", curated_bucket="curated", journal_bucket="curated",
    )  # fmt: skip
    eraser.erase(eraser.find("raw", "secret.jpg", None), reason="", source=source)


def traces(world: World) -> list[str]:
    """Every version of every object of the curated bucket that holds the image's bytes."""
    listing: Any = world.s3.list_object_versions(Bucket="curated")
    return [
        version["Key"]
        for version in listing.get("Versions", [])
        if SECRET in world.s3.get_object(
            Bucket="curated", Key=version["Key"], VersionId=version["VersionId"]
        )["Body"].read()
    ]  # fmt: skip


def export(world: World, at: str, then: Callable[[], None]) -> None:
    """Serve a request for everything; ``then`` runs once, at a named point."""
    left = [then]

    def at_point(point: str) -> None:
        if point == at and left:
            left.pop()()

    exporter = world.exporter(at_point=at_point)
    if at == "shard_uploaded":  # S3 has it, the ledger does not know
        write = exporter._writer.write

        def written(*arguments: Any) -> Any:
            answer = write(*arguments)
            at_point(at)
            return answer

        exporter._writer.write = written  # type: ignore[method-assign, assignment]
    if at == "descriptor_uploaded":  # the right to publish was renewed, and then lost
        renew = world.snapshots.__class__.renew

        class Renewing(world.snapshots.__class__):  # type: ignore[misc,name-defined]
            def renew(self, *arguments: Any, **options: Any) -> Any:
                answer = renew(self, *arguments, **options)
                at_point(at)
                return answer

        exporter._snapshots = Renewing(world.database)
    with suppress(Killed, PixsiftError):
        world.serve(EVERY_FORM, exporter)


@pytest.mark.parametrize(
    "source", [False, pytest.param(True, marks=pytest.mark.full)], ids=["copies", "source too"]
)
@pytest.mark.parametrize("at", POINTS)
def test_erase__while_an_exporter_is_at_work(world: World, at: str, source: bool) -> None:
    export(world, at, lambda: erase(world, source=source))
    assert traces(world) == []
    assert _findings(world) == []
    assert not [key for key in world.exported() if key.endswith("snapshot.json")]


@pytest.mark.parametrize("at", POINTS)
def test_erase__after_an_exporter_was_killed(world: World, at: str) -> None:
    def kill() -> None:
        raise Killed

    export(world, at, kill)
    erase(world)
    assert traces(world) == []
    assert _findings(world) == []
    assert not [key for key in world.exported() if key.endswith("snapshot.json")]


def test_erase__what_an_exporter_left_that_died_too_late_is_found_and_goes(world: World) -> None:
    """An upload that was under way during the erasure, and an older release's, look like this."""
    export(world, "copied", lambda: erase(world))
    prefix = world.snapshots.get(world.snapshot_id()).prefix
    world.s3.put_object(Bucket="curated", Key=f"{prefix}webdataset/train-000000.tar", Body=SECRET)
    assert [finding.invariant for finding in _findings(world)] == ["INV9"]
    erase(world)
    assert traces(world) == [] and _findings(world) == []


def test_erase__a_published_shard_that_the_ledger_does_not_list_is_rewritten(world: World) -> None:
    export(world, "claimed", lambda: None)
    assert world.published()
    rows_before = rows(world.url, "SELECT count(*) FROM snapshot_file WHERE path ~ 'tar$'")
    assert rows_before == [(1,)]
    with world.database.connection() as connection:
        connection.execute("DELETE FROM snapshot_file WHERE path ~ 'tar$'")
    erase(world)
    assert traces(world) == []
    assert "snapshot.json" in world.published()


def test_import_attributes__an_erased_image_gets_none(world: World) -> None:
    erase(world)
    row = SidecarRow("line 1", "secret.jpg", None, None, {"subject": "Jane Doe"})
    done = attributes.import_attributes(
        world.database, world.collection, [row], skip_unknown=True, actor="test"
    )
    assert (done.changed, done.unknown) == (0, 1)
    assert rows(world.url, "SELECT count(*) FROM attribute") == [(0,)]


def test_redecide__an_erasure_before_the_switch_leaves_nothing_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = generation_build.Build._switch
    erased: list[int] = []

    def switching(build: Any, *arguments: Any) -> Any:
        if not erased:
            erased.append(1)
            erase(world)
        return switch(build, *arguments)

    monkeypatch.setattr(generation_build.Build, "_switch", switching)
    generations.Generations(world.database).redecide(world.collection, epsilon=0.001)
    assert erased
    assert _findings(world) == []
    pixels = hashlib.sha256(b"px" + SECRET).digest()
    left = "SELECT count(*) FROM decision WHERE pixel_sha256 = %s"
    with world.database.connection() as connection:
        assert connection.execute(left, (pixels,)).fetchone() == (0,)


def _findings(world: World) -> list[Any]:
    auditor = Auditor(world.database)
    objects = S3Objects(client=world.s3, confirm_after_seconds=0)
    return [
        *auditor.audit(world.collection).findings,
        *auditor.check_unpublished(world.collection, objects, "curated"),
    ]
