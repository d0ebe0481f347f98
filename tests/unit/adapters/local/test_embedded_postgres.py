"""The embedded server: a start that was cut short is made up for by the next one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres


@pytest.fixture
def root() -> Iterator[Path]:
    """Short enough for a socket, and open to the user the server runs as."""
    folder = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_start__after_one_cut_short_makes_what_lacks(root: Path) -> None:
    (root / "data.new").mkdir()
    (root / "data.new" / "PG_VERSION").write_text("18\n")  # initdb writes it long before its end
    with EmbeddedPostgres(root, durable=False) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE pixsift")
        server.stop()
        server.start()
        server.stop()
        server.start()  # where it is already, it stays
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("pixsift",)
