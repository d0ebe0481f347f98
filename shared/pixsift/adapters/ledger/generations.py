"""What-if, redecide and undo: whole generations of decisions, built while another is in use.

A generation is built from stored vectors only and catches up with the one in use by ``seq``;
the last stretch and the switch happen in one transaction under the collection's lock, which is
short because little is left to catch up with. Consumers notice the new generation under the same
lock and start their search again. Nothing is overwritten: the old generation stays readable, and
going back to it is building a copy of it that catches up in the same way.

A generation may be of another embedding space than the one in use. Then everything that was judged
must be known in that space first (``pixsift.adapters.ledger.spaces``), and the switch waits until
what consumers of that space have acknowledged is decided here: both have seen the same objects.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pixsift.adapters.ledger import history, spaces
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.decision_plan import near_rule
from pixsift.adapters.ledger.generation_rows import GenerationRows, Position, position, uris
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.ledger.spaces import Spaces
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.pgvector import PgvectorSearch, drop_body
from pixsift.core.collection import Collection
from pixsift.core.dedup import NearRule
from pixsift.core.successor import State, Successor, Write
from pixsift.errors import ConflictError, Remedy, TransientError
from pixsift.sql import statements

_SQL = statements("generations")
_RULINGS = statements("rulings")
CAUGHT_UP_SECONDS = 0.1
"""When catching up takes no longer, the last stretch under the lock will not either."""
_MAX_ROUNDS = 50
_LOOK_AGAIN_SECONDS = 0.5
CAUGHT_UP_MOVING_SECONDS = 1.0
"""The same where what arrived in the meantime has to be fetched and embedded."""
NOTICE_SECONDS = 6.0
"""So long after it was begun at the latest every consumer knows of a generation being built."""
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
class Target:
    """The embedding space of a generation."""

    space_id: str
    dimension: int
    calibration: dict[str, Any] | None = None
    """What vouches for the rule there; None: nothing does."""


class _NotReadyError(Exception):
    """The two spaces have not seen the same objects: undo this transaction and wait."""

    def __init__(self, undecided: int) -> None:
        super().__init__()
        self.undecided = undecided


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
        self._spaces = Spaces(database)

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
            rulings = rows.rulings(at.seq)
            successor = Successor(rule.near(), at.dimension, rows.images, rulings)
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

    def reembed(
        self,
        collection: Collection,
        rule: Rule,
        target: Target,
        *,
        prepare: Callable[[], None],
        patience_seconds: float,
        notice_seconds: float = NOTICE_SECONDS,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> Switched:
        """Decide everything again in another embedding space and switch to the result.

        prepare: makes known in that space what ``Spaces.lacking`` names; called again and again.
        patience_seconds: how long the switch may wait for arrivals that consumers of the space have
        acknowledged and the generation in use has not decided. notice_seconds: how long consumers
        may take to hear of the generation; the switch does not come earlier. A run that ends
        early, or is killed, leaves the generation as being built: consumers go on embedding for it,
        and the next run takes over. Raises ConflictError where another process builds, or patience
        ends.
        """
        started = time.monotonic()
        with self._database.connection() as connection, spaces.alone(connection, collection):
            at = position(connection, collection.collection_id)
            build = _Build(
                collection, at, rule, self._bodies, progress, actor=self._actor, target=target,
                prepare=prepare, patience_seconds=patience_seconds,
            )  # fmt: skip
            other = _one(connection, "building", collection.collection_id)
            mine = other is not None and other["space_id"] == target.space_id != at.space_id
            generation = build.begin(connection, take_over=take_over or mine)
            noticed_at = time.monotonic() + notice_seconds
            prepare()
            time.sleep(max(0.0, noticed_at - time.monotonic()))
            now = position(connection, collection.collection_id)
            prepare()  # what was judged up to ``now`` is known after it
            held, seq = build.build(connection, generation, (now.generation, now.seq), again=True)
            self._obey(connection, collection, since=now.seq)
        return _switched(build, generation, seq, started, held)

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
        target = Target(previous["space_id"], previous["dimension"], previous["calibration"])
        build = _Build(
            collection, at, rule, self._bodies, progress, actor=self._actor, target=target,
            prepare=lambda: self._know_all(collection, at, target),
        )  # fmt: skip
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
            self._obey(connection, build.collection, since=base[1])
        return _switched(build, generation, seq, started, held)

    def _obey(self, connection: Connection, collection: Collection, *, since: int) -> None:
        """Decide again what rulings said or taken back since then touch: the generation that was
        built, or returned to, has not heard of them. In a turn of its own, right after the switch.

        Where one was taken back, as if it had never been said: in the order of arrival.
        """
        names = {"collection_id": collection.collection_id, "seq": since}
        rows = connection.execute(_RULINGS["rulings_changed"], names).fetchall()
        if rows:
            now = Collections(self._database).collection(collection.name)
            Rejudge(self._database, actor=self._actor).again(
                now, [row[0] for row in rows], why="ruling", as_arrived=any(row[1] for row in rows)
            )

    def _know_all(self, collection: Collection, at: Position, target: Target) -> None:
        """Raise ConflictError unless the target's space knows what was judged since it was left."""
        if target.space_id == at.space_id:
            return
        if lacking := self._spaces.take_known(collection, target.space_id):
            raise ConflictError(
                f"{lacking} images of {collection.name!r} arrived since it left embedding space "
                f"{target.space_id} and have no vector there",
                code="not_embedded", remedy=Remedy("reembed", {"collection": collection.name}),
            )  # fmt: skip


def _switched(build: "_Build", generation: int, seq: int, started: float, held: float) -> Switched:
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
        calibration = None if self._target is None else self._target.calibration
        names = {
            "epsilon": self.rule.epsilon, "second_look": look,
            "space_id": None if self._target is None else self._space_id,
            "calibration": None if calibration is None else Jsonb(calibration),
        }  # fmt: skip
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
        identity, space = self.collection.collection_id, self._space_id
        dimension = self.at.dimension if self._target is None else self._target.dimension
        in_use = GenerationRows(connection, identity, self.at.generation, space, self._moves)
        target = GenerationRows(connection, identity, generation, space)
        self._still(base[0] if again else self.at.generation)
        from_old = self._moves and again
        states = GenerationRows(connection, identity, base[0], space, from_old).states(base[1])
        rulings = in_use.rulings(base[1] if again else self.at.seq)
        self.successor = Successor(self.rule.near(), dimension, target.images, rulings)
        writes = self.successor.apply(states) if again else self.successor.copy(states)
        target.write(_counted(writes, len(states), self._progress))
        connection.execute(_SQL["tell_the_planner"])
        seq = self._catch_up(connection, in_use, target, base[1])
        self._bodies.follow(identity, generation, seq)
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
                    continue  # an image whose version was erased, say: the next round knows more
                now = time.monotonic()
                patient_until = patient_until or now + self._patience
                self._wait(wait.undecided, patient_until - now)

    def _catch_up(
        self, connection: Connection, in_use: GenerationRows, target: GenerationRows, seq: int
    ) -> int:
        """Follow the generation in use until that is quick; returns the seq reached."""
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
        wait for it, or there would always be something more; whoever stores what it has embedded
        does not (``history.share``).
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
        """Until the arrivals are decided, perhaps. Raises ConflictError when patience has ended."""
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
