import psycopg
import pytest

from pixsift.adapters.postgres.migrate import migrate, migrations, pending
from pixsift.errors import UserError


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
