"""Obligations: erasures, rulings and revoked tokens that a ledger must keep even after a restore.

A restored database has lost what was decided since its backup. What S3 knows can be found again;
what people asked for cannot. So each obligation is written to a journal outside the database
(``adapters.aws.journal``) before success is reported, and a ledger records which entries it has
carried out. Before a process decides or serves, and again whenever the ledger was exchanged, the
missing entries are carried out, oldest first. Doing one twice changes nothing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from pixsift.adapters.aws.journal import Journal, Obligation, unreadable
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.duties import which_ledger
from pixsift.adapters.postgres.database import Database
from pixsift.errors import DependencyDownError, PixsiftError, UserError
from pixsift.operations import ruling_journal
from pixsift.operations.access import meet_revocation
from pixsift.operations.forget import meet_erasure
from pixsift.sql import statements

_SQL = statements("obligations")
_KEYS_AT_ONCE = 1000

Meet = Callable[[Database, Obligation], bool]
"""Carries out an entry; may be called again. False: it has to wait."""
KINDS: Final[Mapping[str, Meet]] = {
    "erasure": meet_erasure,
    ruling_journal.KIND: ruling_journal.meet_rulings,
    "revoked_token": meet_revocation,
}
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

        A ruling of a collection that this ledger does not have waits for the next call.

        Raises DependencyDownError, also for an entry that this release does not understand:
        without the journal nothing may be decided, whatever S3 or PostgreSQL answered.
        """
        with self._lock:
            with self._database.connection() as connection:
                ledger = which_ledger(connection)
            try:
                waiting = self.waiting()
                for key in waiting:
                    self._meet(key)
            except (DependencyDownError, UserError):
                raise
            except PixsiftError as error:
                raise DependencyDownError(
                    f"the journal {self._journal.place} is not met yet: {error}"
                ) from error
            self._ledger = ledger
            return len(waiting)

    def _meet(self, key: str) -> None:
        entry = self._journal.read(key)
        meet = self._kinds.get(entry.kind)
        if meet is None:
            raise unreadable(self._journal.bucket, key, f"kind {entry.kind!r}")
        try:
            met = meet(self._database, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(
                self._journal.bucket, key, f"{type(error).__name__}: {error}"
            ) from error
        if met:
            self.note(key, entry.kind)

    def ensure(self) -> None:
        """Catch up if this is another ledger than the last time. Raises as ``catch_up``."""
        with self._database.connection() as connection:
            ledger = which_ledger(connection)
        if not self.are_met_by(ledger):
            self.catch_up()

    def are_met_by(self, ledger: str) -> bool:
        """Whether this ledger is up to date. ledger: the answer of ``which_ledger``."""
        return self._ledger == ledger

    def write_rulings(self) -> int:
        """Write what people said or took back into the journal, as far as it is not there.

        Returns how many entries were needed. Raises DependencyDownError where it cannot be written:
        the rulings are in force, and the next call writes them.
        """
        try:
            keys = ruling_journal.write_rulings(self._database, self._journal)
        except PixsiftError as error:
            raise DependencyDownError(
                f"the rulings are in force, but the journal {self._journal.place} cannot be "
                f"written, so that a restored ledger would forget them ({error}): the curator "
                "writes them as soon as it can",
                code="not_journaled",
            ) from error
        for key in keys:
            self.note(key, ruling_journal.KIND)
        return len(keys)

    def write_revocation(self, token_id: str) -> None:
        """Write into the journal that a token is revoked.

        Raises DependencyDownError where it cannot be written; the token is revoked all the same.
        """
        try:
            key = self._journal.write("revoked_token", {"token_id": token_id})
        except PixsiftError as error:
            raise DependencyDownError(
                f"the token is revoked, but the journal {self._journal.place} cannot be written, "
                f"so that a restored ledger would admit it ({error}): revoke it again later",
                code="not_journaled",
            ) from error
        self.note(key, "revoked_token")

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
