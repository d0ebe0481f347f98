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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pixsift.adapters.ledger import spaces
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_build import (
    Build,
    ReportCount,
    Rule,
    Target,
    count_outcomes,
    discard,
    one_row,
)
from pixsift.adapters.ledger.generation_rows import GenerationRows, Position, position, uris
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.ledger.spaces import Spaces
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.answers.decisions import RuleComparison, SwitchedGeneration
from pixsift.core.collection import Collection
from pixsift.core.successor import State, Successor
from pixsift.errors import ConflictError, Remedy
from pixsift.sql import statements

_SQL = statements("generations")
_RULINGS = statements("rulings")
NOTICE_SECONDS = 6.0
"""After this time every consumer knows that the generation is being built."""
SecondLook = dict[str, Any] | bool
"""A rule; True: as it is now; False: none, the embedding alone decides."""
KeepBest = float | bool
"""A margin; True: as it is now; False: never."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A generation next to the one in use, and the seq up to which both can be compared."""

    in_use: int
    generation: int
    seq: int


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
        keep_best: KeepBest = True,
        examples: int = 10,
    ) -> RuleComparison:
        """What ``epsilon`` would change now."""
        started = time.monotonic()
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
            rule = _rule(at, epsilon, second_look, keep_best)
            rows = GenerationRows(connection, collection.collection_id, at.generation, at.space_id)
            states = rows.states(at.seq)
            rulings = rows.rulings(at.seq)
            successor = Successor(rule.near(), at.dimension, rows.images, rulings, rank=rows.ranked)
            for _ in successor.apply(states):
                pass
            changed = [
                (old, successor.states[old.object_id])
                for old in states
                if old.object_id in successor.states
                and successor.states[old.object_id].outcome != old.outcome
            ]
            shown = _examples(connection, _spread(changed, examples))
        now, then = count_outcomes(states), count_outcomes(successor.states.values())
        return RuleComparison(
            collection=collection.name, at_seq=at.seq, epsilon_now=at.epsilon, epsilon=epsilon,
            kept_now=now["kept"], kept=then["kept"],
            duplicate_now=now["duplicate"], duplicate=then["duplicate"],
            newly_kept=sum(new.outcome == "kept" for _, new in changed),
            newly_duplicate=sum(new.outcome == "duplicate" for _, new in changed),
            seconds=time.monotonic() - started, examples=shown,
        )  # fmt: skip

    def redecide(
        self,
        collection: Collection,
        *,
        epsilon: float,
        second_look: SecondLook = True,
        keep_best: KeepBest = True,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> SwitchedGeneration:
        """Decide everything again under a new rule and switch to the result.

        Raises UserError when another generation is being built, unless ``take_over``.
        """
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
        rule = _rule(at, epsilon, second_look, keep_best)
        build = Build(collection, at, rule, self._bodies, progress, actor=self._actor)
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
    ) -> SwitchedGeneration:
        """Decide everything again in another embedding space and switch to the result.

        prepare: fetches and embeds what ``Spaces.lacking`` lists; called repeatedly.
        patience_seconds: how long the switch may wait for arrivals that consumers of the space have
        acknowledged and the generation in use has not decided. notice_seconds: how long consumers
        may take to hear of the generation; the switch does not come earlier. A run that ends
        early, or is killed, leaves the generation in state ``building``: consumers continue to
        embed for it, and the next run takes over. Raises ConflictError where another process
        builds, or after ``patience_seconds``.
        """
        started = time.monotonic()
        with self._database.connection() as connection, spaces.alone(connection, collection):
            build, generation, base = self._begun(
                connection, collection, rule, target, prepare=prepare, progress=progress,
                patience_seconds=patience_seconds, notice_seconds=notice_seconds,
                take_over=take_over,
            )  # fmt: skip
            held, seq = build.build(connection, generation, base, again=True)
            self._obey(connection, collection, since=base[1])
        return _switched(build, generation, seq, started, held)

    def build_beside(
        self,
        collection: Collection,
        rule: Rule,
        target: Target,
        *,
        prepare: Callable[[], None],
        notice_seconds: float = NOTICE_SECONDS,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> Beside:
        """As ``reembed`` without the switch: the collection stays as it is.

        The generation stays in state ``building``, so that consumers of its space continue to embed
        for it, and ``reembed`` need not embed again.
        """
        with self._database.connection() as connection, spaces.alone(connection, collection):
            build, generation, base = self._begun(
                connection, collection, rule, target, prepare=prepare, progress=progress,
                patience_seconds=0.0, notice_seconds=notice_seconds, take_over=take_over,
            )  # fmt: skip
            seq = build.build_beside(connection, generation, base)
        return Beside(build.at.generation, generation, seq)

    def _begun(
        self, connection: Connection, collection: Collection, rule: Rule, target: Target, *,
        prepare: Callable[[], None], progress: ReportCount, patience_seconds: float,
        notice_seconds: float, take_over: bool,
    ) -> tuple[Build, int, tuple[int, int]]:  # fmt: skip
        """A generation of another space that consumers know of, and where building it starts."""
        at = position(connection, collection.collection_id)
        build = Build(
            collection, at, rule, self._bodies, progress, actor=self._actor, target=target,
            prepare=prepare, patience_seconds=patience_seconds,
        )  # fmt: skip
        other = one_row(connection, _SQL["building"], collection.collection_id)
        mine = other is not None and other["space_id"] == target.space_id != at.space_id
        generation = build.begin(connection, take_over=take_over or mine)
        noticed_at = time.monotonic() + notice_seconds
        prepare()
        time.sleep(max(0.0, noticed_at - time.monotonic()))
        now = position(connection, collection.collection_id)
        prepare()  # everything judged up to ``now`` is embedded after it
        return build, generation, (now.generation, now.seq)

    def undo(
        self,
        collection: Collection,
        *,
        take_over: bool = False,
        progress: ReportCount = lambda what, done, of: None,
    ) -> SwitchedGeneration:
        """Go back to the decisions of the previous generation, and catch up from there.

        What arrived since the switch is decided by the previous rule. An undo can be undone.
        """
        with self._database.connection() as connection:
            at = position(connection, collection.collection_id)
            previous = one_row(connection, _SQL["previous_generation"], collection.collection_id)
        if previous is None:
            raise ConflictError(
                f"collection {collection.name!r} has no earlier generation to go back to"
            )
        rule = Rule(previous["epsilon"], previous["second_look"], previous["keep_best"])
        target = Target(previous["space_id"], previous["dimension"], previous["calibration"])
        build = Build(
            collection, at, rule, self._bodies, progress, actor=self._actor, target=target,
            prepare=lambda: self._know_all(collection, at, target),
        )  # fmt: skip
        base = (previous["generation"], previous["switched_at_seq"])
        return self._run(build, take_over=take_over, base=base, again=False)

    def _run(
        self, build: Build, *, take_over: bool, base: tuple[int, int], again: bool
    ) -> SwitchedGeneration:
        """From ``base`` (generation, seq), decided again or copied, up to now; then switch."""
        started = time.monotonic()
        with self._database.connection() as connection:
            generation = build.begin(connection, take_over=take_over)
            try:
                held, seq = build.build(connection, generation, base, again=again)
            except BaseException:
                discard(connection, build.collection, generation)
                raise
            self._obey(connection, build.collection, since=base[1])
        return _switched(build, generation, seq, started, held)

    def _obey(self, connection: Connection, collection: Collection, *, since: int) -> None:
        """Decide again what rulings made or taken back since then concern: the generation that was
        built, or returned to, does not include them. In a separate turn, right after the switch.

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
        """Raise ConflictError unless the target's space has everything that was judged since
        then."""
        if target.space_id == at.space_id:
            return
        if lacking := self._spaces.take_known(collection, target.space_id):
            raise ConflictError(
                f"{lacking} images of {collection.name!r} arrived since it left embedding space "
                f"{target.space_id} and have no vector there",
                code="not_embedded", remedy=Remedy("reembed", {"collection": collection.name}),
            )  # fmt: skip


def _switched(
    build: Build, generation: int, seq: int, started: float, held: float
) -> SwitchedGeneration:
    counts = count_outcomes(build.successor.states.values())
    return SwitchedGeneration(
        collection=build.collection.name, generation=generation, seq=seq,
        epsilon=build.rule.epsilon, kept=counts["kept"], duplicate=counts["duplicate"],
        seconds=time.monotonic() - started, lock_seconds=held,
    )  # fmt: skip


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


def _rule(at: Position, epsilon: float, second_look: SecondLook, keep_best: KeepBest) -> Rule:
    look = second_look if isinstance(second_look, dict) else at.second_look
    margin = at.keep_best if isinstance(keep_best, bool) else keep_best
    return Rule(epsilon, look if second_look else None, margin if keep_best else None)


def _spread(changed: Sequence[tuple[State, State]], count: int) -> list[tuple[State, State]]:
    """``count`` examples, evenly from nearest to farthest, both ends included."""
    measured = sorted(changed, key=lambda pair: pair[1].distance or pair[0].distance or 0.0)
    if len(measured) <= count:
        return measured
    step = (len(measured) - 1) / max(1, count - 1)
    return [measured[round(i * step)] for i in range(count)]
