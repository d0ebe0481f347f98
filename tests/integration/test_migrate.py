import psycopg
import pytest

from ledger_world import image, new_collection, rows, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import migrate, migrations, pending
from pixsift.errors import UserError
from pixsift.operations.audit import Auditor


def test_migrate__is_idempotent(database_url: str) -> None:
    assert migrate(database_url) == []
    assert pending(database_url) == []


def test_migrate__refuses_a_changed_file(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE schema_migrations SET checksum = 'other'")
    with pytest.raises(UserError, match="was changed after it was applied"):
        migrate(database_url)


def test_migrations__have_numbers_of_their_own() -> None:
    versions = [migration.version for migration in migrations()]
    assert len(set(versions)) == len(versions)
    assert all(len(version) == 4 and version.isdigit() for version in versions)


def test_migrate__a_ledger_without_turns_begins_with_its_present_seq(database_url: str) -> None:
    with Database(database_url) as database:
        ledger = Ledger(database)
        collection = new_collection(ledger)
        ledger.commit(collection, [image("a", turned(0))])
        with psycopg.connect(database_url) as connection:  # as it was before the migration
            connection.execute("DROP TABLE turn")
            connection.execute("DROP FUNCTION redecide_order")
            connection.execute("DELETE FROM schema_migrations WHERE version = '0090'")
        assert migrate(database_url) == ["0090_turns.sql"]
        ledger.commit(collection, [image("b", turned(90))])
        assert Auditor(database).audit(collection).findings == []
    turns = rows(database_url, "SELECT seq, actor, reason FROM turn ORDER BY seq")
    assert turns == [(1, "migrate", "upgrade"), (2, "pixsift", "arrival")]
