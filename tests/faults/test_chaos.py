"""An hour of everything at once, and an oracle that shares no code with the product.

``PIXSIFT_CHAOS_MINUTES`` sets the length (default 60), ``PIXSIFT_CHAOS_SEED`` the mixture.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from faults.chaos import FIRST, Chaos, chaos
from faults.chaos_oracle import World, complaints, leftovers
from faults.images import jpeg, truncated
from ledger_world import digest, finding, image, ledger_of, new_collection, turned
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.migrate import migrate

MINUTES = float(os.environ.get("PIXSIFT_CHAOS_MINUTES", "60"))
SEED = int(os.environ.get("PIXSIFT_CHAOS_SEED", "1"))


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A durable PostgreSQL of the test's own: it is going to crash."""
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as made:
            migrate(made.url())
            yield made


@pytest.mark.full
def test_chaos__nothing_is_lost_doubled_or_remembered(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with chaos(server, tmp_path, seed=SEED) as run:
        run.run_for(60 * MINUTES)
        _tell(run)
        assert run.done["checked"] >= 1
        logs = "".join(p.read_text("utf-8", "replace") for p in tmp_path.glob("*-[12].log"))
        assert "a thread died" not in logs


def _tell(run: Chaos) -> None:
    print(f"{MINUTES:g} minutes, seed {SEED}: {run.report()}")  # noqa: T201 - for the record


# -- the oracle sees what is wrong -----------------------------------------------------------


@pytest.fixture
def sound(database_url: str) -> tuple[str, World]:
    """Kept a and b, a near one, the same bytes again, a broken one and one that is gone."""
    world = World()
    bodies = {
        "a": jpeg(1), "near": jpeg(1, quality=60), "b": jpeg(2), "same": jpeg(2),
        "cut": truncated(3), "gone": jpeg(4),
    }  # fmt: skip
    for key, body in bodies.items():
        world.add(key, "v1", body)
    world.gone.add(("gone", "v1"))
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, FIRST)
        ledger.commit(collection, [
            image("a", turned(0)), image("near", turned(5)), image("b", turned(90), content="b"),
            image("same", turned(90), content="b"), finding("cut", "rejected", "truncated"),
            finding("gone", "gone", "deleted"),
        ])  # fmt: skip
    return database_url, world


def test_oracle__has_no_complaint_about_a_sound_ledger(sound: tuple[str, World]) -> None:
    assert complaints(sound[0], FIRST, sound[1]) == []
    assert leftovers(*sound) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE decision SET outcome = 'kept', representative_object_id = NULL, distance = NULL"
         " WHERE {near}", "near are both kept within epsilon"),
        ("UPDATE decision SET outcome = 'kept', representative_object_id = NULL, distance = NULL"
         " WHERE {same}", "2 images of the same bytes are kept"),
        ("DELETE FROM decision WHERE {a}", "('a', 'v1') has no outcome"),
        ("UPDATE decision SET outcome = 'failed', reason = 'gave_up' WHERE {cut}",
         "is failed (gave_up), not rejected"),
        ("UPDATE decision SET outcome = 'rejected' WHERE {gone}", "is rejected"),
        ("UPDATE decision SET representative_object_id = {id_of_b} WHERE {near}",
         "near is a duplicate of b, which is farther than epsilon"),
        ("UPDATE decision SET representative_object_id = {id_of_cut} WHERE {near}",
         "near is a duplicate of what is not kept"),
        ("DELETE FROM turn WHERE seq = 0", "the history has a gap"),
    ],
)  # fmt: skip
def test_oracle__sees_damage(sound: tuple[str, World], damage: str, says: str) -> None:
    url, world = sound
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")  # no trigger
        for check in ("decision_check", "decision_check1"):
            connection.execute(f"ALTER TABLE decision DROP CONSTRAINT IF EXISTS {check}".encode())
        ids: dict[str, int] = dict(
            connection.execute("SELECT key, object_id FROM object").fetchall()
        )
        named = {key: f"object_id = {number}" for key, number in ids.items()}
        damage = damage.format(id_of_b=ids["b"], id_of_cut=ids["cut"], **named)
        connection.execute(damage.encode())
    found = complaints(url, FIRST, world)
    assert any(says in line for line in found), found


def test_oracle__sees_a_hash_of_erased_bytes(sound: tuple[str, World]) -> None:
    url, world = sound
    world.erased_bytes.add(digest("b").hex())
    assert leftovers(url, world) == ["2 rows of object.content_sha256 hold a hash of erased bytes",
                                     "1 rows of representative.content_sha256 hold a hash of "
                                     "erased bytes"]  # fmt: skip
