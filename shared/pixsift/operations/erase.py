"""Erases an image: vector, metrics, thumbnail, copies in snapshots, and what it represented.

The order makes it safe to interrupt and to repeat: tombstones first, so that nothing that arrives
from now on brings the image back; then the outcome ``gone`` with its re-decisions, the objects at
S3, and the facts in the ledger last of all, since they are what the other steps work from. The
rows that say that there was an object, and what was decided about it when, stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql as identifiers
from psycopg.rows import dict_row

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.errors import NotFoundError
from pixsift.operations.redact import Redactor
from pixsift.reports import ErasureReport
from pixsift.sql import statements

_SQL = statements("erasure")


@dataclass(slots=True)
class _Erased:
    """An ``ErasureReport`` in the making."""

    objects: list[str] = field(default_factory=list)
    vectors: int = 0
    thumbnails: int = 0
    snapshots: list[str] = field(default_factory=list)
    source_versions: int = 0
    kept_vectors: int = 0


class Erasure:
    """Erases images from one ledger and its buckets."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        objects: S3Objects,
        redactor: Redactor,
        *,
        derived_bucket: str,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._objects = objects
        self._redactor = redactor
        self._derived_bucket = derived_bucket

    def find(
        self, bucket: str, key: str, version_id: str | None, *, copies: bool = True
    ) -> list[dict[str, Any]]:
        """The object versions that would be erased; with ``copies`` every object of that image."""
        with self._database.connection() as connection:
            names = {"bucket": bucket, "key": key, "version_id": version_id}
            ids = [row["object_id"] for row in _rows(connection, "erasable", names)]
            if copies and ids:
                same = _rows(connection, "with_the_same_image", {"object_ids": ids})
                ids = [row["object_id"] for row in same]
            return _rows(connection, "erasure_facts", {"object_ids": ids})

    def wanted(self, uri: S3Uri, *, copies: bool = True) -> list[dict[str, Any]]:
        """What ``find`` finds of a URI. Raises NotFoundError when that is nothing."""
        found = self.find(uri.bucket, uri.key, uri.version_id, copies=copies)
        if not found:
            raise NotFoundError(
                f"the ledger knows no object s3://{uri.bucket}/{uri.key}: nothing to erase",
                code="unknown_object",
            )
        return found

    def erase(
        self,
        found: Sequence[dict[str, Any]],
        *,
        reason: str,
        block_content: bool = True,
        source: bool = False,
    ) -> ErasureReport:
        """Erase what ``find`` found.

        block_content: the same bytes are not judged again under any key; otherwise only these
        versions are blocked. source: delete the versions in the source bucket as well.
        """
        found = self._bury_all(found, reason, block_content)
        result = _Erased(objects=[_version(row).uri for row in found])
        ids = [row["object_id"] for row in found]
        pixels = sorted({bytes(p) for row in found for p in row["pixels"]})
        for object_id in ids:
            held = self._redactor.redact(object_id)
            result.snapshots += [s for s in held if s not in result.snapshots]
        result.thumbnails = self._drop_thumbnails(found, ids, pixels)
        if source:
            result.source_versions = self._drop_sources(found)
        with self._database.transaction() as connection:
            result.vectors = self._forget(connection, ids, pixels)
        result.kept_vectors = len(pixels) - result.vectors
        return ErasureReport.model_validate(result)

    def _bury_all(
        self, found: Sequence[dict[str, Any]], reason: str, block_content: bool
    ) -> list[dict[str, Any]]:
        """Bury and remove; returns the facts of ``found`` and of the copies that arrived since.

        Whoever asks for the tombstones under a collection's lock sees them from the burial on, so
        once every lock was had after it, nothing of the image is on its way any more: what the
        ledger says then about bytes, pixels and collections stays true. What was read before it
        does not: a collection may have decided the object while a person was asked.
        """
        known = list(found)
        while True:
            with self._database.connection() as connection:
                for row in known:
                    self._bury(connection, row, reason, block_content)
            now = self._facts_now(known, copies=block_content)
            if _contents(now) == _contents(known):
                self._remove(now)
                return now
            known = now

    def _facts_now(self, known: Sequence[dict[str, Any]], *, copies: bool) -> list[dict[str, Any]]:
        ids = [row["object_id"] for row in known]
        with self._database.connection() as connection:
            with connection.transaction():
                history.lock_all(connection)
            if copies:
                same = _rows(connection, "with_the_same_image", {"object_ids": ids})
                ids = [row["object_id"] for row in same]
            return _rows(connection, "erasure_facts", {"object_ids": ids})

    def _bury(
        self, connection: Connection, row: dict[str, Any], reason: str, block_content: bool
    ) -> None:
        salt = self._ledger.salt(connection)
        content = row["content_sha256"] if block_content else None
        connection.execute(
            _SQL["bury"],
            {
                "bucket": row["bucket"],
                "version_mark": version_mark(salt, _version(row)),
                "content_mark": None if content is None else content_mark(salt, bytes(content)),
                "salt": salt,
                "reason": reason,
            },
        )

    def _remove(self, found: Sequence[dict[str, Any]]) -> None:
        names = {name for row in found for name in row["collections"]}
        for collection in self._ledger.collections():
            if collection.name in names:
                versions = [_version(row) for row in found if collection.name in row["collections"]]
                self._ledger.remove(collection, versions, reason="erased")

    def _drop_thumbnails(
        self, found: Sequence[dict[str, Any]], ids: list[int], pixels: list[bytes]
    ) -> int:
        with self._database.connection() as connection:
            names = {"object_ids": ids, "pixels": pixels}
            used = {bytes(row["pixel_sha256"]) for row in _rows(connection, "still_used", names)}
        keys = {f"thumbnails/{p.hex()}.webp" for p in pixels if p not in used}
        if not used:
            keys |= {row["thumbnail_key"] for row in found if row["thumbnail_key"]}
        present = [key for key in keys if self._objects.head(self._derived_bucket, key)]
        for key in present:
            self._objects.delete(self._derived_bucket, key)
        return len(present)

    def _drop_sources(self, found: Sequence[dict[str, Any]]) -> int:
        for row in found:
            version = _version(row)
            identity = version.version_id if version.is_versioned else None
            self._objects.delete(version.bucket, version.key, version_id=identity)
        return len(found)

    def _forget(self, connection: Connection, ids: list[int], pixels: list[bytes]) -> int:
        names = {"object_ids": ids, "pixels": pixels}
        # A decision under way may be about to need one of the vectors; after it, the next one
        # sees under the lock that they are gone.
        connection.execute(_SQL["lock_objects"], names)
        history.lock_all(connection)
        history.forget(connection, ids)
        for name in ("drop_from_spaces", "drop_arrivals", "blank_items", "blank_objects"):
            connection.execute(_SQL[name], names)
        for row in _rows(connection, "body_tables", {}):
            connection.execute(
                identifiers.SQL("DELETE FROM {} WHERE object_id = ANY (%(object_ids)s)").format(
                    identifiers.Identifier(row["body_table"])
                ),
                names,
            )
        return len(connection.execute(_SQL["drop_vectors"], names).fetchall())


def _contents(rows: Sequence[dict[str, Any]]) -> set[tuple[int, bytes | None]]:
    return {(row["object_id"], row["content_sha256"]) for row in rows}


def _version(row: dict[str, Any]) -> ObjectVersion:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"])


def _rows(connection: Connection, name: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name], names).fetchall()


def new_erasure(
    database: Database,
    objects: S3Objects,
    *,
    derived_bucket: str,
    curated_bucket: str,
    actor: str = "pixsift",
) -> Erasure:
    """An erasure over one ledger, its thumbnails and its snapshots."""
    redactor = Redactor(Snapshots(database), objects, curated_bucket)
    ledger = Ledger(database, actor=actor)
    return Erasure(database, ledger, objects, redactor, derived_bucket=derived_bucket)
