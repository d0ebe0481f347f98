"""Reads and writes the rows of whole generations, for ``pixsift.adapters.ledger.generations``."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from psycopg.rows import class_row

from pixsift.adapters.ledger.history import GenerationWriter
from pixsift.adapters.ledger.keep_best import rank
from pixsift.adapters.ledger.spaces import in_space
from pixsift.adapters.postgres.database import Connection
from pixsift.answers.decisions import ChangedOutcome, NamedOutcome
from pixsift.core.dedup import Image
from pixsift.core.identity import ObjectVersion
from pixsift.core.rulings import Ruling, Rulings
from pixsift.core.successor import Add, Close, Ranked, State, Write, in_other_space
from pixsift.sql import statements

_SQL = statements("generations")
_RULINGS = statements("rulings")
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Position:
    """Where a collection is."""

    seq: int
    generation: int
    epsilon: float
    second_look: dict[str, Any] | None
    space_id: str
    dimension: int
    keep_best: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRows:
    """One generation's rows, over a connection."""

    connection: Connection
    collection_id: int
    generation: int
    space_id: str
    is_of_other_space: bool = False
    """Whether the generation is of another space than ``space_id``: states are then translated to
    it."""

    def states(self, at_seq: int) -> list[State]:
        """What every object was at a point, in the order of arrival."""
        return self._states("states_at", at_seq=at_seq)

    def changes(self, after: int, to: int) -> list[State]:
        """What objects became between two points, oldest first."""
        return self._states("changes_between", from_seq=after, to_seq=to)

    def rulings(self, at_seq: int) -> Rulings:
        """What was in force at a point."""
        names = {"collection_id": self.collection_id, "seq": at_seq}
        rows = self.connection.execute(_RULINGS["rulings_at"], names).fetchall()
        return Rulings.of(Ruling(*row) for row in rows)

    def images(self, states: Sequence[State]) -> list[Image]:
        """The objects' images, in the order in which children are decided again."""
        names = {
            "space_id": self.space_id,
            "object_ids": [state.object_id for state in states],
            "pixels": [state.pixel_sha256 for state in states],
            "seqs": [state.seq for state in states],
        }
        with self.connection.cursor(row_factory=class_row(Image), binary=True) as cursor:
            return cursor.execute(_SQL["images"], names).fetchall()

    def ranked(self, states: Sequence[State]) -> Ranked:
        """What keep-best asks of the objects."""
        return rank(self.connection, self.collection_id, states)

    def write(self, writes: Iterable[Write]) -> None:
        """Write in order; runs of new rows go as one statement."""
        for adding, run in groupby(writes, key=lambda write: isinstance(write, Add)):
            if adding:
                for part in _parts(run):
                    self._add(part)
                continue
            for write in run:
                assert isinstance(write, Close)  # noqa: S101 - narrows for mypy
                self._close(write)

    def _states(self, name: str, **points: int) -> list[State]:
        with self.connection.cursor(row_factory=class_row(State)) as cursor:
            states = cursor.execute(_SQL[name], {**self._names(), **points}).fetchall()
        return self._in_space(states) if self.is_of_other_space else states

    def _in_space(self, states: Sequence[State]) -> list[State]:
        translated: list[State] = []
        for start in range(0, len(states), _ROWS_AT_ONCE):
            part = states[start : start + _ROWS_AT_ONCE]
            ids = [state.object_id for state in part]
            found = in_space(self.connection, self.space_id, ids)
            translated += [in_other_space(state, found.get(state.object_id)) for state in part]
        return translated

    def _close(self, write: Close) -> None:
        self._writer().close([write.object_id], seq=write.seq)
        if write.representative:
            self._writer().stop_representing([write.object_id], seq=write.seq)

    def _add(self, adds: Sequence[Add]) -> None:
        states = [add.state for add in adds]
        self._writer().add(states, seqs=[state.seq for state in states])
        kept = [(add.state.seq, add.image) for add in adds if add.image is not None]
        if kept:
            # An image that is being erased gets no row; its ``gone`` follows.
            self._writer().represent([image for _, image in kept], seqs=[seq for seq, _ in kept])

    def _writer(self) -> GenerationWriter:
        return GenerationWriter(self.connection, self.collection_id, self.generation, self.space_id)

    def _names(self) -> dict[str, Any]:
        return {
            "collection_id": self.collection_id,
            "generation": self.generation,
            "space_id": self.space_id,
        }


def position(connection: Connection, collection_id: int) -> Position:
    """A collection's present position; read before the rows for which it is the watermark."""
    with connection.cursor(row_factory=class_row(Position)) as cursor:
        row = cursor.execute(_SQL["position"], {"collection_id": collection_id}).fetchone()
    assert row is not None  # noqa: S101 - collections are never deleted
    return row


def uris(connection: Connection, object_ids: Iterable[int]) -> dict[int, str]:
    """``s3://...?versionId=...`` of objects."""
    found = connection.execute(_SQL["uris"], {"object_ids": list(object_ids)}).fetchall()
    return {row[0]: ObjectVersion(*row[1:]).uri for row in found}


def _parts(run: Iterable[Write]) -> Iterator[list[Add]]:
    """A generation is written in pieces: it may hold millions of rows."""
    adds = (write for write in run if isinstance(write, Add))
    while part := list(islice(adds, _ROWS_AT_ONCE)):
        yield part


def named_outcomes(connection: Connection, changed: Sequence[ChangedOutcome]) -> list[NamedOutcome]:
    """Changed outcomes with the names of the objects."""
    ids = {i for c in changed for i in (c.object_id, c.representative) if i is not None}
    names = uris(connection, ids)
    return [
        NamedOutcome(
            **c.model_dump(), uri=names[c.object_id],
            representative_uri=None if c.representative is None else names[c.representative],
        )
        for c in changed
    ]  # fmt: skip
