"""What people said holds in a ledger that went back in time: rulings, their end, revoked tokens."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import boto3
import psycopg
import pytest
from moto import mock_aws

from faults.restore import backup, restore
from ledger_world import image, ledger_of, new_collection, outcomes, rows, turned
from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.postgres.database import Database
from pixsift.api import TokenAsk
from pixsift.core.identity import S3Uri
from pixsift.core.sources import SourceRule
from pixsift.errors import DependencyDownError
from pixsift.operations.access import caller_of, create_token, revoke_token
from pixsift.operations.audit import Auditor
from pixsift.operations.erase import new_erasure
from pixsift.operations.obligations import Obligations
from pixsift.operations.rule import list_rulings, rule, undo_rulings


class Place:
    """A ledger over the bucket ``raw``: b is near a, c and d are near each other."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.s3 = boto3.client("s3")
        self.objects = S3Objects(client=self.s3)
        with ledger_of(url) as ledger:
            collection = new_collection(ledger, sources=[SourceRule("raw")])
            for key, angle in (("a", 0), ("b", 5), ("c", 90), ("d", 95)):
                ledger.commit(collection, [image(key, turned(angle))])

    @contextmanager
    def opened(self, bucket: str = "curated") -> Iterator[tuple[Database, Obligations]]:
        """As one process sees it: a pool and obligations of its own."""
        with Database(self.url) as database:
            yield database, Obligations(database, Journal(self.objects, bucket))

    def say(self, kind: str, key: str, *, other: str | None = None, why: str = "seen") -> str:
        """A ruling; its id."""
        with self.opened() as (database, obligations):
            done = rule(
                database, "c", kind, [S3Uri("raw", key)], why=why, who="ann",
                other=None if other is None else S3Uri("raw", other), obligations=obligations,
            )  # fmt: skip
        return done.ruling_ids[0]

    def undo(self, ruling_id: str) -> None:
        with self.opened() as (database, obligations):
            undo_rulings(database, "c", ruling_ids=[UUID(ruling_id)], obligations=obligations)

    def catch_up(self) -> int:
        with self.opened() as (_, obligations):
            return obligations.catch_up()

    def in_force(self) -> set[tuple[str, str, str]]:
        """Kind, URI and reason of the rulings in force."""
        with Database(self.url) as database:
            return {(r.kind, r.uri, r.why) for r in list_rulings(database, "c").rulings}

    def kept(self) -> set[str]:
        found = outcomes(self.url)
        return {key.split("@")[0] for key, value in found.items() if value[0] == "kept"}

    def entries(self) -> list[Any]:
        journal = Journal(self.objects, "curated")
        return [journal.read(key) for key in journal.entries()]


@pytest.fixture
def place(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        for bucket in ("raw", "curated", "derived"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="curated", VersioningConfiguration={"Status": "Enabled"})
        yield Place(database_url)


def test_catch_up__a_restored_ledger_obeys_what_was_said_and_taken_back(place: Place) -> None:
    before = place.say("also_keep", "b")
    with backup(place.url) as copy:
        place.undo(before)
        place.say("choose", "b", why="sharper")
        ended = place.say("also_keep", "d")
        place.undo(ended)
        place.say("useless", "c")
        said, kept = place.in_force(), place.kept()
        restore(place.url, copy)
    assert place.kept() == {"a", "b", "c"}
    assert place.catch_up() == 5
    assert place.in_force() == said and place.kept() == kept == {"b", "d"}
    assert place.catch_up() == 0
    with place.opened() as (database, obligations), ledger_of(place.url) as ledger:
        assert Auditor(database).audit(ledger.collection("c")).findings == []
        assert obligations.write_rulings() == 0, "what was brought back is in the journal already"
    assert rows(place.url, "SELECT count(*) FROM action") == [(0,)]


def test_catch_up__a_version_that_the_backup_does_not_know_is_ruled_when_it_arrives(
    place: Place,
) -> None:
    with backup(place.url) as copy:
        with ledger_of(place.url) as ledger:
            ledger.commit(ledger.collection("c"), [image("e", turned(3))])
        place.say("also_keep", "e")
        restore(place.url, copy)
    place.catch_up()
    with ledger_of(place.url) as ledger:
        ledger.commit(ledger.collection("c"), [image("e", turned(3))])
    assert place.kept() == {"a", "c", "e"}


def test_catch_up__rulings_of_a_missing_collection_wait_for_it(
    place: Place, database_url: str
) -> None:
    place.say("also_keep", "b")
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ruling")
        connection.execute("DELETE FROM obligation")
        connection.execute("UPDATE collection SET name = 'another'")
    assert place.catch_up() == 1
    assert rows(database_url, "SELECT count(*) FROM obligation") == [(0,)]
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE collection SET name = 'c'")
    assert place.catch_up() == 1
    assert place.in_force() == {("also_keep", "s3://raw/b?versionId=v1", "seen")}


def test_catch_up__what_cannot_hold_any_more_is_recorded_and_stops_nobody(
    place: Place, database_url: str
) -> None:
    """Two rulings of one turn; the image of one of them contradicts a later one."""
    with backup(place.url) as copy:
        with place.opened() as (database, obligations):
            rule(
                database, "c", "also_keep", [S3Uri("raw", "b"), S3Uri("raw", "d")],
                why="seen", who="ann", obligations=obligations,
            )  # fmt: skip
        restore(place.url, copy)
    with Database(place.url) as database:  # by a process that did not catch up
        rule(database, "c", "useless", [S3Uri("raw", "b")], why="no", who="bob")
    assert place.catch_up() == 1
    assert {kind for kind, _, _ in place.in_force()} == {"useless", "also_keep"}
    (recorded,) = rows(database_url, "SELECT actor, action, detail->>'uri' FROM action")
    assert recorded == ("journal", "ruling_not_restored", "s3://raw/b?versionId=v1")
    assert place.catch_up() == 0


def test_write_rulings__what_an_outage_held_back_is_written_later(place: Place) -> None:
    with Database(place.url) as database:
        ids = [
            rule(database, "c", "also_keep", [S3Uri("raw", key)], why="seen", who="ann")
            .ruling_ids[0] for key in ("b", "d")
        ]  # fmt: skip
        undo_rulings(database, "c", ruling_ids=[UUID(ids[0])])
    with (
        place.opened("absent") as (_, obligations),
        pytest.raises(DependencyDownError, match=r"in force, but the journal s3://absent/"),
    ):
        obligations.write_rulings()
    with place.opened() as (_, obligations):
        assert obligations.write_rulings() == 3
        assert obligations.waiting() == [] and obligations.write_rulings() == 0
    entries = place.entries()
    assert [entry.facts["ended"] for entry in entries] == [False, False, True]
    assert [entry.key for entry in entries] == sorted(entry.key for entry in entries)


def test_erase__takes_the_reasons_of_rulings_out_of_the_journal(place: Place) -> None:
    place.say("not_same", "b", other="a", why="Jane Doe is in one of them")
    place.say("also_keep", "d", why="another pallet")
    with Database(place.url) as database:
        eraser = new_erasure(
            database, place.objects, derived_bucket="derived", curated_bucket="curated",
            journal_bucket="curated",
        )  # fmt: skip
        eraser.erase(eraser.find("raw", "b", None), reason="ticket 7")
    found = place.s3.list_object_versions(Bucket="curated", Prefix=".pixsift/")
    bodies = [
        place.s3.get_object(Bucket="curated", Key=v["Key"], VersionId=v["VersionId"])["Body"]
        .read().decode() for v in found["Versions"]
    ]  # fmt: skip
    assert len(bodies) == 3 and not any("Jane Doe" in body for body in bodies)
    assert any("another pallet" in body for body in bodies)
    assert sorted(json.loads(body)["kind"] for body in bodies) == ["erasure", "ruling", "ruling"]
    assert place.catch_up() == 0


def test_write_rulings__two_writers_of_the_same_leave_one_entry(place: Place) -> None:
    """The ledger notes one entry per ruling: an erasure would not find the reasons in another."""
    place.say("useless", "a", why="a face")
    with psycopg.connect(place.url, autocommit=True) as connection:  # a writer that read earlier
        connection.execute("UPDATE ruling SET said_in = NULL")
    with place.opened() as (_, obligations):
        assert obligations.write_rulings() == 1
    assert len(place.entries()) == 1
    assert rows(place.url, "SELECT said_in FROM ruling") == [(place.entries()[0].key,)]


def test_write_rulings__entries_are_in_order_whatever_the_time_zone_of_the_database(
    place: Place,
) -> None:
    """Local time goes back an hour in autumn: an undo would come before what it takes back."""
    name = place.url.partition("?")[0].rsplit("/", 1)[-1]
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET timezone TO 'Europe/Berlin'")
    ruling_id = place.say("useless", "a")
    with Database(place.url) as database:
        undo_rulings(database, "c", ruling_ids=[UUID(ruling_id)])
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("UPDATE ruling SET said_in = NULL")  # both are written again
        for reason, at in (("ruling", "00:50Z"), ("ruling_undone", "01:10Z")):
            connection.execute(
                "UPDATE turn SET at = %s WHERE reason = %s", [f"2025-10-26 {at}", reason]
            )
    with place.opened() as (_, obligations):
        assert obligations.write_rulings() == 2
    order = [(entry.key.partition("T")[2][:4], entry.facts["ended"]) for entry in place.entries()]
    assert order[:2] == [("0050", False), ("0110", True)]


def test_revoke_token__stays_revoked_in_a_restored_ledger(place: Place) -> None:
    with Database(place.url) as database:
        made = create_token(database, TokenAsk(name="ann", role="viewer"), actor="test")
    with backup(place.url) as copy:
        with place.opened() as (database, obligations):
            revoke_token(database, made.token_id, actor="test", journal=obligations)
        restore(place.url, copy)
    with place.opened() as (database, obligations):
        assert caller_of(database, made.token) is not None
        obligations.ensure()
        assert caller_of(database, made.token) is None


def test_revoke_token__at_once_also_where_the_journal_cannot_be_written(place: Place) -> None:
    with place.opened("absent") as (database, obligations):
        made = create_token(database, TokenAsk(name="ann", role="viewer"), actor="test")
        with pytest.raises(DependencyDownError, match="revoke it again"):
            revoke_token(database, made.token_id, actor="test", journal=obligations)
        assert caller_of(database, made.token) is None


@pytest.mark.parametrize(
    "change",
    [{"collection": None}, {"rulings": [{}]}, {"rulings": "none"}, {"rulings": [{"kind": "odd"}]}],
    ids=["no-collection", "no-id", "no-list", "unknown-kind"],
)
def test_catch_up__an_entry_that_cannot_be_read_stops_it_and_says_which(
    place: Place, change: dict[str, Any]
) -> None:
    """Anything but DependencyDownError would end the consumer, again after every start."""
    place.say("useless", "a")
    (entry,) = place.entries()
    facts = {**entry.facts, **change}
    if change.get("rulings") == [{"kind": "odd"}]:
        facts["rulings"] = [{**entry.facts["rulings"][0], "kind": "odd"}]
    if facts["collection"] is None:
        del facts["collection"]
    key = Journal(place.objects, "curated").write("ruling", facts)
    with pytest.raises(DependencyDownError, match=key):
        place.catch_up()
