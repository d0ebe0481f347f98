"""Obligations: erasures and rulings that a ledger must keep even after a restore. A restored
database has lost what was decided since its backup. What S3 knows can be found again; what people
asked for cannot. So each obligation is first written to a journal outside the database
(``adapters.aws.journal``), and a ledger records which entries it has carried out. Before a process
decides or serves, and again whenever the ledger was exchanged, the missing entries are carried out,
oldest first. Doing one twice changes nothing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from pixsift.adapters.aws.journal import Journal, unreadable
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.duties import which_ledger
from pixsift.adapters.postgres.database import Database
from pixsift.operations.forget import meet_erasure
from pixsift.sql import statements

_SQL = statements("obligations")
_KEYS_AT_ONCE = 1000

Meet = Callable[[Database, Mapping[str, Any]], None]
"""Carries out an entry, given its facts; may be called again."""
KINDS: Final[Mapping[str, Meet]] = {"erasure": meet_erasure}
"""Every kind of obligation. A new kind needs a line here, and ``Journal.write`` where it is
made."""


class Obligations:
    """The journal, and which of its entries one ledger has carried out. Thread-safe."""

    def __init__(
        self, database: Database, journal: Journal, kinds: Mapping[str, Meet] = KINDS
    ) -> None:
        self._database = database
        self._journal = journal
        self._kinds = kinds
        self._lock = threading.Lock()
        self._ledger: str | None = None
        """The ledger that had carried out every entry at the last check."""

    def waiting(self) -> list[str]:
        """Keys of the entries that this ledger has not carried out, oldest first."""
        waiting: list[str] = []
        for keys in _batches(self._journal.entries()):
            with self._database.connection() as connection:
                rows = connection.execute(_SQL["met"], {"keys": keys}).fetchall()
            met = {key for (key,) in rows}
            waiting += [key for key in keys if key not in met]
        return waiting

    def catch_up(self) -> int:
        """Carry out every entry that is missing in this ledger; returns how many there were.

        Raises DependencyDownError or TransientError; the former also for an entry that this
        release does not understand.
        """
        with self._lock:
            with self._database.connection() as connection:
                ledger = which_ledger(connection)
            waiting = self.waiting()
            for key in waiting:
                entry = self._journal.read(key)
                meet = self._kinds.get(entry.kind)
                if meet is None:
                    raise unreadable(self._journal.bucket, key, f"kind {entry.kind!r}")
                meet(self._database, entry.facts)
                self.note(key, entry.kind)
            self._ledger = ledger
            return len(waiting)

    def ensure(self) -> None:
        """Catch up if this is another ledger than the last time. Raises as ``catch_up``."""
        with self._database.connection() as connection:
            ledger = which_ledger(connection)
        if not self.are_met_by(ledger):
            self.catch_up()

    def are_met_by(self, ledger: str) -> bool:
        """Whether this ledger is up to date. ledger: the answer of ``which_ledger``."""
        return self._ledger == ledger

    def note(self, key: str, kind: str) -> None:
        """Record that an entry is carried out."""
        with self._database.connection() as connection:
            connection.execute(_SQL["meet"], {"key": key, "kind": kind})


def obligations_of(database: Database, objects: S3Objects, bucket: str) -> Obligations:
    """The obligations of a ledger. bucket: of the journal."""
    return Obligations(database, Journal(objects, bucket))


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for key in keys:
        some.append(key)
        if len(some) == _KEYS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some
