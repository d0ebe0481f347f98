"""Whether the ledger that answers is the one whose obligations were met.

A database may be exchanged for an earlier copy of itself under a running process. Only the
connection shows it: another server start, another database, other tables.
"""

from typing import Protocol

from pixsift.adapters.postgres.database import Connection, Cursor
from pixsift.sql import statements

_SQL = statements("obligations")


class Duties(Protocol):
    """See ``pixsift.operations.obligations.Obligations``."""

    def are_met_by(self, ledger: str) -> bool: ...
    def catch_up(self) -> int: ...


class AnotherLedgerError(Exception):
    """The ledger may have obligations that it has not met: roll back, catch up, start again."""


def ask_which_ledger(connection: Connection) -> Cursor:
    """Send the query, possibly in a pipeline; ``answered`` reads the answer."""
    return connection.execute(_SQL["which_ledger"])


def answered(cursor: Cursor) -> str:
    """The ledger's identity: equal texts, equal ledgers."""
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - it has no FROM
    return str(row[0])


def which_ledger(connection: Connection) -> str:
    """Ask, and wait for the answer."""
    return answered(ask_which_ledger(connection))
