"""Erased images stay erased in a ledger that was restored or created again."""

import hashlib
import json
from collections.abc import Iterator

import boto3
import psycopg
import pytest
from moto import mock_aws

from faults.restore import backup, restore
from ledger_world import outcomes, rows
from pixsift.adapters.aws.journal import PREFIX, Journal, Obligation
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.outcomes import Judged
from pixsift.errors import DependencyDownError
from pixsift.operations.audit import Auditor
from pixsift.operations.erase import Erasure, new_erasure
from pixsift.operations.obligations import Obligations
from snapshot_world import World, make_world

SECRET = b"a face " * 100


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


def journal(world: World) -> Journal:
    return Journal(S3Objects(client=world.s3), "curated")


def erasure(world: World, database: Database, *, bucket: str = "curated") -> Erasure:
    return new_erasure(
        database, S3Objects(client=world.s3),
        derived_bucket="derived", curated_bucket="curated", journal_bucket=bucket,
    )  # fmt: skip


def erase(world: World, key: str = "secret.jpg") -> None:
    eraser = erasure(world, world.database)
    eraser.erase(eraser.find("raw", key, None), reason="ticket 7")


def dump(url: str) -> str:
    tables = rows(
        url, "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND"
        " relnamespace = 'public'::regnamespace",
    )  # fmt: skip
    return "\n".join(
        sorted(
            str(row) for (table,) in tables for row in rows(url, f"SELECT t::text FROM {table} t")
        )
    )


def test_catch_up__a_restored_ledger_erases_again(world: World) -> None:
    """Every decision and every read in it first catches up."""
    world.keep("other.jpg")
    world.keep("secret.jpg", content=SECRET)
    world.keep("copy.jpg", content=SECRET)
    with backup(world.url) as copy:
        with Database(world.url) as database:
            eraser = erasure(world, database)
            eraser.erase(eraser.find("raw", "secret.jpg", None), reason="")
        restore(world.url, copy)
    with Database(world.url) as database:
        assert outcomes(world.url)["other.jpg@" + world.uploaded[0][0].version_id][0] == "kept"
        assert hashlib.sha256(SECRET).hexdigest() in dump(world.url)
        obligations = Obligations(database, journal(world))
        ledger = Ledger(database, duties=obligations)
        again = world._upload("again.jpg", SECRET)
        (decision,) = ledger.commit(world.collection, [again])
        assert (decision.outcome, decision.reason) == ("gone", "erased")
        assert hashlib.sha256(SECRET).hexdigest() not in dump(world.url)
        assert obligations.waiting() == []
        assert rows(world.url, "SELECT count(*) FROM embedding") == [(1,)]
        found = {name.split("@")[0]: row[:2] for name, row in outcomes(world.url).items()}
        assert found["secret.jpg"] == found["copy.jpg"] == ("gone", "erased")
        assert Auditor(database).audit(world.collection).findings == []
        assert obligations.catch_up() == 0


def test_catch_up__meeting_an_entry_twice_changes_nothing(world: World) -> None:
    world.keep("secret.jpg", content=SECRET)
    erase(world)
    before = dump(world.url)
    with psycopg.connect(world.url) as connection:
        met = connection.execute("DELETE FROM obligation RETURNING journal_key").fetchall()
    obligations = Obligations(world.database, journal(world))
    assert obligations.waiting() == [key for (key,) in met]
    assert obligations.catch_up() == 1
    assert _without_times(dump(world.url)) == _without_times(before)


def _without_times(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if PREFIX not in line)


def test_catch_up__a_ledger_made_anew_knows_the_bytes_again(world: World) -> None:
    """Its salt is another one until the first entry is met."""
    world.keep("secret.jpg", content=SECRET)
    erase(world)
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute("TRUNCATE tombstone, obligation")
        connection.execute("UPDATE tombstone_salt SET salt = sha256('another')")
    Obligations(world.database, journal(world)).catch_up()
    (decision,) = world.ledger.commit(world.collection, [world._upload("again.jpg", SECRET)])
    assert (decision.outcome, decision.reason) == ("gone", "erased")


def test_erase__without_its_journal_nothing_is_begun(world: World) -> None:
    world.keep("secret.jpg", content=SECRET)
    before = dump(world.url)
    eraser = erasure(world, world.database, bucket="absent")
    with pytest.raises(DependencyDownError, match=r"s3://absent/.*nothing was erased"):
        eraser.erase(eraser.find("raw", "secret.jpg", None), reason="", source=True)
    assert dump(world.url) == before
    head = world.s3.get_object(Bucket="raw", Key="secret.jpg")
    assert head["Body"].read() == SECRET


def test_erase__the_entry_holds_no_hash_without_salt(world: World) -> None:
    world.keep("secret.jpg", content=SECRET)
    erase(world)
    (key,) = journal(world).entries()
    body = world.s3.get_object(Bucket="curated", Key=key)["Body"].read()
    assert hashlib.sha256(SECRET).hexdigest() not in body.decode()
    assert SECRET not in body


@pytest.mark.parametrize(
    "body",
    [
        b"not json", b"[]", b'{"schema": "pixsift.obligation/9", "kind": "erasure", "facts": {}}',
        json.dumps({"schema": "pixsift.obligation/1", "kind": "vow", "facts": {}}).encode(),
    ],
)  # fmt: skip
def test_catch_up__what_this_release_cannot_meet_stops_it(world: World, body: bytes) -> None:
    world.s3.put_object(Bucket="curated", Key=f"{PREFIX}20270101T000000Z-x.json", Body=body)
    obligations = Obligations(world.database, journal(world))
    with pytest.raises(DependencyDownError, match="upgrade"):
        obligations.catch_up()
    with pytest.raises(DependencyDownError, match="upgrade"):
        Ledger(world.database, duties=obligations).commit(
            world.collection, [Judged(world.keep("a.jpg")[0], "failed", "timeout")]
        )


def test_catch_up__the_kinds_of_others_join_by_name(world: World) -> None:
    met: list[object] = []

    def meet(database: Database, entry: Obligation) -> bool:
        met.append(entry.facts)
        return True

    journal(world).write("vow", {"keep": 1})
    obligations = Obligations(world.database, journal(world), {"vow": meet})
    assert obligations.catch_up() == 1
    assert met == [{"keep": 1}]
