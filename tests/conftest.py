"""One PostgreSQL per run, one template database, a fresh copy per test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from pixsift.adapters.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.migrate import migrate

REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server of this test run; faster than durable, as nothing outlives it."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    root.chmod(0o755)
    try:
        with EmbeddedPostgres(root, durable=False) as server:
            yield server
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """A migrated database that tests copy."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_pixsift")
    migrate(postgres.url("template_pixsift"))
    return "template_pixsift"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        yield postgres.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images beside the checkout; absent elsewhere."""
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"no real images: {REAL_IMAGES} is absent")
    return REAL_IMAGES
