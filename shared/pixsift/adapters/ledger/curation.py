"""What the ledger says of every file of a folder, in pages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from pixsift.adapters.postgres.database import Database
from pixsift.sql import statements

_SQL = statements("curation")
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file and what became of it."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    thumbnail_key: str | None
    size_bytes: int | None
    image_facts: Mapping[str, Any] | None
    captured_at: datetime | None
    content_sha256: str | None
    """Hex."""
    outcome: str
    reason: str
    distance: float | None
    """Cosine distance of a near-duplicate to what it repeats."""
    message: str | None
    flags: Sequence[str]
    representative: str | None
    """Key of the kept image that a duplicate repeats."""


@dataclass(frozen=True, slots=True)
class DuplicateOf:
    """A duplicate, below what it repeats."""

    representative_object_id: int
    object_id: int
    key: str
    thumbnail_key: str | None
    reason: str
    distance: float | None
    in_all: int
    """How many repeat the same one."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An object with what is needed to show it."""

    object_id: int
    bucket: str
    key: str
    version_id: str
    thumbnail_key: str | None


def last_choice(database: Database, collection: str) -> str | None:
    """The snapshot that was asked for last; None where there is none."""
    with database.connection() as connection:
        row = connection.execute(_SQL["last_choice"], {"collection": collection}).fetchone()
    return None if row is None else str(row[0])


class FolderRows:
    """The files of one collection as they stand now."""

    def __init__(self, database: Database, collection_id: int) -> None:
        self._database = database
        self._collection_id = collection_id

    def files(
        self,
        *,
        outcome: str | None = None,
        flagged: bool = False,
        with_duplicates: bool = False,
    ) -> Iterator[FileRow]:
        """Every file that is there, by key.

        outcome: only these. flagged: only those with a flag. with_duplicates: only those that
        others repeat.
        """
        after = ""
        while True:
            names = {
                "collection_id": self._collection_id, "outcome": outcome, "flagged": flagged,
                "with_duplicates": with_duplicates, "after": after, "limit": _PAGE,
            }  # fmt: skip
            with self._database.connection() as connection:
                cursor = connection.cursor(row_factory=class_row(FileRow))
                rows = cursor.execute(_SQL["images_by_key"], names).fetchall()
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1].key

    def duplicates_of(
        self, object_ids: Sequence[int], *, most: int
    ) -> dict[int, list[DuplicateOf]]:
        """By what they repeat, the nearest first; at most ``most`` of each."""
        found: dict[int, list[DuplicateOf]] = {}
        names = {
            "collection_id": self._collection_id, "object_ids": list(object_ids), "most": most,
        }  # fmt: skip
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(DuplicateOf))
            for row in cursor.execute(_SQL["duplicates_of"], names):
                found.setdefault(row.representative_object_id, []).append(row)
        return found

    def images(self, object_ids: Sequence[int]) -> dict[int, NamedImage]:
        """Some objects by their ids."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(NamedImage))
            rows = cursor.execute(_SQL["images_of"], {"object_ids": list(object_ids)}).fetchall()
        return {row.object_id: row for row in rows}
