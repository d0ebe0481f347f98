"""A ledger that goes back in time: what a restore, or a failover to a stale standby, does to it.

The server stays, the database is exchanged for an earlier copy of itself: to a consumer that looks
the same (its sessions end, and the next ones find an older ledger), and it takes a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo


@contextmanager
def backup(url: str) -> Iterator[str]:
    """A copy of the database as it is now; its name. Sessions of the database are ended."""
    name = f"b_{uuid4().hex[:12]}"
    with _server(url) as server, _closed_to_others(server, _database(url)):
        server.execute(f"CREATE DATABASE {name} TEMPLATE {_database(url)}")
    try:
        yield name
    finally:
        with _server(url) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def restore(url: str, copy: str) -> None:
    """Put the copy in the place of the database; what happened since is lost."""
    database = _database(url)
    with _server(url) as server, _closed_to_others(server, database):
        server.execute(f"ALTER DATABASE {database} RENAME TO {database}_lost")
        server.execute(f"ALTER DATABASE {copy} RENAME TO {database}")
        server.execute(f"DROP DATABASE {database}_lost WITH (FORCE)")


@contextmanager
def _closed_to_others(server: psycopg.Connection[Any], database: str) -> Iterator[None]:
    server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
        (database,),
    )
    try:
        yield
    finally:
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


def _server(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True)


def _database(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])
