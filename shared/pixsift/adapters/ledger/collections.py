"""The registry of a ledger: embedding spaces, and collections with their settings. Nothing is
decided here: ``Ledger`` decides.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection, ExpiryPolicy
from pixsift.core.sources import SourceRule, compile_key_pattern
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.ports import EmbeddingSpace
from pixsift.sql import statements

_SQL = statements("collections")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Collections:
    """The collections of one ledger. Thread-safe; leaves no connection open.

    Raises TransientError (timeouts) and DependencyDownError (no database) anywhere.
    """

    def __init__(self, database: Database, *, actor: str = "pixsift") -> None:
        """actor: who the first turn of a new collection says made it."""
        self._database = database
        self._actor = actor

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

    def space(self, space_id: str) -> EmbeddingSpace | None:
        """A recorded embedding space; None: no space has that id."""
        with self._database.connection() as connection:
            row = connection.execute(_SQL["space"], {"space_id": space_id}).fetchone()
        return None if row is None else EmbeddingSpace(*row)

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
        keep_best: float | None = None,
    ) -> Collection:
        """Add a collection with its first generation.

        Raises UserError for a taken or malformed name, an unknown space, or a pattern that cannot
        be used.
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
                    "keep_best": keep_best,
                    "actor": self._actor,
                },
            ).fetchone()
        if row is None:
            raise ConflictError(
                f"collection {name!r} already exists: choose another name",
                code="collection_exists",
            )
        return self.collection(name)

    def collections(self, space_id: str | None = None) -> list[Collection]:
        """All collections, or those of one space, as they are now."""
        return self._collections(space_id=space_id, name=None)

    def chosen(self, name: str | None) -> list[Collection]:
        """The collection of that name, or all. Raises NotFoundError for an unknown name."""
        return self.collections() if name is None else [self.collection(name)]

    def collection(self, name: str) -> Collection:
        """One collection as it is now. Raises NotFoundError for an unknown name."""
        found = self._collections(space_id=None, name=name)
        if not found:
            known = ", ".join(c.name for c in self.collections()) or "none yet"
            raise NotFoundError(
                f"no collection {name!r}; there are: {known}", code="unknown_collection"
            )
        return found[0]

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
