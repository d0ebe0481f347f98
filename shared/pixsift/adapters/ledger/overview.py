"""Reads for people: a collection with its counts and objects, and a snapshot's content. Also
changes settings that need no new decision."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.arrival_health import LOOKED_AT, growing_shares
from pixsift.core.collection import Collection, ExpiryPolicy
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import OUTCOMES, ObjectOutcome, SnapshotObject
from pixsift.core.sources import SourceRule
from pixsift.sql import statements

Facts = dict[str, Any]


class Overview:
    """Counts and settings of a ledger's collections."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("overview")

    def counts(self, collection: Collection) -> Facts:
        """Outcomes that hold now, by outcome and by reason, and how fast they come."""
        names = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            rows = self._rows(connection, "outcome_counts", names)
            flags = self._rows(connection, "flag_counts", names)
            (recent,) = self._rows(connection, "recent_decisions", names)
            snapshots = self._rows(connection, "snapshot_counts", names)
            newest = self._rows(connection, "newest_reasons", names | {"most": LOOKED_AT})
        outcomes = dict.fromkeys(OUTCOMES, 0)
        for row in rows:
            outcomes[row["outcome"]] += row["objects"]
        return {
            "outcomes": outcomes,
            "reasons": rows,
            "flags": flags,
            "decisions_last_minute": recent["decisions"],
            "newest_decision": recent["newest"],
            "snapshots": snapshots,
            "growing": growing_shares([r["reason"] for r in newest]),
        }

    def images(
        self, collection: Collection, *, outcome: str | None, reason: str | None, prefix: str,
        limit: int,
    ) -> list[Facts]:  # fmt: skip
        """Images with the outcome that holds now, the newest decision first."""
        names: Facts = {
            "collection_id": collection.collection_id, "outcome": outcome, "reason": reason,
            "prefix": prefix, "limit": limit,
        }  # fmt: skip
        with self._database.connection() as connection:
            return [_image(row) for row in self._rows(connection, "images", names)]

    def thumbnail_keys(self, object_ids: Sequence[int]) -> dict[int, str]:
        """Thumbnail key by object, of those that have one."""
        with self._database.connection() as connection:
            rows = self._rows(connection, "thumbnail_keys", {"object_ids": list(object_ids)})
        return {row["object_id"]: row["thumbnail_key"] for row in rows}

    def outcomes_of_keys(
        self, bucket: str, keys: Sequence[str], since: datetime | None
    ) -> list[Facts]:
        """Key, outcome and reason, a row per collection, of objects that arrived since then."""
        names: Facts = {"bucket": bucket, "keys": list(keys), "since": since}
        with self._database.connection() as connection:
            return self._rows(connection, "outcomes_of_keys", names)

    def now(self) -> datetime:
        """The server's clock."""
        with self._database.connection() as connection:
            (row,) = self._rows(connection, "now", {})
        found: datetime = row["now"]
        return found

    def outcome_counts(self, collection: Collection) -> list[Facts]:
        """Outcome, reason and objects; the most frequent reason first within an outcome."""
        names = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            return self._rows(connection, "outcome_counts", names)

    def current_outcomes(self, collection: Collection) -> list[ObjectOutcome]:
        """Every object's outcome that holds now, in the order of arrival."""
        names = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ObjectOutcome))
            return cursor.execute(self._sql["current_outcomes"], names).fetchall()

    def snapshot_objects(self, snapshot_id: str) -> list[SnapshotObject]:
        """What a snapshot holds, by rank."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SnapshotObject))
            names = {"snapshot_id": snapshot_id}
            return cursor.execute(self._sql["snapshot_objects"], names).fetchall()

    def anomalies(self) -> list[Facts]:
        """Messages that were not object events: reason, how many, the newest."""
        with self._database.connection() as connection:
            return self._rows(connection, "anomaly_counts", {})

    def settings(self, collection: Collection) -> Facts:
        """Everything that decides what becomes of an object here."""
        names = {"collection_id": collection.collection_id}
        with self._database.connection() as connection:
            generations = self._rows(connection, "generations_of", names)
            (space,) = self._rows(connection, "space_of", names)
        return {
            "name": collection.name,
            "sources": [rule.to_json() for rule in collection.sources],
            "key_pattern": collection.key_pattern,
            "space": space,
            "epsilon": collection.epsilon,
            "second_look": collection.second_look,
            "keep_best": collection.keep_best,
            "quality_policy": collection.quality_policy,
            "expiry_policy": collection.expiry_policy,
            "calibration": collection.calibration,
            "generation": collection.generation,
            "seq": collection.seq,
            "generations": generations,
        }

    def change(
        self,
        collection: Collection,
        *,
        sources: Sequence[SourceRule] | None = None,
        key_pattern: str | None = None,
        quality_policy: Mapping[str, Any] | None = None,
        expiry_policy: ExpiryPolicy | None = None,
    ) -> None:
        """Change what later arrivals are judged by; None leaves as is, an empty key pattern means
        none. What has been decided stays."""
        rules = None if sources is None else Jsonb([rule.to_json() for rule in sources])
        policy = None if quality_policy is None else Jsonb(dict(quality_policy))
        with self._database.connection() as connection:
            connection.execute(
                self._sql["change_collection"],
                {
                    "collection_id": collection.collection_id,
                    "sources": rules,
                    "set_key_pattern": key_pattern is not None,
                    "key_pattern": key_pattern or None,
                    "quality_policy": policy,
                    "expiry_policy": expiry_policy,
                },
            )

    def _rows(self, connection: Connection, name: str, names: Facts) -> list[Facts]:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(self._sql[name], names).fetchall()


def _image(row: Facts) -> Facts:
    facts = {name: row[name] for name in ("object_id", "thumbnail_key", "outcome", "reason",
                                         "distance", "decided_at")}  # fmt: skip
    facts["uri"] = ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri
    facts["representative"] = (
        ObjectVersion(row["representative_bucket"], row["representative_key"],
                      row["representative_version_id"]).uri
        if row["representative_key"] is not None else None
    )  # fmt: skip
    return facts
