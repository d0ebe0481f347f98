"""Reads everything about an object version from the ledger, for ``pixsift explain``. The distance
to the representative is measured again from the stored halves and the rule is applied again, so a
reader sees whether the decision still verifies.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg.rows import dict_row

from pixsift.adapters.ledger.decision_plan import near_rule
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.dedup import cosine_distance
from pixsift.core.identity import ObjectVersion
from pixsift.core.second_look import LookRule
from pixsift.sql import statements

Facts = dict[str, Any]


class StoryTeller:
    """Reads stories from the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("story")

    def tell(self, bucket: str, key: str, version_id: str | None = None) -> list[Facts]:
        """One story per known version of the key, newest first; empty for an unknown key."""
        with self._database.connection() as connection:
            names = {"bucket": bucket, "key": key, "version_id": version_id}
            versions = self._rows(connection, "versions_of_key", names)
            return [self._story(connection, version) for version in versions]

    def similar_keys(self, bucket: str, key: str) -> list[str]:
        """Known keys that begin like ``key``, as a hint for a typing mistake."""
        with self._database.connection() as connection:
            prefix = key[: max(1, len(key) * 2 // 3)]
            rows = self._rows(connection, "similar_keys", {"bucket": bucket, "prefix": prefix})
        return [row["key"] for row in rows]

    def _story(self, connection: Connection, version: Facts) -> Facts:
        object_id = {"object_id": version["object_id"]}
        history = self._rows(connection, "history", object_id)
        rules = self._rows(connection, "rules", object_id)
        attributes = self._rows(connection, "attributes_of", object_id)
        rulings = self._rows(connection, "rulings_of", object_id)
        names = sorted({row["collection"] for row in history})
        uri = ObjectVersion(version["bucket"], version["key"], version["version_id"]).uri
        return {
            "uri": uri,
            "object": version,
            "collections": [
                self._chapter(connection, version["object_id"], name, history, rules)
                | {"attributes": _merged(attributes, name), "rulings": _ruled(rulings, name)}
                for name in names
            ],
            "snapshots": self._rows(connection, "snapshots_with", object_id),
        }

    def _chapter(
        self,
        connection: Connection,
        object_id: int,
        name: str,
        history: Sequence[Facts],
        rules: Sequence[Facts],
    ) -> Facts:
        """One collection's part of the story."""
        mine = [_decision(row) for row in history if row["collection"] == name]
        rule = next(
            (r for r in rules if r["collection"] == name
             and r["generation"] == r["current_generation"]),
            next(r for r in rules if r["collection"] == name),
        )  # fmt: skip
        current = next(
            (row for row in mine if row["valid_to_seq"] is None and row["is_current_generation"]),
            None,
        )
        names = {"object_id": object_id, "collection": name}
        children = self._rows(connection, "stands_for", names)
        return {
            "collection": name,
            "outcome": current["outcome"] if current else None,
            "reason": current["reason"] if current else None,
            "message": current["detail"].get("message") if current else None,
            "flags": current["detail"].get("flags", []) if current else [],
            "representative": current["representative"] if current else None,
            "rule": rule,
            "history": mine,
            "proof": self._proof(connection, object_id, current, rule) if current else None,
            "near_miss": self._near_miss(connection, object_id, current, rule) if current else None,
            "stands_for": {
                "count": children[0]["total"] if children else 0,
                "nearest": [
                    {"uri": _uri(row), "reason": row["reason"], "distance": row["distance"]}
                    for row in children
                ],
            },
        }

    def _proof(
        self, connection: Connection, object_id: int, current: Facts, rule: Facts
    ) -> Facts | None:
        """The duplicate's distance and verdict, measured again from the stored halves."""
        representative = current["representative_object_id"]
        if representative is None:
            return None
        names = {
            "collection_id": rule["collection_id"], "generation": rule["generation"],
            "space_id": rule["space_id"], "object_ids": [object_id, representative],
        }  # fmt: skip
        found = {
            row["object_id"]: (row["embedding"], bytes(row["look"]))
            for row in self._rows(connection, "stored_vectors", names)
        }
        if len(found) < len({object_id, representative}):
            return {"recomputed_distance": None, "verdict": None, "verifies": None,
                    "second_look": None}  # fmt: skip
        (a, look_a), (b, look_b) = found[object_id], found[representative]
        distance = cosine_distance(a, b)
        verdict = near_rule(rule["epsilon"], rule["second_look"]).verdict(distance, look_a, look_b)
        exact = current["reason"] in ("content", "pixels")
        return {
            "recomputed_distance": distance,
            "stored_distance": current["distance"],
            "verdict": current["reason"] if exact else verdict,
            "verifies": exact or verdict is not None,
            "second_look": None
            if exact or rule["second_look"] is None
            else LookRule.from_json(rule["second_look"]).explain(distance, look_a, look_b),
        }

    def _near_miss(
        self, connection: Connection, object_id: int, current: Facts, rule: Facts
    ) -> Facts | None:
        """The near miss of a kept image, measured again from the stored halves and signals."""
        shown = current["detail"].get("nearest")
        if shown is None:
            return None
        other = shown["object_id"]
        names = {
            "collection_id": rule["collection_id"], "generation": rule["generation"],
            "space_id": rule["space_id"], "object_ids": [object_id, other],
        }  # fmt: skip
        found = {row["object_id"]: row for row in self._rows(connection, "stored_vectors", names)}
        (version,) = self._rows(connection, "version", {"object_id": other})
        near: Facts = {
            "uri": _uri(version), "stored_distance": shown["distance"],
            "recomputed_distance": None, "second_look": None,
        }  # fmt: skip
        if len(found) < 2 or rule["second_look"] is None:
            return near
        one, two = found[object_id], found[other]
        distance = cosine_distance(one["embedding"], two["embedding"])
        look = LookRule.from_json(rule["second_look"])
        return near | {
            "recomputed_distance": distance,
            "second_look": look.explain(distance, bytes(one["look"]), bytes(two["look"])),
        }

    def _rows(self, connection: Connection, name: str, parameters: Facts) -> list[Facts]:
        statement: LiteralString = self._sql[name]
        with connection.cursor(row_factory=dict_row, binary=True) as cursor:
            return cursor.execute(statement, parameters).fetchall()


def _decision(row: Facts) -> Facts:
    uri = None
    if row["representative_object_id"] is not None:
        uri = ObjectVersion(
            row["representative_bucket"], row["representative_key"],
            row["representative_version_id"],
        ).uri  # fmt: skip
    shown = {k: v for k, v in row.items() if not k.startswith("representative_")}
    return shown | {
        "representative": uri,
        "representative_object_id": row["representative_object_id"],
    }


def _merged(rows: Sequence[Facts], collection: str) -> Facts:
    merged: Facts = {}
    for row in rows:
        if row["collection"] == collection:
            merged.update(row["attributes"])
    return {name: value for name, value in merged.items() if value is not None}


def _ruled(rows: Sequence[Facts], collection: str) -> list[Facts]:
    shown = ("ruling_id", "kind", "who", "why", "batch", "said_at", "from_seq", "to_seq")
    return [
        {name: row[name] for name in shown}
        | {
            "uri": _uri(row),
            "other": row["other_key"] and ObjectVersion(
                row["other_bucket"], row["other_key"], row["other_version_id"]
            ).uri,
        }
        for row in rows
        if row["collection"] == collection
    ]  # fmt: skip


def _uri(row: Facts) -> str:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri
