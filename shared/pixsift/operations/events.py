"""Events of a ledger for readers that follow it: ordered by ``seq`` and verified by the turn's
token. A reader's cursor holds, per collection, the seq up to which it has read, and the token of
that turn. A restored ledger has another token there, or has not reached that seq: then the history
is lost, and the reader must start again.
"""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from psycopg.rows import dict_row
from pydantic import BaseModel, ValidationError

from pixsift.adapters.postgres.database import Database
from pixsift.answers.queues import QueueDepth
from pixsift.api import ImageQuery
from pixsift.api_changes import Decisions
from pixsift.api_watches import WatchHits
from pixsift.errors import PixsiftError, RequestError
from pixsift.operations.browse import page
from pixsift.operations.status import Queues, depths
from pixsift.operations.watch import hits_between
from pixsift.sql import statements

_SQL = statements("events")
_IMAGES = 50
_HEADS_SECONDS = 0.4
_QUEUES_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Head:
    """A collection's seq, and which history it is of."""

    seq: int
    token: str


class Cursor(BaseModel):
    """A reader's position: per collection its seq and token, and the last action."""

    collections: dict[str, tuple[int, str]] = {}
    action: int = 0

    def encoded(self) -> str:
        """As the id of an event: one line of ASCII."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decoded(cls, text: str) -> "Cursor":
        """Raises RequestError for text that is not a cursor."""
        try:
            padded = text + "=" * (-len(text) % 4)
            raw = base64.urlsafe_b64decode(padded.encode("ascii"))
            return cls.model_validate(json.loads(raw))
        except (ValueError, ValidationError, RecursionError) as error:
            raise RequestError("the event id is not one of ours", code="bad_cursor") from error

    def at(self, collection: str, head: Head) -> "Cursor":
        """The same, with one collection at ``head``."""
        moved = {**self.collections, collection: (head.seq, head.token)}
        return self.model_copy(update={"collections": moved})


@dataclass(slots=True)
class Watcher:
    """The only reader of a process: all its streams share what it reads. Thread-safe."""

    database: Database
    queues: Queues
    _heads: tuple[float, dict[str, Head]] = (-1e9, {})
    _depths: tuple[float, dict[str, QueueDepth]] = (-1e9, {})
    _decisions: dict[tuple[str, int, int], Decisions] = field(default_factory=dict)
    _hits: dict[tuple[str, int, int], WatchHits] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def heads(self) -> Mapping[str, Head]:
        """The point of every collection, at most a moment old; unchanged while the ledger does not
        answer."""
        with self._lock:
            if time.monotonic() - self._heads[0] > _HEADS_SECONDS:
                try:
                    found = {row["name"]: Head(row["seq"], str(row["token"]))
                             for row in self._rows("heads", {})}  # fmt: skip
                except PixsiftError:
                    found = self._heads[1]
                self._heads = (time.monotonic(), found)
            return self._heads[1]

    def depths(self) -> Mapping[str, QueueDepth]:
        """How many messages each queue holds, at most some seconds old."""
        with self._lock:
            if time.monotonic() - self._depths[0] > _QUEUES_SECONDS:
                self._depths = (time.monotonic(), depths(self.queues))
            return self._depths[1]

    def is_lost(self, collection: str, known: Head) -> bool:
        """Whether a reader's position belongs to another history."""
        rows = self._rows("token_of", {"name": collection, "seq": known.seq})
        return not rows or str(rows[0]["coalesce"]) != known.token

    def decisions(self, collection: str, from_seq: int, to_seq: int) -> Decisions:
        """Decisions between two points; read once for all streams."""
        key = (collection, from_seq, to_seq)
        with self._lock:
            if key in self._decisions:
                return self._decisions[key]
        names = {"name": collection, "from_seq": from_seq, "to_seq": to_seq}
        counts = {row["outcome"]: row["decisions"] for row in self._rows("decided_between", names)}
        newest = page(self.database, collection, ImageQuery(at_seq=to_seq, limit=_IMAGES))
        found = Decisions(
            collection=collection, from_seq=from_seq, to_seq=to_seq, counts=counts,
            images=[row for row in newest.images if row.seq > from_seq],
        )  # fmt: skip
        with self._lock:
            while len(self._decisions) >= 64:
                self._decisions.pop(next(iter(self._decisions)))
            self._decisions[key] = found
        return found

    def watch_hits(self, collection: str, from_seq: int, to_seq: int) -> WatchHits:
        """What watches matched in between; read once for all streams."""
        key = (collection, from_seq, to_seq)
        with self._lock:
            if key in self._hits:
                return self._hits[key]
        found = hits_between(self.database, collection, from_seq, to_seq)
        with self._lock:
            while len(self._hits) >= 64:
                self._hits.pop(next(iter(self._hits)))
            self._hits[key] = found
        return found

    def _rows(self, name: str, names: Mapping[str, Any]) -> list[dict[str, Any]]:
        with (
            self.database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(_SQL[name], names).fetchall()
