"""The part of an erasure that happens in the ledger: bury, remove, forget.

The order makes it safe to interrupt and to repeat: tombstones first, so that no later arrival
brings the image back; then the outcome ``gone`` with its re-decisions; the facts last, since the
other steps need them. The rows that say that an object existed, and what was decided about it when,
stay.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import sql as identifiers
from psycopg.rows import dict_row

from pixsift.adapters.aws.journal import Obligation
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.identity import ObjectVersion
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.sql import statements

_SQL = statements("erasure")

Facts = dict[str, Any]
"""A row of the statement ``erasure_facts``."""


class Forgetting:
    """Makes one ledger forget images. Every step may be repeated."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def find(
        self, bucket: str, key: str, version_id: str | None, *, copies: bool = True
    ) -> list[Facts]:
        """The object versions that would be erased; with ``copies`` every object of that image."""
        with self._database.connection() as connection:
            names = {"bucket": bucket, "key": key, "version_id": version_id}
            ids = [row["object_id"] for row in _rows(connection, "erasable", names)]
            return self._facts(connection, ids, copies=copies)

    def entry(self, found: Iterable[Facts], *, reason: str, block_content: bool) -> dict[str, Any]:
        """The journal entry of this erasure: enough to repeat it, without any unsalted hash."""
        with self._database.connection() as connection:
            salt = self._ledger.salt(connection)
        marks = [
            content_mark(salt, bytes(row["content_sha256"])).hex()
            if block_content and row["content_sha256"] is not None
            else None
            for row in found
        ]
        return {
            "reason": reason,
            "salt": salt.hex(),
            "versions": [
                {"bucket": row["bucket"], "key": row["key"], "version_id": row["version_id"],
                 "content_mark": mark}
                for row, mark in zip(found, marks, strict=True)
            ],
        }  # fmt: skip

    def bury(self, entry: Mapping[str, Any]) -> None:
        """Write tombstones for the objects of an entry: from now on a repeated event is only
        decided as gone."""
        with self._database.transaction() as connection:
            # A new ledger recognizes bytes only with the salt that the marks were made with.
            connection.execute(_SQL["adopt_salt"], {"salt": bytes.fromhex(entry["salt"])})
            salt = self._ledger.salt(connection)
            is_ours = salt.hex() == entry["salt"]
            for named in entry["versions"]:
                mark = named["content_mark"] if is_ours else None
                connection.execute(
                    _SQL["bury"],
                    {
                        "bucket": named["bucket"],
                        "version_mark": version_mark(salt, _version(named)),
                        "content_mark": None if mark is None else bytes.fromhex(mark),
                        "salt": salt,
                        "reason": entry["reason"],
                    },
                )

    def named_by(self, entry: Mapping[str, Any]) -> list[Facts]:
        """What the ledger knows of the versions that an entry names."""
        names = {
            part: [named[part] for named in entry["versions"]]
            for part in ("bucket", "key", "version_id")
        }
        with self._database.connection() as connection:
            ids = [row["object_id"] for row in _rows(connection, "named_versions", names)]
            return self._facts(connection, ids, copies=False)

    def facts_now(self, known: Iterable[Facts], *, copies: bool) -> list[Facts]:
        """The facts of the same objects once every collection's lock was had.

        A decision that reads the tombstones under a lock sees them from then on. So after this
        nothing of the image can arrive any more, and the facts stay true.
        """
        with self._database.connection() as connection:
            with connection.transaction():
                history.lock_all(connection)
            return self._facts(connection, [row["object_id"] for row in known], copies=copies)

    def remove(self, found: Sequence[Facts]) -> None:
        """The outcome ``gone``, in every collection that decided one of them."""
        names = {name for row in found for name in row["collections"]}
        for collection in self._ledger.collections():
            if collection.name in names:
                versions = [_version(row) for row in found if collection.name in row["collections"]]
                self._ledger.remove(collection, versions, reason="erased")

    def forget(self, found: Sequence[Facts]) -> int:
        """Vectors, metrics, attributes and hashes; how many vectors."""
        names = {"object_ids": [row["object_id"] for row in found], "pixels": pixels_of(found)}
        with self._database.transaction() as connection:
            # A running decision may still need one of the vectors; after it, the next one
            # sees under the lock that they were removed.
            connection.execute(_SQL["lock_objects"], names)
            history.lock_all(connection)
            history.forget(connection, names["object_ids"])
            for name in (
                "drop_from_spaces",
                "drop_arrivals",
                "drop_protected",
                "blank_items",
                "blank_objects",
            ):
                connection.execute(_SQL[name], names)
            for row in _rows(connection, "body_tables", {}):
                connection.execute(
                    identifiers.SQL("DELETE FROM {} WHERE object_id = ANY (%(object_ids)s)").format(
                        identifiers.Identifier(row["body_table"])
                    ),
                    names,
                )
            return len(connection.execute(_SQL["drop_vectors"], names).fetchall())

    def still_used(self, found: Sequence[Facts]) -> set[bytes]:
        """Pixels that another object has as well: their thumbnail stays."""
        names = {"object_ids": [row["object_id"] for row in found], "pixels": pixels_of(found)}
        with self._database.connection() as connection:
            return {bytes(row["pixel_sha256"]) for row in _rows(connection, "still_used", names)}

    def _facts(self, connection: Connection, ids: list[int], *, copies: bool) -> list[Facts]:
        if copies and ids:
            same = _rows(connection, "with_the_same_image", {"object_ids": ids})
            ids = [row["object_id"] for row in same]
        return _rows(connection, "erasure_facts", {"object_ids": ids})


def meet_erasure(database: Database, obligation: Obligation) -> bool:
    """Erase from a restored ledger what was erased before. S3 was not restored: its copies,
    thumbnails and shards are gone already."""
    entry = obligation.facts
    forgetting = Forgetting(database, Ledger(database, actor="journal"))
    forgetting.bury(entry)
    found = forgetting.facts_now(forgetting.named_by(entry), copies=False)
    forgetting.remove(found)
    snapshots = Snapshots(database)
    for row in found:
        for held in snapshots.holding(row["object_id"]):
            snapshots.redact(held["snapshot_id"], row["object_id"])
    forgetting.forget(found)
    return True


def pixels_of(found: Iterable[Facts]) -> list[bytes]:
    """Every pixel hash among the facts, once."""
    return sorted({bytes(pixels) for row in found for pixels in row["pixels"]})


def _version(row: Mapping[str, Any]) -> ObjectVersion:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"])


def _rows(connection: Connection, name: str, names: dict[str, Any]) -> list[Facts]:
    """The answer of a statement of ``erasure.sql``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name], names).fetchall()
