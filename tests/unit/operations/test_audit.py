"""The audit finds what is broken, and only that; what it can, it repairs."""

from collections.abc import Iterator

import pytest

from ledger_world import finding, image, ledger_of, new_collection, outcomes, rows, turned
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.core.collection import Collection
from pixsift.operations.audit import _SQL, Auditor


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def collection(database_url: str) -> Iterator[Collection]:
    """Kept, near, equal, rejected, gone, a promoted one, and a switch of generations."""
    with ledger_of(database_url) as ledger:
        made = new_collection(ledger)
        ledger.commit(made, [image(f"k{n}", turned(n * 30)) for n in range(6)])
        ledger.commit(made, [image("near", turned(5)), image("equal", turned(60), content="k2@v1")])
        ledger.commit(made, [finding("bad", "rejected", "blurred"), image("gone", turned(200))])
        ledger.remove(made, [image("gone", turned(0)).version, image("k0", turned(0)).version])
        with Database(database_url) as database:
            Generations(database).redecide(made, epsilon=0.06)
        ledger.commit(made, [image("late", turned(255))])
        yield ledger.collection("c")


def test_audit__a_sound_ledger(database: Database, collection: Collection) -> None:
    report = Auditor(database).audit(collection)
    assert report.findings == []
    assert (report.kept, report.duplicates) == (7, 1)
    assert report.pairs_compared == 21


BREAK = {
    "INV1 representative lost": (
        "DELETE FROM representative WHERE object_id = (SELECT object_id FROM object"
        " WHERE key = 'k4') AND generation = 2 RETURNING 1"
    ),
    "INV1 representative too many": (
        "UPDATE decision SET outcome = 'rejected' WHERE object_id = (SELECT object_id FROM object"
        " WHERE key = 'k4') AND generation = 2 RETURNING 1"
    ),
    "INV2 near": (
        "UPDATE embedding SET embedding = (SELECT e.embedding FROM embedding e JOIN object o"
        " USING (pixel_sha256) WHERE o.key = 'k4') WHERE pixel_sha256 ="
        " (SELECT pixel_sha256 FROM object WHERE key = 'k5') RETURNING 1"
    ),
    "INV3 not kept": (
        "UPDATE decision SET representative_object_id = (SELECT object_id FROM object"
        " WHERE key = 'bad') WHERE outcome = 'duplicate' AND generation = 2 RETURNING 1"
    ),
    "INV3 other bytes": (
        "UPDATE decision SET representative_object_id = (SELECT object_id FROM object"
        " WHERE key = 'k5') WHERE outcome = 'duplicate' AND generation = 2 RETURNING 1"
    ),
    "INV4 gap": "UPDATE collection SET seq = seq + 1 RETURNING 1",
    "INV4 no turn": "DELETE FROM turn WHERE seq = 3 RETURNING 1",
    "INV4 no turn at the end": (
        "DELETE FROM turn WHERE seq = (SELECT seq FROM collection) RETURNING 1"
    ),
    "INV6 vector lost": (
        "DELETE FROM embedding WHERE pixel_sha256 = (SELECT pixel_sha256 FROM object"
        " WHERE key = 'k3') RETURNING 1"
    ),
    "INV9 facts of an erased object": (
        "UPDATE object SET erased_at = now() WHERE key = 'k5' RETURNING 1"
    ),
    "INV9 bytes of an erased image": (
        "INSERT INTO tombstone (bucket, key_hash, content_hash, salt) SELECT 'raw', '',"
        " sha256(salt || content_sha256), salt FROM object, tombstone_salt"
        " WHERE key = 'k5' RETURNING 1"
    ),
    "INV10 a counter": "UPDATE outcome_count SET objects = objects + 1 RETURNING 1",
    "INV10 a counter lost": "DELETE FROM outcome_count WHERE reason = 'content' RETURNING 1",
    "INV9 a vector of nobody": (
        "INSERT INTO embedding (space_id, pixel_sha256, embedding) SELECT space_id, 'x', embedding"
        " FROM embedding LIMIT 1 RETURNING 1"
    ),
}


@pytest.mark.parametrize("broken", BREAK)
def test_audit__finds(
    broken: str, database: Database, collection: Collection, database_url: str
) -> None:
    assert rows(database_url, BREAK[broken])
    report = Auditor(database).audit(collection)
    assert broken.split(maxsplit=1)[0] in {f.invariant for f in report.findings}


@pytest.mark.parametrize("broken", [name for name in BREAK if name.startswith("INV10")])
def test_repair__counters(
    broken: str, database: Database, collection: Collection, database_url: str
) -> None:
    assert rows(database_url, BREAK[broken])
    auditor = Auditor(database)
    assert auditor.repair(collection, auditor.audit(collection)).findings == []


def test_audit__hashes_each_object_once_however_many_were_erased(database: Database) -> None:
    with database.connection() as connection:
        connection.execute("SET enable_nestloop = off")  # the plan of large tables, on small ones
        found = connection.execute(b"EXPLAIN (COSTS OFF) " + _SQL["traces_of_erased"].encode())
        plan = "\n".join(line for (line,) in found.fetchall())
    assert "tombstone" in plan
    assert "Nested Loop" not in plan


def miss(url: str) -> None:
    """Two kept near-duplicates, as an approximate index leaves them."""
    assert rows(url, BREAK["INV2 near"])


def test_repair__a_missed_pair(
    database: Database, collection: Collection, database_url: str
) -> None:
    miss(database_url)
    auditor = Auditor(database)
    report = auditor.audit(collection)
    assert report.miss_rate == pytest.approx(1 / 7)
    mended = auditor.repair(collection, report)
    assert mended.findings == []
    assert [(c.was, c.outcome) for c in mended.repaired] == [("kept", "duplicate")]
    assert outcomes(database_url)["k5@v1"] == ("duplicate", "near", "k4")
    assert auditor.audit(collection).findings == []


def test_repair__a_claim_that_does_not_hold(
    database: Database, collection: Collection, database_url: str
) -> None:
    assert rows(database_url, BREAK["INV3 not kept"])
    auditor = Auditor(database)
    mended = auditor.repair(collection, auditor.audit(collection))
    assert mended.findings == []
    assert outcomes(database_url)["equal@v1"] == ("duplicate", "content", "k2")


def test_audit__a_sample_that_holds_one_of_the_pair_finds_it(
    database: Database, collection: Collection, database_url: str
) -> None:
    miss(database_url)
    found = sum(
        bool(Auditor(database).audit(collection, sample=size).findings) for size in (6, 7, 50)
    )
    assert found >= 2


def test_audit__what_was_taken_back_is_counted(
    database: Database, collection: Collection, database_url: str
) -> None:
    ((bad,),) = rows(database_url, "SELECT object_id FROM object WHERE key = 'bad'")
    Rejudge(database).take_back(collection, [bad])
    report = Auditor(database).audit(collection)
    assert (report.undecided, report.findings) == (1, [])


def test_rebuild__the_index_holds_what_is_kept(
    database: Database, collection: Collection, database_url: str
) -> None:
    index = PgvectorSearch(database, background=False)
    index.advance(collection.collection_id)
    assert rows(database_url, "DELETE FROM hnsw_1_2 RETURNING 1")
    assert index.rebuild(collection.collection_id) == collection.seq
    assert rows(database_url, "SELECT count(*) FROM hnsw_1_2") == [(7,)]


def test_audit__remembered_images_are_no_finding(
    database: Database, collection: Collection, database_url: str
) -> None:
    with ledger_of(database_url) as ledger:
        keep_remembering(ledger, collection)
    assert Auditor(database).audit(collection).findings == []


def keep_remembering(ledger: Ledger, collection: Collection) -> None:
    assert collection.expiry_policy == "remember"
    ledger.remove(collection, [image("k3", turned(0)).version], reason="expired")
