"""Reads what a collection made of its objects, and what a snapshot holds. Writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.rows import class_row

from pixsift.adapters.postgres.database import Database
from pixsift.core.outcomes import Outcome
from pixsift.sql import statements

_SQL = statements("outcomes")


@dataclass(frozen=True, slots=True)
class ObjectOutcome:
    """One object version and its current outcome."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    content_sha256: bytes | None
    thumbnail_key: str | None
    quality: Mapping[str, float] | None
    outcome: Outcome
    reason: str
    representative_object_id: int | None
    distance: float | None


@dataclass(frozen=True, slots=True)
class SnapshotObject:
    """One object of a snapshot."""

    object_id: int
    rank: int
    split: str
    destination_key: str
    bucket: str
    key: str
    version_id: str
    content_sha256: bytes | None


class Outcomes:
    """Readings of one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        """(outcome, reason) -> objects, most frequent reason first within an outcome."""
        with self._database.connection() as connection:
            rows = connection.execute(_SQL["outcome_counts"], {"collection": collection}).fetchall()
        return {(outcome, reason): count for outcome, reason, count in rows}

    def current(self, collection: str) -> list[ObjectOutcome]:
        """Every object's current outcome, in the order of arrival."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ObjectOutcome))
            return cursor.execute(_SQL["current_outcomes"], {"collection": collection}).fetchall()

    def snapshot_objects(self, snapshot_id: str) -> list[SnapshotObject]:
        """What a snapshot holds, by rank."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SnapshotObject))
            return cursor.execute(_SQL["snapshot_objects"], {"snapshot_id": snapshot_id}).fetchall()


def tally(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Outcome -> objects, over all reasons."""
    totals: dict[str, int] = {}
    for (outcome, _), count in counts.items():
        totals[outcome] = totals.get(outcome, 0) + count
    return totals
