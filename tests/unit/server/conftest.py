"""One served ledger per module: tests of reading share it."""

from collections.abc import Iterator

import pytest

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from server_world import World, new_database, served


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template_database: str) -> Iterator[World]:
    """See ``server_world``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with new_database(postgres, template_database) as url, served(url) as made:
            yield made
