"""Bearer tokens, and the record of who changed what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.database import Database
from pixsift.sql import statements

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What a presented token is compared with."""

    name: str
    role: str
    secret_sha256: bytes
    is_revoked: bool
    is_expired: bool


class AccessRows:
    """Tokens and actions of a ledger. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("access")

    def add_token(self, names: Mapping[str, Any]) -> Facts:
        """Store a token's hash; what a list shows of it."""
        (row,) = self._rows("insert_token", names)
        return row

    def tokens(self) -> list[Facts]:
        """All, the newest first."""
        return self._rows("tokens", {})

    def revoke(self, token_id: str) -> Facts | None:
        """End a token; None where there is none of that id."""
        rows = self._rows("revoke_token", {"token_id": token_id})
        return rows[0] if rows else None

    def token(self, token_id: str) -> StoredToken | None:
        """The token of that id, if there is one."""
        with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(StoredToken))
            return cursor.execute(self._sql["token"], {"token_id": token_id}).fetchone()

    def touch(self, token_id: str) -> None:
        """Note that a token was used; to the minute."""
        with self._database.connection() as connection:
            connection.execute(self._sql["touch_token"], {"token_id": token_id})

    def record(
        self, actor: str, action: str, collection: str | None, detail: Mapping[str, Any]
    ) -> int:
        """Note a change; the id of the note."""
        names = {"actor": actor, "action": action, "collection": collection,
                 "detail": Jsonb(dict(detail))}  # fmt: skip
        (row,) = self._rows("insert_action", names)
        return int(row["action_id"])

    def actions(self, *, before: int | None, collection: str | None, limit: int) -> list[Facts]:
        """Changes, the newest first."""
        return self._rows("actions", {"before": before, "collection": collection, "limit": limit})

    def turns(self, collection_id: int, *, before: int | None, limit: int) -> list[Facts]:
        """Decision transactions of a collection, the newest first."""
        names = {"collection_id": collection_id, "before": before, "limit": limit}
        return self._rows("turns", names)

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[Facts]:
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(self._sql[name], names).fetchall()
