"""What-if, redecide and undo: whole generations of decisions, built beside the one in use.

A generation is built from stored vectors only and catches up with the one in use by ``seq``;
the last stretch and the switch happen in one transaction under the collection's lock, which is
short because little is left to catch up with. Consumers notice the new generation under the same
lock and start their search again. Nothing is overwritten: the old generation stays readable, and
going back to it is building a copy of it that catches up in the same way.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.decision_plan import near_rule
from pixsift.adapters.postgres import Connection, Database
from pixsift.core.collection import Collection
from pixsift.core.dedup import Image, NearRule
from pixsift.core.identity import ObjectVersion
from pixsift.core.successor import Add, Close, State, Successor, Write
from pixsift.errors import TransientError, UserError
from pixsift.sql import statements

CAUGHT_UP = 64
"""Transactions of the collection that may be left for the stretch under the lock."""
_MAX_ROUNDS = 50
_WRITES_AT_ONCE = 2048

SecondLook = dict[str, Any] | bool
"""A rule; True: as it is now; False: none, the embedding alone decides."""

Progress = Callable[[str, int, int], None]
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
class Position:
    """Where a collection is."""

    seq: int
    generation: int
    epsilon: float
    second_look: dict[str, Any] | None
    space_id: str
    dimension: int


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

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("generations")

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
            at = self._position(connection, collection)
            rule = _rule(at, epsilon, second_look)
            states = self._states(connection, collection, at.generation, at.seq)
            successor = self._successor(connection, at, rule)
            for _ in successor.apply(states):
                pass
            changed = [
                (old, successor.states[old.object_id])
                for old in states
                if old.object_id in successor.states
                and successor.states[old.object_id].outcome != old.outcome
            ]
            told = self._examples(connection, _spread(changed, examples))
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
        progress: Progress = lambda what, done, of: None,
    ) -> Switched:
        """Decide everything again under a new rule and switch to the result.

        Raises UserError when another generation is being built, unless ``take_over``.
        """
        with self._database.connection() as connection:
            at = self._position(connection, collection)
        rule = _rule(at, epsilon, second_look)
        return self._build(
            collection, at, rule, take_over=take_over, progress=progress,
            base=(at.generation, at.seq), again=True,
        )  # fmt: skip

    def undo(
        self,
        collection: Collection,
        *,
        take_over: bool = False,
        progress: Progress = lambda what, done, of: None,
    ) -> Switched:
        """Go back to the decisions of the previous generation, and catch up from there.

        What arrived since the switch is decided by the previous rule. An undo can be undone.
        """
        with self._database.connection() as connection:
            at = self._position(connection, collection)
            previous = self._one(connection, "previous_generation", collection.collection_id)
        if previous is None:
            raise UserError(
                f"collection {collection.name!r} has no earlier generation to go back to"
            )
        rule = Rule(previous["epsilon"], previous["second_look"])
        base = (previous["generation"], previous["switched_at_seq"])
        return self._build(
            collection, at, rule, take_over=take_over, progress=progress, base=base, again=False
        )

    def _build(
        self,
        collection: Collection,
        at: Position,
        rule: Rule,
        *,
        take_over: bool,
        progress: Progress,
        base: tuple[int, int],
        again: bool,
    ) -> Switched:
        """From ``base`` (generation, seq), decided again or copied, up to now; then switch."""
        started = time.monotonic()
        with self._database.connection() as connection:
            generation = self._begin(connection, collection, rule, take_over=take_over)
            try:
                states = self._states(connection, collection, *base)
                successor = self._successor(connection, at, rule)
                writes = successor.apply(states) if again else successor.copy(states)
                target = _Target(collection.collection_id, generation, at.space_id)
                self._write(connection, target, _counted(writes, len(states), progress))
                seq = self._catch_up(connection, at, target, successor, base[1])
                held, seq = self._switch(connection, at, target, successor, seq)
            except BaseException:
                self._discard(connection, collection, generation)
                raise
        counts = _counts(successor.states.values())
        return Switched(
            collection.name, generation, seq, rule.epsilon, counts["kept"], counts["duplicate"],
            time.monotonic() - started, held,
        )  # fmt: skip

    def _begin(
        self, connection: Connection, collection: Collection, rule: Rule, *, take_over: bool
    ) -> int:
        other = self._one(connection, "building", collection.collection_id)
        if other is not None and not take_over:
            raise UserError(
                f"generation {other['generation']} of {collection.name!r} is being built since "
                f"{other['created_at']:%Y-%m-%d %H:%M}; if nobody is at it any more, discard it "
                "with --take-over"
            )
        if other is not None:
            self._discard(connection, collection, other["generation"])
        look = None if rule.second_look is None else Jsonb(rule.second_look)
        names = {"epsilon": rule.epsilon, "second_look": look}
        begun = self._one(connection, "begin_generation", collection.collection_id, **names)
        assert begun is not None  # noqa: S101 - INSERT ... RETURNING
        return int(begun["generation"])

    def _catch_up(
        self, connection: Connection, at: Position, target: "_Target", successor: Successor,
        seq: int,
    ) -> int:  # fmt: skip
        """Follow the generation in use until little is left; returns the seq reached."""
        for _ in range(_MAX_ROUNDS):
            now = self._at(connection, target.collection_id)
            if now.generation != at.generation:
                raise TransientError("another generation came into use meanwhile; start again")
            self._follow(connection, at, target, successor, after=seq, to=now.seq)
            behind, seq = now.seq - seq, now.seq
            if behind <= CAUGHT_UP:
                break
        return seq

    def _switch(
        self, connection: Connection, at: Position, target: "_Target", successor: Successor,
        seq: int,
    ) -> tuple[float, int]:  # fmt: skip
        """The last stretch and the switch, under the lock; seconds held, and the new seq."""
        names = {"collection_id": target.collection_id, "generation": target.generation}
        with connection.transaction():
            locked = self._one(connection, "lock_for_switch", target.collection_id)
            held_since = time.monotonic()
            assert locked is not None  # noqa: S101 - collections are never deleted
            if locked["generation"] != at.generation:
                raise TransientError("another generation came into use meanwhile; start again")
            self._follow(connection, at, target, successor, after=seq, to=locked["seq"])
            names["seq"] = locked["seq"] + 1
            for name in ("retire_current", "make_current", "switch_collection"):
                connection.execute(self._sql[name], names)
        return time.monotonic() - held_since, names["seq"]

    def _follow(
        self, connection: Connection, at: Position, target: "_Target", successor: Successor,
        *, after: int, to: int,
    ) -> None:  # fmt: skip
        names = {
            "collection_id": target.collection_id, "generation": at.generation,
            "from_seq": after, "to_seq": to,
        }  # fmt: skip
        with connection.cursor(row_factory=class_row(State)) as cursor:
            changes = cursor.execute(self._sql["changes_between"], names).fetchall()
        self._write(connection, target, successor.apply(changes))

    def _discard(self, connection: Connection, collection: Collection, generation: int) -> None:
        if connection.broken:  # the next builder is told of it, and takes over
            return
        names = {"collection_id": collection.collection_id, "generation": generation}
        with connection.transaction():
            # A switch that was committed although we failed after it must not lose its rows.
            if connection.execute(self._sql["discard_generation"], names).rowcount:
                connection.execute(self._sql["discard_representatives"], names)
                connection.execute(self._sql["discard_decisions"], names)

    def _successor(self, connection: Connection, at: Position, rule: Rule) -> Successor:
        def fetch(states: Sequence[State]) -> list[Image]:
            names = {
                "space_id": at.space_id,
                "object_ids": [state.object_id for state in states],
                "pixels": [state.pixel_sha256 for state in states],
                "seqs": [state.seq for state in states],
            }
            with connection.cursor(row_factory=class_row(Image), binary=True) as cursor:
                return cursor.execute(self._sql["images"], names).fetchall()

        return Successor(rule.near(), at.dimension, fetch)

    def _write(self, connection: Connection, target: "_Target", writes: Iterable[Write]) -> None:
        """Write in order; runs of new rows go as one statement."""
        for adding, run in groupby(writes, key=lambda write: isinstance(write, Add)):
            if not adding:
                for write in run:
                    assert isinstance(write, Close)  # noqa: S101 - narrows for mypy
                    self._close(connection, target, write)
                continue
            adds = [write for write in run if isinstance(write, Add)]
            for start in range(0, len(adds), _WRITES_AT_ONCE):
                self._add(connection, target, adds[start : start + _WRITES_AT_ONCE])

    def _close(self, connection: Connection, target: "_Target", write: Close) -> None:
        names = target.names() | {"object_id": write.object_id, "seq": write.seq}
        connection.execute(self._sql["end_decision"], names)
        if write.representative:
            connection.execute(self._sql["end_representative"], names)

    def _add(self, connection: Connection, target: "_Target", adds: Sequence[Add]) -> None:
        states = [add.state for add in adds]
        connection.execute(self._sql["write_decisions"], target.names() | {
            "object_ids": [state.object_id for state in states],
            "outcomes": [state.outcome for state in states],
            "reasons": [state.reason for state in states],
            "details": [Jsonb(state.detail) for state in states],
            "representatives": [state.representative for state in states],
            "distances": [state.distance for state in states],
            "pixels": [state.pixel_sha256 for state in states],
            "seqs": [state.seq for state in states],
        })  # fmt: skip
        kept = [(add.state, add.image) for add in adds if add.image is not None]
        if kept:
            connection.execute(self._sql["write_representatives"], target.names() | {
                "object_ids": [state.object_id for state, _ in kept],
                "contents": [image.content_sha256 for _, image in kept],
                "pixels": [image.pixel_sha256 for _, image in kept],
                "seqs": [state.seq for state, _ in kept],
            })  # fmt: skip

    def _states(
        self, connection: Connection, collection: Collection, generation: int, at_seq: int
    ) -> list[State]:
        names = {
            "collection_id": collection.collection_id, "generation": generation, "at_seq": at_seq,
        }  # fmt: skip
        with connection.cursor(row_factory=class_row(State)) as cursor:
            return cursor.execute(self._sql["states_at"], names).fetchall()

    def _position(self, connection: Connection, collection: Collection) -> Position:
        return self._at(connection, collection.collection_id)

    def _at(self, connection: Connection, collection_id: int) -> Position:
        with connection.cursor(row_factory=class_row(Position)) as cursor:
            found = cursor.execute(self._sql["position"], {"collection_id": collection_id})
            row = found.fetchone()
        assert row is not None  # noqa: S101 - collections are never deleted
        return row

    def _one(
        self, connection: Connection, name: str, collection_id: int, **names: Any
    ) -> dict[str, Any] | None:
        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(self._sql[name], names | {"collection_id": collection_id})
            return found.fetchone()

    def _examples(
        self, connection: Connection, changed: Sequence[tuple[State, State]]
    ) -> list[dict[str, Any]]:
        ids = {s.object_id for _, s in changed}
        ids |= {s.representative for pair in changed for s in pair if s.representative}
        with connection.cursor() as cursor:
            rows = cursor.execute(self._sql["uris"], {"object_ids": list(ids)}).fetchall()
        uris = {row[0]: ObjectVersion(*row[1:]).uri for row in rows}
        return [
            {
                "uri": uris.get(new.object_id),
                "from": old.outcome,
                "to": new.outcome,
                "of": uris.get(new.representative or old.representative or 0),
                "distance": new.distance if new.distance is not None else old.distance,
            }
            for old, new in changed
        ]


@dataclass(frozen=True, slots=True)
class _Target:
    """The generation being written."""

    collection_id: int
    generation: int
    space_id: str

    def names(self) -> dict[str, Any]:
        return {
            "collection_id": self.collection_id,
            "generation": self.generation,
            "space_id": self.space_id,
        }


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


def _counted(writes: Iterable[Write], of: int, progress: Progress) -> Iterator[Write]:
    for done, write in enumerate(writes, start=1):
        yield write
        if done % 1000 == 0:
            progress("deciding again", done, of)
