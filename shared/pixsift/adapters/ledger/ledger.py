"""The ledger: reads what is known already, and commits decided batches.

It holds finished facts only. How a batch is decided, and why no two consumers can both keep a
pair of near-duplicates, is in ``pixsift.adapters.ledger.decisions``.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

import numpy as np

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.decision_plan import read_salt, version_columns
from pixsift.adapters.ledger.decisions import DecisionProtocol
from pixsift.adapters.ledger.duties import Duties
from pixsift.adapters.ledger.spaces import Spaces
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.collection import Collection
from pixsift.core.dedup import Halves
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Decision, Judged, KnownImage
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.errors import DependencyDownError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("ledger")
_PROBE_BYTES: Final = 256 * 1024

Pause = Callable[[str], None]
"""Called at named points of the protocol; tests wait or die there."""


class Ledger(Collections):
    """One ledger: its collections, and what is decided in them.

    Thread-safe; every method opens what it needs and leaves nothing open.

    Raises TransientError (lost races, timeouts) and DependencyDownError (no database) anywhere.
    """

    def __init__(
        self,
        database: Database,
        *,
        search: NeighborSearch | None = None,
        actor: str = "pixsift",
        pause: Pause | None = None,
        duties: Duties | None = None,
    ) -> None:
        """search: defaults to the exact resident search. actor: who the turns say made them; an
        entry point that writes names itself. duties: what a restored ledger must meet before
        anything is decided in it."""
        super().__init__(database, actor=actor)
        self.spaces = Spaces(database)
        self.search = search or ResidentSearch(database, pause=pause)
        self._protocol = DecisionProtocol(
            database, self.search, actor=actor, pause=pause, duties=duties
        )

    def decided(self, collection_id: int, versions: Sequence[ObjectVersion]) -> set[ObjectVersion]:
        """Versions that need no more work: they have an outcome other than ``failed``."""
        if not versions:
            return set()
        with self._database.connection() as connection:
            rows = connection.execute(
                _SQL["decided"], {"collection_id": collection_id, **version_columns(versions)}
            ).fetchall()
        return {versions[ordinal - 1] for (ordinal,) in rows}

    def ping(self) -> None:
        """Raise DependencyDownError unless the database can take a decision: it must not be a
        standby, must grant the locks of a decision, and must have room for new pages. The
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
        """Every version of a key that the ledger knows, in any order."""
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
        Raises TransientError when the lock cannot be had, or when an ``embedded`` item came
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

        reason ``expired`` follows the collection's expiry policy; any other reason forgets.
        """
        judged = [Judged(version, "gone", reason) for version in versions]
        return self._protocol.commit(collection, judged, reason=reason)

    def record_anomaly(self, queue: str, message_id: str, body: bytes, reason: str) -> None:
        """Keep a message that was not an object event; the same one twice is one row."""
        with self._database.connection() as connection:
            connection.execute(
                _SQL["record_anomaly"],
                {"queue": queue, "message_id": message_id, "body": body, "reason": reason},
            )

    def salt(self, connection: Connection) -> bytes:
        """What tombstone marks are made with; one per ledger."""
        return read_salt(connection)
