"""Builds one generation from stored vectors, lets it catch up, and switches to it.

``pixsift.adapters.ledger.generations`` says which and why.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger import history, spaces
from pixsift.adapters.ledger.decision_plan import near_rule
from pixsift.adapters.ledger.generation_rows import GenerationRows, Position, position
from pixsift.adapters.postgres.database import Connection
from pixsift.adapters.search.pgvector import PgvectorSearch, drop_body
from pixsift.core.collection import Collection
from pixsift.core.dedup import NearRule
from pixsift.core.successor import State, Successor, Write
from pixsift.errors import ConflictError, Remedy, TransientError
from pixsift.sql import statements

_SQL = statements("generations")
CAUGHT_UP_SECONDS = 0.1
"""When catching up takes at most this long, the last part under the lock will be as short."""
_MAX_ROUNDS = 50
_LOOK_AGAIN_SECONDS = 0.5
CAUGHT_UP_MOVING_SECONDS = 1.0
"""The same where new arrivals must be fetched and embedded."""
_ANOTHER = "another generation was switched to meanwhile; run it again"

ReportCount = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a generation decides by."""

    epsilon: float
    second_look: dict[str, Any] | None
    keep_best: float | None = None

    def near(self) -> NearRule:
        """The rule as the decision takes it."""
        return near_rule(self.epsilon, self.second_look, self.keep_best)


@dataclass(frozen=True, slots=True)
class Target:
    """The embedding space of a generation."""

    space_id: str
    dimension: int
    calibration: dict[str, Any] | None = None
    """The calibration of the rule there; None: not calibrated."""


class _NotReadyError(Exception):
    """The two spaces have not seen the same objects: undo this transaction and wait."""

    def __init__(self, undecided: int) -> None:
        super().__init__()
        self.undecided = undecided


class Build:
    """One generation that is being built."""

    successor: Successor

    def __init__(
        self,
        collection: Collection,
        at: Position,
        rule: Rule,
        bodies: PgvectorSearch,
        progress: ReportCount,
        *,
        actor: str,
        target: Target | None = None,
        prepare: Callable[[], None] = lambda: None,
        patience_seconds: float = 0.0,
    ) -> None:
        """target: None for what is in use. prepare, patience_seconds: see ``reembed``."""
        self.collection = collection
        self.at = at
        self.rule = rule
        self._bodies = bodies
        self._progress = progress
        self._actor = actor
        self._target = target
        self._space_id = at.space_id if target is None else target.space_id
        self._moves = self._space_id != at.space_id
        """Whether the generation is of another space than the one in use."""
        self._prepare = prepare
        self._patience = patience_seconds

    def begin(self, connection: Connection, *, take_over: bool) -> int:
        """Take the next generation number; one process builds at a time."""
        identity = self.collection.collection_id
        other = one_row(connection, _SQL["building"], identity)
        if other is not None and not take_over:
            raise ConflictError(
                f"generation {other['generation']} of {self.collection.name!r} has been building "
                f"since {other['created_at']:%Y-%m-%d %H:%M}",
                code="generation_building", remedy=Remedy("take_over"),
            )  # fmt: skip
        if other is not None:
            discard(connection, self.collection, other["generation"])
        look = None if self.rule.second_look is None else Jsonb(self.rule.second_look)
        calibration = None if self._target is None else self._target.calibration
        names = {
            "epsilon": self.rule.epsilon, "second_look": look, "keep_best": self.rule.keep_best,
            "space_id": None if self._target is None else self._space_id,
            "calibration": None if calibration is None else Jsonb(calibration),
        }  # fmt: skip
        begun = one_row(connection, _SQL["begin_generation"], identity, **names)
        if begun is None:
            raise ConflictError(
                f"another process has just started a generation of {self.collection.name!r}: "
                "wait until it is finished"
            )
        return int(begun["generation"])

    def build(
        self, connection: Connection, generation: int, base: tuple[int, int], *, again: bool
    ) -> tuple[float, int]:
        """Write it, catch up, switch; seconds under the lock, and the seq of the switch."""
        in_use, target, seq = self._written(connection, generation, base, again=again)
        self._bodies.follow(self.collection.collection_id, generation, seq)
        reason = ("reembed" if self._moves else "redecide") if again else "undo"
        patient_until: float | None = None
        while True:
            seq = self._catch_up(connection, in_use, target, seq)  # an index takes minutes
            try:
                return self._switch(connection, in_use, target, seq, reason)
            except history.StartAgainError:
                raise TransientError(_ANOTHER) from None
            except _NotReadyError as wait:
                if not wait.undecided:
                    continue  # e.g. a version that was erased: the next round handles it
                now = time.monotonic()
                patient_until = patient_until or now + self._patience
                self._wait(wait.undecided, patient_until - now)

    def build_beside(self, connection: Connection, generation: int, base: tuple[int, int]) -> int:
        """Write it and catch up; the seq up to which it follows the generation in use."""
        return self._written(connection, generation, base, again=True)[2]

    def _written(
        self, connection: Connection, generation: int, base: tuple[int, int], *, again: bool
    ) -> tuple[GenerationRows, GenerationRows, int]:
        """The rows in use, the rows written, and the seq that both have reached."""
        identity, space = self.collection.collection_id, self._space_id
        dimension = self.at.dimension if self._target is None else self._target.dimension
        in_use = GenerationRows(connection, identity, self.at.generation, space, self._moves)
        target = GenerationRows(connection, identity, generation, space)
        self._still(base[0] if again else self.at.generation)
        from_old = self._moves and again
        states = GenerationRows(connection, identity, base[0], space, from_old).states(base[1])
        rulings = in_use.rulings(base[1] if again else self.at.seq)
        self.successor = Successor(
            self.rule.near(), dimension, target.images, rulings, rank=target.ranked
        )
        writes = self.successor.apply(states) if again else self.successor.copy(states)
        target.write(_counted(writes, len(states), self._progress))
        connection.execute(_SQL["tell_the_planner"])
        return in_use, target, self._catch_up(connection, in_use, target, base[1])

    def _catch_up(
        self, connection: Connection, in_use: GenerationRows, target: GenerationRows, seq: int
    ) -> int:
        """Follow the generation in use until a round is quick; returns the seq reached."""
        for _ in range(_MAX_ROUNDS):
            started = time.monotonic()
            now = position(connection, target.collection_id)
            self._still(now.generation)
            self._prepare()
            target.write(self.successor.apply(in_use.changes(seq, now.seq)))
            seq = now.seq
            if time.monotonic() - started < (
                CAUGHT_UP_MOVING_SECONDS if self._moves else CAUGHT_UP_SECONDS
            ):
                break
        return seq

    def _switch(
        self,
        connection: Connection,
        in_use: GenerationRows,
        target: GenerationRows,
        seq: int,
        reason: str,
    ) -> tuple[float, int]:
        """The last stretch and the switch, under the lock.

        To another space: what was judged since the last round must be embedded first. Decisions
        wait for that, since otherwise new ones would keep coming; processes that store embeddings
        do not wait (``history.share``).
        """
        with connection.transaction():
            held_since = time.monotonic()
            if self._moves:
                history.share(connection, self.collection)
                self._prepare()
            with history.turn(
                connection, self.collection, generation=self.at.generation,
                actor=self._actor, reason=reason,
            ) as turn:  # fmt: skip
                if self._moves:
                    self._check_ready(connection, seq)
                target.write(self.successor.apply(in_use.changes(seq, turn.seq - 1)))
                history.forget_erased(connection, self.collection.collection_id, target.generation)
                turn.switch_to(target.generation)
        return time.monotonic() - held_since, turn.seq

    def _check_ready(self, connection: Connection, seq: int) -> None:
        """Under the lock: raise _NotReadyError unless both spaces have seen the same objects."""
        identity = self.collection.collection_id
        undecided = spaces.undecided_arrivals(connection, identity, self._space_id)
        if undecided or spaces.lacks_any(
            connection, identity, self._space_id, generation=self.at.generation, seq=seq
        ):
            raise _NotReadyError(undecided)

    def _wait(self, undecided: int, seconds_left: float) -> None:
        """Wait a moment for the arrivals to be decided. Raises ConflictError after
        ``patience_seconds``."""
        if seconds_left <= 0:
            raise ConflictError(
                f"{undecided} arrivals of {self.collection.name!r} were embedded in space "
                f"{self._space_id} and are not decided yet in {self.at.space_id}",
                code="arrivals_undecided", remedy=Remedy("run_both"),
            )  # fmt: skip
        self._progress("waiting for arrivals to be decided", 0, undecided)
        time.sleep(min(_LOOK_AGAIN_SECONDS, seconds_left))

    def _still(self, generation: int) -> None:
        if generation != self.at.generation:
            raise TransientError(_ANOTHER)


def discard(connection: Connection, collection: Collection, generation: int) -> None:
    if connection.broken:  # the next builder sees it and takes over
        return
    names = {"collection_id": collection.collection_id, "generation": generation}
    with connection.transaction():
        # If the switch was committed before this failure, its rows must stay.
        if connection.execute(_SQL["discard_generation"], names).rowcount:
            drop_body(connection, collection.collection_id, generation)
            history.discard(connection, collection.collection_id, generation)


def one_row(
    connection: Connection, statement: LiteralString, collection_id: int, **names: Any
) -> dict[str, Any] | None:
    """The row that a statement about a collection finds, by column; None without one."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, names | {"collection_id": collection_id}).fetchone()


def count_outcomes(states: Iterable[State]) -> dict[str, int]:
    counts = {"kept": 0, "duplicate": 0}
    for state in states:
        if state.outcome in counts:
            counts[state.outcome] += 1
    return counts


def _counted(writes: Iterable[Write], of: int, progress: ReportCount) -> Iterator[Write]:
    for done, write in enumerate(writes, start=1):
        yield write
        if done % 1000 == 0:
            progress("deciding again", done, of)
