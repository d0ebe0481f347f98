"""The ledger: spaces, collections, what is known already, and the commit of decided batches.

It holds finished facts only. How a batch is decided, and why no two consumers can both keep a
pair of near-duplicates, is in ``pixsift.adapters.ledger.decisions``.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import numpy as np
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger.decision_plan import read_salt, version_columns
from pixsift.adapters.ledger.decisions import DecisionProtocol
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.collection import Collection, ExpiryPolicy
from pixsift.core.dedup import Halves
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Decision, Judged, KnownImage
from pixsift.core.sources import SourceRule, compile_key_pattern
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.errors import ConflictError, DependencyDownError, NotFoundError, RequestError
from pixsift.ports import EmbeddingSpace, NeighborSearch
from pixsift.sql import statements

_SQL = statements("ledger")
_PROBE_BYTES: Final = 256 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

Pause = Callable[[str], None]
"""Called at named points of the protocol; tests wait or die there."""


class Ledger:
    """One ledger. Thread-safe; every method opens what it needs and leaves nothing open.

    Raises TransientError (lost races, timeouts) and DependencyDownError (no database) anywhere.
    """

    def __init__(
        self,
        database: Database,
        *,
        search: NeighborSearch | None = None,
        actor: str = "pixsift",
        pause: Pause | None = None,
    ) -> None:
        """search: defaults to the exact resident search. actor: who the turns say made them; an
        entry point that writes names itself."""
        self._database = database
        self._actor = actor
        self.search = search or ResidentSearch(database, pause=pause)
        self._protocol = DecisionProtocol(database, self.search, actor=actor, pause=pause)
        self._salt: bytes | None = None

    def ensure_space(self, space: EmbeddingSpace) -> None:
        """Record an embedding space; known ones are left alone."""
        with self._database.connection() as connection:
            connection.execute(
                _SQL["ensure_space"],
                {
                    "space_id": space.space_id,
                    "name": space.model,
                    "revision": space.revision,
                    "weights_sha256": space.weights_sha256,
                    "recipe_id": space.recipe_id,
                    "pooling": space.pooling,
                    "dimension": space.dimension,
                },
            )

    def create_collection(
        self,
        name: str,
        *,
        sources: Sequence[SourceRule],
        space_id: str,
        epsilon: float,
        second_look: Mapping[str, Any] | None = None,
        key_pattern: str | None = None,
        quality_policy: Mapping[str, Any] | None = None,
        expiry_policy: ExpiryPolicy = "remember",
        calibration: Mapping[str, Any] | None = None,
    ) -> Collection:
        """Add a collection with its first generation.

        Raises UserError for a taken or malformed name, an unknown space, or a pattern of no use.
        """
        self._check(name, key_pattern, space_id)
        with self._database.transaction() as connection:
            row = connection.execute(
                _SQL["insert_collection"],
                {
                    "name": name,
                    "sources": Jsonb([rule.to_json() for rule in sources]),
                    "key_pattern": key_pattern,
                    "space_id": space_id,
                    "epsilon": epsilon,
                    "second_look": _json(second_look),
                    "quality_policy": _json(quality_policy or {}),
                    "expiry_policy": expiry_policy,
                    "calibration": _json(calibration),
                    "actor": self._actor,
                },
            ).fetchone()
        if row is None:
            raise ConflictError(
                f"there is a collection {name!r} already: choose another name",
                code="collection_exists",
            )
        return self.collection(name)

    def collections(self, space_id: str | None = None) -> list[Collection]:
        """All collections, or those of one space, as they are now."""
        return self._collections(space_id=space_id, name=None)

    def collection(self, name: str) -> Collection:
        """One collection as it is now. Raises UserError when there is none of that name."""
        found = self._collections(space_id=None, name=name)
        if not found:
            known = ", ".join(c.name for c in self.collections()) or "none yet"
            raise NotFoundError(
                f"no collection {name!r}; there are: {known}", code="unknown_collection"
            )
        return found[0]

    def decided(self, collection_id: int, versions: Sequence[ObjectVersion]) -> set[ObjectVersion]:
        """Those that need no more work: their outcome is there and is not ``failed``."""
        if not versions:
            return set()
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["decided"], {"collection_id": collection_id, **version_columns(versions)}
            ).fetchall()
        return {versions[ordinal - 1] for (ordinal,) in rows}

    def ping(self) -> None:
        """Raise DependencyDownError unless the database takes what a decision needs of it.

        It must be no standby, hand out the locks of a decision, and have room for new pages. The
        transaction is rolled back.
        """
        with self._database.connection() as connection:
            row = connection.execute(_SQL["ping"]).fetchone()
            if row is None or row[0]:
                raise DependencyDownError(
                    "PostgreSQL is read-only: a standby, or a failover under way"
                )
            with connection.transaction(force_rollback=True):
                connection.execute(_SQL["try_locks"])
                probe = {"probe_id": uuid4().hex, "body": os.urandom(_PROBE_BYTES)}
                connection.execute(_SQL["try_write"], probe)

    def versions_of(self, bucket: str, key: str) -> list[ObjectVersion]:
        """Every version of a key that the ledger knows, in no order."""
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["versions_of"], {"bucket": bucket, "key": key}
            ).fetchall()
        return [ObjectVersion(bucket, key, version_id) for (version_id,) in rows]

    def find_exact(
        self, space_id: str, content_sha256s: Sequence[bytes]
    ) -> dict[bytes, KnownImage]:
        """Bytes that were decoded and embedded before in this space, by content hash.

        Such an image needs no decoder and no model: commit it as ``embedded`` with these facts and
        without an embedding.
        """
        if not content_sha256s:
            return {}
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["known_images"],
                {"space_id": space_id, "content_sha256s": list(content_sha256s)},
            ).fetchall()
        return {bytes(row[0]): KnownImage(*row[1:]) for row in rows}

    def embeddings(self, space_id: str, pixel_sha256s: Sequence[bytes]) -> dict[bytes, Halves]:
        """Vectors that exist, (D,) float16 by pixel hash: nothing is embedded twice."""
        if not pixel_sha256s:
            return {}
        with self._database.connection() as connection:
            rows = (
                connection.cursor(binary=True)
                .execute(
                    _SQL["embeddings"],
                    {"space_id": space_id, "pixel_sha256s": list(pixel_sha256s)},
                )
                .fetchall()
            )
        return {bytes(pixels): np.asarray(halves) for pixels, halves, _ in rows}

    def erased(
        self, versions: Sequence[ObjectVersion], content_sha256s: Sequence[bytes] = ()
    ) -> tuple[set[ObjectVersion], set[bytes]]:
        """Which of these versions, and which of these bytes, an erasure has marked.

        Ask before embedding; ``commit`` asks again under the lock.
        """
        with self._database.connection() as connection:
            salt = self.salt(connection)
            by_version = {version_mark(salt, version): version for version in versions}
            by_content = {content_mark(salt, content): content for content in content_sha256s}
            rows = connection.execute(
                _SQL["tombstones"],
                {"version_marks": list(by_version), "content_marks": list(by_content)},
            ).fetchall()
        return (
            {by_version[bytes(mark)] for mark, _ in rows if bytes(mark) in by_version},
            {by_content[bytes(m)] for _, m in rows if m is not None and bytes(m) in by_content},
        )

    def pixels_in_use(self, pixel_sha256s: Sequence[bytes]) -> set[bytes]:
        """Those that an object has which was not erased: their thumbnail is needed."""
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["pixels_in_use"], {"pixel_sha256s": list(pixel_sha256s)}
            ).fetchall()
        return {bytes(pixels) for (pixels,) in rows}

    def commit(self, collection: Collection, judged: Sequence[Judged]) -> list[Decision]:
        """Decide a batch and commit it in one transaction; only then may its messages be acked.

        Returns one decision per object version of the batch, in the order of first appearance. A
        version that has a final outcome keeps it (``is_new`` is False). ``gone`` of a
        representative re-decides its duplicates in the same transaction, but for ``expired`` in a
        collection that remembers.
        Raises TransientError when the lock is not to be had, or when an ``embedded`` item came
        without an embedding and the ledger has none any more.
        """
        return self._protocol.commit(collection, judged, reason="arrival")

    def remove(
        self,
        collection: Collection,
        versions: Sequence[ObjectVersion],
        *,
        reason: str = "deleted",
    ) -> list[Decision]:
        """Make versions ``gone``, re-deciding what they represented.

        reason ``expired`` heeds the collection's expiry policy; any other forgets.
        """
        judged = [Judged(version, "gone", reason) for version in versions]
        return self._protocol.commit(collection, judged, reason=reason)

    def record_anomaly(self, queue: str, message_id: str, body: bytes, reason: str) -> None:
        """Keep a message that was no object event; the same one twice is one row."""
        with self._database.connection() as connection:
            connection.execute(
                _SQL["record_anomaly"],
                {"queue": queue, "message_id": message_id, "body": body, "reason": reason},
            )

    def salt(self, connection: Connection) -> bytes:
        """What tombstone marks are made with; one per ledger."""
        if self._salt is None:
            self._salt = read_salt(connection)
        return self._salt

    def _collections(self, *, space_id: str | None, name: str | None) -> list[Collection]:
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["collections"], {"space_id": space_id, "name": name}
            ).fetchall()
        return [_collection(row) for row in rows]

    def _check(self, name: str, key_pattern: str | None, space_id: str) -> None:
        if not _NAME.fullmatch(name):
            raise RequestError(
                f"collection name {name!r}: use at most 63 of a-z, 0-9, '.', '_', '-', "
                "beginning with a letter or digit"
            )
        try:
            compile_key_pattern(key_pattern)
        except ValueError as error:
            raise RequestError(f"key pattern {key_pattern!r} {error}") from error
        with self._database.connection() as connection:
            known = connection.execute(_SQL["space_dimension"], {"space_id": space_id}).fetchone()
        if known is None:
            raise NotFoundError(f"no embedding space {space_id!r}: record it first (ensure_space)")


def _collection(row: tuple[Any, ...]) -> Collection:
    identity, name, sources, *rest = row
    return Collection(identity, name, tuple(SourceRule.from_json(s) for s in sources), *rest)


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))
