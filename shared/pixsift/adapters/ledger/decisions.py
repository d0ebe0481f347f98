"""The two-phase decision protocol: race-free without holding a lock while searching.

Phase 1, no transaction, no lock: read the collection's seq as the watermark W, **then** search
representatives near each item. Phase 2, one READ COMMITTED transaction: lock the collection's
row, **alone in its statement**; look exactly at what is newer than W; prove that each candidate
still represents; decide the items one after the other; write; bump seq; commit.

Why it is race-free: lock order is visibility order, since PostgreSQL makes a commit visible before
it releases locks, and in READ COMMITTED each statement under the lock takes a fresh snapshot. seq
moves only under the lock, so W is complete: the search's snapshot, taken later, holds everything
up to W, and the tail scan holds the rest. No other process can add rows in between. Removing a
representative takes the same lock and bumps the same seq.

The duplicates of a representative that is removed are decided in phase 1 already, since there may
be many. Under the lock these fates are taken where the same children are there, the same images
live that any of them could be a duplicate of, and nothing newer than W is near; otherwise the
duplicates are decided again.

What changed between the phases in a way the plan cannot absorb (another generation, a child the
plan does not know, a vector stored first by another process, an erasure) rolls back and starts
phase 1 again.
"""

from collections.abc import Callable, Sequence
from functools import partial

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.decision_batch import Batch, store_facts
from pixsift.adapters.ledger.decision_plan import Plan, Planner
from pixsift.adapters.ledger.duties import (
    AnotherLedgerError,
    Duties,
    answered,
    ask_which_ledger,
)
from pixsift.adapters.ledger.history import StartAgainError
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database, sync
from pixsift.core.collection import Collection
from pixsift.core.outcomes import Decision, Judged, one_per_version
from pixsift.errors import TransientError
from pixsift.ports import NeighborSearch

_ATTEMPTS = 8
"""Phase 1 starts again at most this often before the batch goes back to its queue."""


class DecisionProtocol:
    """Commits batches of one ledger. Thread-safe."""

    def __init__(
        self,
        database: Database,
        search: NeighborSearch,
        *,
        actor: str,
        pause: Callable[[str], None] | None = None,
        duties: Duties | None = None,
    ) -> None:
        """actor: who the turns say made them. pause: called with ``planned``, ``lock_held``,
        ``inserted`` and ``committed``; tests wait there, or die. duties: met before anything is
        decided in a ledger."""
        self._duties = duties
        self._database = database
        self._actor = actor
        self._planner = Planner(database, search)
        self._rejudge = Rejudge(database, search=search, actor=actor)
        self._pause = pause or (lambda point: None)

    def commit(
        self, collection: Collection, judged: Sequence[Judged], *, reason: str
    ) -> list[Decision]:
        """See ``Ledger.commit``. reason: what the turn's row says."""
        items = one_per_version(judged)
        if not items:
            return []
        for _ in range(_ATTEMPTS):
            try:
                plan = self._planner.plan(collection, items)
                self._pause("planned")
                decisions, tied = self._settle(collection, plan, reason)
            except StartAgainError:
                continue
            except AnotherLedgerError:
                assert self._duties is not None  # noqa: S101 - only duties raise it
                self._duties.catch_up()
                continue
            self._pause("committed")
            if tied:
                # In a separate turn: this is rare, and an audit finds what a crash here leaves
                # undone.
                self._rejudge.again(collection, sorted(tied), why="ruling")
            return decisions
        raise TransientError("the collection changes too fast: the batch will be retried")

    def _settle(
        self, collection: Collection, plan: Plan, reason: str
    ) -> tuple[list[Decision], set[int]]:
        """Phase 2; the decisions, and the objects that rulings tie to them.

        Statements travel in a pipeline: three round trips while the lock is held. Each ends with a
        sync: only then does the server count the session as idle in the transaction, and take the
        lock from a process that hangs.
        """
        with (
            self._database.connection() as connection,
            connection.pipeline() as pipeline,
            connection.transaction(),
        ):
            synced = partial(sync, connection, pipeline)
            ledger = ask_which_ledger(connection)
            facts = store_facts(connection, collection, plan)
            with history.turn(
                connection, collection, generation=plan.generation,
                points=plan.points, actor=self._actor, reason=reason, sync=synced,
            ) as turn:  # fmt: skip
                if self._duties is not None and not self._duties.are_met_by(answered(ledger)):
                    raise AnotherLedgerError
                self._pause("lock_held")
                batch = Batch(turn, collection, plan, sync=synced)
                batch.read(facts.object_ids())
                facts.check(connection, collection.space_id, sync=synced)
                decisions = batch.decide()
                batch.write()
            self._pause("inserted")
        return decisions, batch.tied
