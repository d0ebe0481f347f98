"""The only writer of the decision history: every change of it is one turn of a collection.

A turn is one transaction under the collection's lock. It begins with the lock, alone in its
statement, and checks what the protocol rests on: that a transaction is open (otherwise the lock
would end with its statement), that its isolation is READ COMMITTED (any other level would read
through a snapshot taken before the lock), and that the generation is the one that was planned for.
It ends with one statement that moves ``seq`` by one, only from where it was, and leaves the turn's
own row. A block that wrote nothing leaves ``seq`` alone; one that raised must not be committed.

What else belongs to a turn (a ruling, a counter, a hit of a watch) is written here, in the same
transaction and at the same ``seq``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from pixsift.adapters.postgres.database import Connection, Cursor
from pixsift.core.collection import Collection, HistoryPoint
from pixsift.core.quality import FILE_CHECKS
from pixsift.core.rulings import Ruling
from pixsift.core.watching import Match
from pixsift.errors import TransientError
from pixsift.sql import statements

_SQL = statements("history")
_WATCHES = statements("watches")


class StartAgainError(Exception):
    """The plan does not fit what the lock shows: roll back and plan again."""


class DecisionRow(Protocol):
    """A decision to write."""

    @property
    def object_id(self) -> int: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> Mapping[str, Any]: ...
    @property
    def representative(self) -> int | None: ...
    @property
    def distance(self) -> float | None: ...
    @property
    def pixel_sha256(self) -> bytes | None: ...


class RepresentativeRow(Protocol):
    """An image that becomes a representative; its vector must be stored."""

    @property
    def object_id(self) -> int: ...
    @property
    def content_sha256(self) -> bytes | None: ...
    @property
    def pixel_sha256(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class AttributeRow:
    """The attributes of an object from one source."""

    object_id: int
    source: str
    attributes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class NewRuling:
    """A new ruling."""

    ruling_id: UUID
    ruling: Ruling
    who: str
    why: str
    batch: UUID | None = None
    """The batch of rulings that were made together."""
    said_at: datetime | None = None
    """None: now."""


@dataclass(frozen=True, slots=True)
class GenerationWriter:
    """Adds and closes the rows of one generation.

    Used directly only for a generation that is being built, whose rows no reader uses yet: each row
    has the seq at which the generation in use saw the change. All other writes go through ``turn``.
    """

    connection: Connection
    collection_id: int
    generation: int
    space_id: str

    def close(self, object_ids: Sequence[int], *, seq: int) -> None:
        """End the open decisions of these objects."""
        self._close("close_decisions", object_ids, seq)

    def stop_representing(self, object_ids: Sequence[int], *, seq: int) -> None:
        """End the open representatives among these objects."""
        self._close("close_representatives", object_ids, seq)

    def add(self, decisions: Sequence[DecisionRow], *, seqs: Sequence[int]) -> None:
        """Add a decision per object, valid from its seq on."""
        if not decisions:
            return
        self.connection.execute(
            _SQL["insert_decisions"],
            {
                **self._names(),
                "object_ids": [d.object_id for d in decisions],
                "outcomes": [d.outcome for d in decisions],
                "reasons": [d.reason for d in decisions],
                "details": [Jsonb(dict(d.detail)) if d.detail else None for d in decisions],
                "representatives": [d.representative for d in decisions],
                "distances": [d.distance for d in decisions],
                "pixels": [d.pixel_sha256 for d in decisions],
                "seqs": list(seqs),
            },
        )

    def represent(self, images: Sequence[RepresentativeRow], *, seqs: Sequence[int]) -> Cursor:
        """Add representatives; the answer has no row for an image whose vector was erased."""
        return self.connection.execute(
            _SQL["insert_representatives"],
            {
                **self._names(),
                "object_ids": [image.object_id for image in images],
                "contents": [image.content_sha256 for image in images],
                "pixels": [image.pixel_sha256 for image in images],
                "seqs": list(seqs),
            },
        )

    def _close(self, statement: str, object_ids: Sequence[int], seq: int) -> None:
        if object_ids:
            names = {**self._names(), "object_ids": list(object_ids), "seq": seq}
            self.connection.execute(_SQL[statement], names)

    def _names(self) -> dict[str, Any]:
        return {
            "collection_id": self.collection_id,
            "generation": self.generation,
            "space_id": self.space_id,
        }


class Turn:
    """One decision transaction of a collection, while its lock is held. Made by ``turn``."""

    def __init__(self, writer: GenerationWriter, seq: int) -> None:
        """seq: the one that this turn gets if it changes anything."""
        self.connection = writer.connection
        self.generation = writer.generation
        """The generation in use."""
        self.seq = seq
        self.changed = False
        """Whether anything was written, and ``seq`` must move."""
        self._writer = writer
        self._represented: list[tuple[Cursor, int]] = []

    def close(self, object_ids: Sequence[int]) -> None:
        """End the open decisions of these objects."""
        self._writer.close(object_ids, seq=self.seq)
        self.changed |= bool(object_ids)

    def stop_representing(self, object_ids: Sequence[int]) -> None:
        """End the open representatives among these objects."""
        self._writer.stop_representing(object_ids, seq=self.seq)
        self.changed |= bool(object_ids)

    def add(self, decisions: Sequence[DecisionRow]) -> None:
        """Add a decision per object, after ``close`` for those that have one."""
        self._writer.add(decisions, seqs=[self.seq] * len(decisions))
        self.changed |= bool(decisions)

    def represent(self, images: Sequence[RepresentativeRow]) -> None:
        """Add representatives. The block ends in StartAgainError where a vector was erased."""
        if images:
            added = self._writer.represent(images, seqs=[self.seq] * len(images))
            self._represented.append((added, len(images)))
            self.changed = True

    def describe(self, rows: Sequence[AttributeRow], *, replace: bool = True) -> None:
        """Write attributes; replace: these objects may have some from the same sources."""
        if not rows:
            return
        names = {
            **self._names(),
            "object_ids": [row.object_id for row in rows],
            "sources": [row.source for row in rows],
            "attributes": [Jsonb(dict(row.attributes)) for row in rows],
        }
        if replace:
            self.connection.execute(_SQL["close_attributes"], names)
        self.connection.execute(_SQL["insert_attributes"], names)
        self.changed = True

    def say(self, said: Sequence[NewRuling]) -> None:
        """Put rulings into force; the caller decides what they touch again, in this turn."""
        if not said:
            return
        names = {
            **self._names(),
            "ruling_ids": [new.ruling_id for new in said],
            "kinds": [new.ruling.kind for new in said],
            "object_ids": [new.ruling.object_id for new in said],
            "others": [new.ruling.other for new in said],
            "who": [new.who for new in said],
            "why": [new.why for new in said],
            "batches": [new.batch for new in said],
            "said_ats": [new.said_at for new in said],
        }
        self.connection.execute(_SQL["insert_rulings"], names)
        self.changed = True

    def take_rulings_back(self, ruling_ids: Sequence[UUID]) -> None:
        """End rulings that are in force; the caller decides what they touched again."""
        if ruling_ids:
            names = {**self._names(), "ruling_ids": list(ruling_ids)}
            self.changed |= self.connection.execute(_SQL["close_rulings"], names).rowcount > 0

    def note_hits(self, found: Sequence[tuple[int, Match]]) -> None:
        """Note which watches matched images of this turn. found: object ids with their matches."""
        if found:
            insert_hits(self.connection, found, seq=self.seq)

    def switch_to(self, generation: int) -> None:
        """Put a built generation into use. Raises TransientError if it was discarded meanwhile."""
        names = {**self._names(), "generation": generation}
        self.connection.execute(_SQL["retire_current"], names)
        if self.connection.execute(_SQL["make_current"], names).rowcount != 1:
            raise TransientError("another process discarded this generation")
        self.connection.execute(_SQL["switch_collection"], names)
        self.changed = True

    def end(self, actor: str, reason: str, *, sync: Callable[[], None]) -> None:
        """Move ``seq`` and leave the turn's row."""
        names = {**self._names(), "actor": actor, "reason": reason}
        ended = self.connection.execute(_SQL["end_turn"], names)
        sync()
        if any(added.rowcount != count for added, count in self._represented):
            raise StartAgainError
        if ended.rowcount != 1:
            raise RuntimeError("seq moved while the collection was locked")

    def _names(self) -> dict[str, Any]:
        return {"collection_id": self._writer.collection_id, "seq": self.seq}


def insert_hits(
    connection: Connection, found: Sequence[tuple[int, Match]], *, seq: int | None
) -> Cursor:
    """Hits of watches, as far as their filters let them through and they are not there yet.

    found: object ids with their matches. seq: of the turn that decided them; None: in the past.
    """
    names = {
        "watch_ids": [match.watch_id for _, match in found],
        "object_ids": [object_id for object_id, _ in found],
        "distances": [match.distance for _, match in found],
        "modes": [match.mode for _, match in found],
        "file_checks": sorted(FILE_CHECKS),
        "seq": seq,
    }
    return connection.execute(_WATCHES["insert_hits"], names)


def _answered() -> None:
    """Outside of a pipeline every statement has been answered when it returns."""


@contextmanager
def turn(
    connection: Connection,
    collection: Collection,
    *,
    actor: str,
    reason: str,
    generation: int | None = None,
    points: Sequence[HistoryPoint] = (),
    sync: Callable[[], None] = _answered,
) -> Iterator[Turn]:
    """Lock the collection, let the block change its history, and end the turn.

    actor, reason: what the turn's row says of who wrote it and why. generation: the one that the
    caller planned for; None: whichever is in use. points: those that the plan was made at; a
    ledger that was restored since then has other tokens there. sync: on a connection in a pipeline,
    sends what is pending and waits for all answers.
    Raises StartAgainError for another generation or another history, or when a vector to represent
    was erased; TransientError when the collection does not exist, or has moved to another embedding
    space; RuntimeError where the protocol cannot hold.
    """
    locked = _lock(connection, collection.collection_id, sync, points)
    if locked is None or locked.name != collection.name:
        raise TransientError(f"collection {collection.name} is gone")
    check_space(collection, locked.space_id)
    if locked.proved != len(points):
        raise StartAgainError
    seq, current = locked.seq, locked.generation
    if generation is not None and generation != current:
        raise StartAgainError
    writer = GenerationWriter(connection, collection.collection_id, current, collection.space_id)
    mine = Turn(writer, seq + 1)
    yield mine
    if mine.changed:
        mine.end(actor, reason, sync=sync)


def check_space(collection: Collection, space_id: str) -> None:
    """Raise TransientError where the collection has moved to another embedding space since it was
    read: what was measured for the old space no longer counts."""
    if space_id != collection.space_id:
        raise TransientError(
            f"collection {collection.name} has moved from embedding space {collection.space_id} "
            f"to {space_id}"
        )


def share(connection: Connection, collection: Collection) -> str | None:
    """Keep the collection unchanged until the transaction ends, without deciding anything. Returns
    its embedding space; None: the collection is gone. Later statements see what every earlier
    holder of the lock has written.
    """
    names = {"collection_id": collection.collection_id}
    row = connection.execute(_SQL["share_collection"], names).fetchone()
    return row[1] if row is not None and row[0] == collection.name else None


def lock_all(connection: Connection) -> None:
    """Wait for every collection's lock; until the transaction ends, no decision is made."""
    _lock(connection, None, _answered)


def forget(connection: Connection, object_ids: Sequence[int]) -> None:
    """Blank the facts of erased objects in the history, in every generation, under ``lock_all``.
    This is not a turn: the outcome ``gone`` was written before, in a turn of its own.
    """
    names = {"object_ids": list(object_ids)}
    for statement in (
        "end_watches_of", "drop_hits", "drop_attributes", "blank_rulings", "blank_decisions",
        "drop_representatives", "blank_representatives",
    ):  # fmt: skip
        connection.execute(_SQL[statement], names)


def forget_erased(connection: Connection, collection_id: int, generation: int) -> None:
    """Blank what a build copied of objects that were erased meanwhile, under the lock."""
    names = {"collection_id": collection_id, "generation": generation}
    erased = [row[0] for row in connection.execute(_SQL["erased_in_generation"], names).fetchall()]
    if erased:
        forget(connection, erased)


def recount(connection: Connection, collection: Collection) -> None:
    """Recount the outcomes of the generation in use, after an audit found a wrong counter. This is
    not a turn: no decision changes. Runs in a transaction of the caller.
    """
    locked = _lock(connection, collection.collection_id, _answered)
    if locked is not None:
        names = {"collection_id": collection.collection_id, "generation": locked.generation}
        for statement in ("drop_counters", "recount"):
            connection.execute(_SQL[statement], names)


def discard(connection: Connection, collection_id: int, generation: int) -> None:
    """Drop the rows of a generation that was never in use."""
    names = {"collection_id": collection_id, "generation": generation}
    for statement in ("discard_representatives", "discard_decisions"):
        connection.execute(_SQL[statement], names)


class _Locked(NamedTuple):
    seq: int
    generation: int
    name: str
    space_id: str
    isolation: str
    proved: int


def _lock(
    connection: Connection,
    collection_id: int | None,
    sync: Callable[[], None],
    points: Sequence[HistoryPoint] = (),
) -> _Locked | None:
    """The collection (the first, where all are locked)."""
    names = {
        "collection_id": collection_id,
        "seqs": [point.seq for point in points],
        "tokens": [point.token for point in points],
    }
    cursor = connection.execute(_SQL["lock_collection"], names)
    sync()
    row = cursor.fetchone()
    if row is None:
        return None
    locked = _Locked(*row)
    if locked.isolation != "read committed":
        raise RuntimeError(f"the decision protocol needs read committed, not {locked.isolation}")
    if connection.info.transaction_status != TransactionStatus.INTRANS:
        raise RuntimeError("the collection was locked outside of a transaction")
    return locked
