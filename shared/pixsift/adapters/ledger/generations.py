"""What-if, redecide and undo: whole generations of decisions, built while another is in use.

A generation is built from stored vectors only and catches up with the one in use by ``seq``;
the last stretch and the switch happen in one transaction under the collection's lock, which is
short because little is left to catch up with. Consumers notice the new generation under the same
lock and start their search again. Nothing is overwritten: the old generation stays readable, and
going back to it is building a copy of it that catches up in the same way.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.decision_plan import near_rule
from pixsift.adapters.ledger.generation_rows import GenerationRows, Position, position, uris
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.pgvector import PgvectorSearch, drop_body
from pixsift.core.collection import Collection
from pixsift.core.dedup import NearRule
from pixsift.core.successor import State, Successor, Write
from pixsift.errors import ConflictError, Remedy, TransientError
from pixsift.sql import statements

_SQL = statements("generations")
CAUGHT_UP_SECONDS = 0.1
"""When catching up takes no longer, the last stretch under the lock will not either."""
_MAX_ROUNDS = 50
_ANOTHER = "another generation was switched to meanwhile; run it again"

SecondLook = dict[str, Any] | bool
"""A rule; True: as it is now; False: none, the embedding alone decides."""

ReportCount = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a generation decides by."""

    epsilon: float
    second_look: dict[str, Any] | None

    def near(self) -> NearRule:
        """The rule as the decision takes it."""
        return near_rule(self.epsilon, self.second_look)


@dataclass(frozen=True, slots=True)
class Switched:
    """A new generation is in use."""

    collection: str
    generation: int
    seq: int
    epsilon: float
    kept: int
    duplicate: int
    seconds: float
    lock_seconds: float
    """How long decisions of the collection had to wait."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What another rule would change; nothing was changed."""

    collection: str
    at_seq: int
    epsilon_now: float
    epsilon: float
    kept_now: int
    kept: int
    duplicate_now: int
    duplicate: int
    newly_kept: int
    newly_duplicate: int
    seconds: float
    examples: list[dict[str, Any]] = field(default_factory=list)
    """Objects whose outcome would change: uri, from, to, representative, distance."""


class Generations:
    """Builds, compares and switches the generations of a ledger's collections."""

    def __init__(self, database: Database, *, actor: str = "pixsift") -> None:
        """actor: who the turns say made them."""
        self._database = database
        self._actor = actor
        self._bodies = PgvectorSearch(database, background=False)

    def what_if(
        self,
        collection: Collection,
        *,
        epsilon: float,
        second_look: SecondLook = True,
        examples: int = 10,
    ) -> WhatIf:
        """What ``epsilon`` would change now."""
        started = time.monotonic()
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
            rule = _rule(at, epsilon, second_look)
            rows = GenerationRows(connection, collection.collection_id, at.generation, at.space_id)
            states = rows.states(at.seq)
            successor = Successor(rule.near(), at.dimension, rows.images)
            for _ in successor.apply(states):
                pass
            changed = [
                (old, successor.states[old.object_id])
                for old in states
                if old.object_id in successor.states
                and successor.states[old.object_id].outcome != old.outcome
            ]
            told = _examples(connection, _spread(changed, examples))
        now, then = _counts(states), _counts(successor.states.values())
        return WhatIf(
            collection.name, at.seq, at.epsilon, epsilon, now["kept"], then["kept"],
            now["duplicate"], then["duplicate"],
            newly_kept=sum(new.outcome == "kept" for _, new in changed),
            newly_duplicate=sum(new.outcome == "duplicate" for _, new in changed),
            seconds=time.monotonic() - started, examples=told,
        )  # fmt: skip

    def redecide(
        self,
        collection: Collection,
        *,
        epsilon: float,
        second_look: SecondLook = True,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> Switched:
        """Decide everything again under a new rule and switch to the result.

        Raises UserError when another generation is being built, unless ``take_over``.
        """
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
        rule = _rule(at, epsilon, second_look)
        build = _Build(collection, at, rule, self._bodies, progress, actor=self._actor)
        return self._run(build, take_over=take_over, base=(at.generation, at.seq), again=True)

    def undo(
        self,
        collection: Collection,
        *,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> Switched:
        """Go back to the decisions of the previous generation, and catch up from there.

        What arrived since the switch is decided by the previous rule. An undo can be undone.
        """
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
            previous = _one(connection, "previous_generation", collection.collection_id)
        if previous is None:
            raise ConflictError(
                f"collection {collection.name!r} has no earlier generation to go back to"
            )
        rule = Rule(previous["epsilon"], previous["second_look"])
        build = _Build(collection, at, rule, self._bodies, progress, actor=self._actor)
        base = (previous["generation"], previous["switched_at_seq"])
        return self._run(build, take_over=take_over, base=base, again=False)

    def _run(
        self, build: "_Build", *, take_over: bool, base: tuple[int, int], again: bool
    ) -> Switched:
        """From ``base`` (generation, seq), decided again or copied, up to now; then switch."""
        started = time.monotonic()
        with self._database.connection() as connection:
            generation = build.begin(connection, take_over=take_over)
            try:
                held, seq = build.build(connection, generation, base, again=again)
            except BaseException:
                _discard(connection, build.collection, generation)
                raise
        counts = _counts(build.successor.states.values())
        return Switched(
            build.collection.name, generation, seq, build.rule.epsilon, counts["kept"],
            counts["duplicate"], time.monotonic() - started, held,
        )  # fmt: skip


class _Build:
    """One generation on its way into use."""

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
    ) -> None:
        self.collection = collection
        self.at = at
        self.rule = rule
        self._bodies = bodies
        self._progress = progress
        self._actor = actor

    def begin(self, connection: Connection, *, take_over: bool) -> int:
        """Take the next number; one builder at a time."""
        identity = self.collection.collection_id
        other = _one(connection, "building", identity)
        if other is not None and not take_over:
            raise ConflictError(
                f"generation {other['generation']} of {self.collection.name!r} has been building "
                f"since {other['created_at']:%Y-%m-%d %H:%M}",
                code="generation_building", remedy=Remedy("take_over"),
            )  # fmt: skip
        if other is not None:
            _discard(connection, self.collection, other["generation"])
        look = None if self.rule.second_look is None else Jsonb(self.rule.second_look)
        names = {"epsilon": self.rule.epsilon, "second_look": look}
        begun = _one(connection, "begin_generation", identity, **names)
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
        identity, space = self.collection.collection_id, self.at.space_id
        in_use = GenerationRows(connection, identity, self.at.generation, space)
        target = GenerationRows(connection, identity, generation, space)
        states = GenerationRows(connection, identity, base[0], space).states(base[1])
        self.successor = Successor(self.rule.near(), self.at.dimension, target.images)
        writes = self.successor.apply(states) if again else self.successor.copy(states)
        target.write(_counted(writes, len(states), self._progress))
        connection.execute(_SQL["tell_the_planner"])
        seq = self._catch_up(connection, in_use, target, base[1])
        self._bodies.follow(identity, generation, seq)
        seq = self._catch_up(connection, in_use, target, seq)  # an index takes minutes
        try:
            return self._switch(connection, in_use, target, seq, "redecide" if again else "undo")
        except history.StartAgainError:
            raise TransientError(_ANOTHER) from None

    def _catch_up(
        self, connection: Connection, in_use: GenerationRows, target: GenerationRows, seq: int
    ) -> int:
        """Follow the generation in use until that is quick; returns the seq reached."""
        for _ in range(_MAX_ROUNDS):
            started = time.monotonic()
            now = position(connection, target.collection_id)
            self._still(now.generation)
            target.write(self.successor.apply(in_use.changes(seq, now.seq)))
            seq = now.seq
            if time.monotonic() - started < CAUGHT_UP_SECONDS:
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
        """The last stretch and the switch, under the lock."""
        with (
            connection.transaction(),
            history.turn(
                connection, self.collection, generation=self.at.generation,
                actor=self._actor, reason=reason,
            ) as turn,
        ):  # fmt: skip
            held_since = time.monotonic()
            target.write(self.successor.apply(in_use.changes(seq, turn.seq - 1)))
            turn.switch_to(target.generation)
        return time.monotonic() - held_since, turn.seq

    def _still(self, generation: int) -> None:
        if generation != self.at.generation:
            raise TransientError(_ANOTHER)


def _discard(connection: Connection, collection: Collection, generation: int) -> None:
    if connection.broken:  # the next builder is told of it, and takes over
        return
    names = {"collection_id": collection.collection_id, "generation": generation}
    with connection.transaction():
        # A switch that was committed although we failed after it must not lose its rows.
        if connection.execute(_SQL["discard_generation"], names).rowcount:
            drop_body(connection, collection.collection_id, generation)
            history.discard(connection, collection.collection_id, generation)


def _one(
    connection: Connection, name: str, collection_id: int, **names: Any
) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name], names | {"collection_id": collection_id}).fetchone()


def _examples(
    connection: Connection, changed: Sequence[tuple[State, State]]
) -> list[dict[str, Any]]:
    ids = {s.object_id for _, s in changed}
    ids |= {s.representative for pair in changed for s in pair if s.representative}
    named = uris(connection, ids)
    return [
        {
            "uri": named.get(new.object_id),
            "from": old.outcome,
            "to": new.outcome,
            "of": named.get(new.representative or old.representative or 0),
            "distance": new.distance if new.distance is not None else old.distance,
        }
        for old, new in changed
    ]


def _rule(at: Position, epsilon: float, second_look: SecondLook) -> Rule:
    if isinstance(second_look, bool):
        return Rule(epsilon, at.second_look if second_look else None)
    return Rule(epsilon, second_look)


def _counts(states: Iterable[State]) -> dict[str, int]:
    counts = {"kept": 0, "duplicate": 0}
    for state in states:
        if state.outcome in counts:
            counts[state.outcome] += 1
    return counts


def _spread(changed: Sequence[tuple[State, State]], count: int) -> list[tuple[State, State]]:
    """``count`` examples, evenly from nearest to farthest: both ends are what a reader looks at."""
    measured = sorted(changed, key=lambda pair: pair[1].distance or pair[0].distance or 0.0)
    if len(measured) <= count:
        return measured
    step = (len(measured) - 1) / max(1, count - 1)
    return [measured[round(i * step)] for i in range(count)]


def _counted(writes: Iterable[Write], of: int, progress: ReportCount) -> Iterator[Write]:
    for done, write in enumerate(writes, start=1):
        yield write
        if done % 1000 == 0:
            progress("deciding again", done, of)
