"""Promise 3 under concurrency, and proof that these races would show it broken."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import races
from invariants import violations
from ledger_world import finding, image, ledger_of, new_collection, rows, turned
from pixsift.adapters.ledger import decision_batch, history
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.core.collection import HistoryPoint
from pixsift.core.dedup import Fate, Image, Judge, Kept, NearRule, decide_batch
from pixsift.ports import Neighborhood, NeighborSearch

FEW = races.Races(rounds=100, threads=3)
"""Enough for most mutations below to be caught a hundred times over."""


def test_races__no_two_near_duplicates_are_kept(database_url: str) -> None:
    run = races.Races(rounds=340, threads=4)
    assert run.count >= 2000
    committed = races.run(database_url, run)
    assert violations(database_url) == []
    assert committed == run.rounds * run.threads
    duplicates = rows(database_url, "SELECT count(*) FROM decision WHERE outcome = 'duplicate'")
    assert duplicates[0][0] > 4 * run.rounds, "these were no races"


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_races__hundred_thousand(database_url: str, seed: int) -> None:
    run = races.Races(rounds=1700, threads=4, seed=seed)
    assert 10 * run.count >= 100_000
    races.run(database_url, run)
    assert violations(database_url) == []


def edit(monkeypatch: pytest.MonkeyPatch, statement: str, change: Callable[[str], str]) -> None:
    """Mutate one statement of phase 2."""
    file = history._SQL if statement in history._SQL else decision_batch._SQL
    new = change(file[statement])
    assert new != file[statement], "the mutation changes nothing"
    monkeypatch.setitem(file, statement, new)


def drop_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "lock_collection", lambda sql: sql.replace("FOR NO KEY UPDATE", ""))


def drop_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of the bump, and the turn's row, whose key would be taken."""
    edit(
        monkeypatch,
        "end_turn",
        lambda sql: "UPDATE collection SET seq = %(seq)s WHERE collection_id = %(collection_id)s",
    )


def kept_pairs(url: str) -> int:
    return sum(text.startswith("kept ") for text in violations(url))


def test_mutation__without_the_lock_pairs_are_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_lock(monkeypatch)
    drop_net(monkeypatch)
    races.run(database_url, replace(FEW, removals=False))
    assert kept_pairs(database_url) > 0


def test_mutation__without_the_lock_the_second_net_is_loud(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_lock(monkeypatch)
    with pytest.raises(RuntimeError, match="seq moved"):
        races.run(database_url, replace(FEW, removals=False))
    assert kept_pairs(database_url) == 0


def test_mutation__repeatable_read_is_refused(database_url: str) -> None:
    settings = {"default_transaction_isolation": "repeatable read"}
    with Database(database_url, session=settings) as database:
        ledger = Ledger(database)
        with pytest.raises(RuntimeError, match="needs read committed"):
            ledger.commit(new_collection(ledger), [image("a", turned(0))])


@pytest.mark.parametrize(
    ("isolation", "is_sound"), [("read committed", True), ("repeatable read", False)]
)
def test_mutation__repeatable_read_unnoticed_keeps_pairs(
    database_url: str, monkeypatch: pytest.MonkeyPatch, isolation: str, is_sound: bool
) -> None:
    # An advisory lock and no counter: what is left is the exact look under the lock, which is
    # only as good as the snapshot it sees. READ COMMITTED is the control.
    edit(
        monkeypatch,
        "lock_collection",
        lambda sql: sql.replace(
            "FROM collection", ", pg_advisory_xact_lock(1) FROM collection"
        ).replace("FOR NO KEY UPDATE", "").replace(
            "current_setting('transaction_isolation')", "'read committed'"
        ),
    )  # fmt: skip
    monkeypatch.setattr(history, "_lock", _lock_by_advice)
    edit(monkeypatch, "end_turn", lambda sql: "SELECT 1")
    with psycopg.connect(database_url) as connection:
        # The counters' row is one that all write: repeatable read would notice it there.
        connection.execute("ALTER TABLE decision DISABLE TRIGGER USER")

    def isolate(ledger: Ledger) -> None:
        ledger._database._session["default_transaction_isolation"] = isolation

    races.run(database_url, replace(FEW, removals=False), isolate)
    assert (kept_pairs(database_url) == 0) is is_sound


def _lock_by_advice(
    connection: Connection,
    collection_id: int,
    sync: Callable[[], None],
    points: Sequence[HistoryPoint] = (),
) -> history._Locked:
    names = {"collection_id": collection_id, "seqs": [], "tokens": []}
    row = connection.execute(history._SQL["lock_collection"], names).fetchone()
    assert row is not None
    return history._Locked(*row[:6])._replace(proved=len(points))


class _LateWatermark:
    """A search that reads its watermark after it has searched, and after another has committed."""

    def __init__(self, search: NeighborSearch, database: Database) -> None:
        self._search, self._database = search, database
        self._turns = count()

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        found = self._search.within(collection_id, queries, max_distance)
        # Every second racer goes ahead at once and commits; the others have searched by then and
        # wait for that. Waiting equally long they would all give up together, and miss nothing.
        deadline = time.monotonic() + 0.1 * (next(self._turns) % 2)
        while self._point().seq <= found.watermark and time.monotonic() < deadline:
            time.sleep(0.001)
        point = self._point()
        return replace(found, watermark=point.seq, token=point.token)

    def _point(self) -> HistoryPoint:
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT seq, token FROM collection JOIN turn USING (collection_id, seq)"
            ).fetchone()
        assert row is not None
        return HistoryPoint(*row)


def test_mutation__watermark_after_the_search_keeps_pairs(database_url: str) -> None:
    def late(ledger: Ledger) -> None:
        planner = ledger._protocol._planner
        planner._search = _LateWatermark(planner._search, ledger._database)

    races.run(database_url, replace(FEW, removals=False), late)
    assert kept_pairs(database_url) > 0


def test_mutation__without_the_tail_pairs_are_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(monkeypatch, "tail", lambda sql: sql + " AND false")
    races.run(database_url, FEW)
    assert kept_pairs(database_url) > 0


def test_mutation__without_comparing_in_the_batch_pairs_are_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(
        items: Sequence[Image],
        kept: Kept,
        rule: NearRule,
        candidates: Mapping[int, Iterable[int]],
        judge: Judge,
        **more: Any,
    ) -> list[Fate]:
        return [
            decide_batch([item], deepcopy(kept), rule, candidates, judge, **more)[0]
            for item in items
        ]

    monkeypatch.setattr(decision_batch, "decide_batch", alone)
    races.run(database_url, replace(FEW, rounds=50))
    assert kept_pairs(database_url) > 0


@pytest.mark.parametrize("is_proved", [True, False])
def test_mutation__without_proof_of_life_duplicates_name_the_dead(
    database_url: str, monkeypatch: pytest.MonkeyPatch, is_proved: bool
) -> None:
    # The representative is deleted between the search and the lock; no luck needed.
    if not is_proved:
        edit(
            monkeypatch,
            "alive",
            lambda sql: sql.replace(
                "ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL",
                "ANY (%(object_ids)b::bigint[])",
            ),
        )
    meanwhile: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and meanwhile:
            meanwhile.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, [image("rep", turned(0))])

        def delete() -> None:
            ledger.remove(collection, [finding("rep", "gone").version])

        meanwhile.append(delete)
        ledger.commit(collection, [image("late", turned(3))])
    named_dead = any("which is not kept" in text for text in violations(database_url))
    assert named_dead is not is_proved


def test_mutation__without_verifying_the_plan_duplicates_of_the_removed_name_the_dead(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_batch.Batch, "_plan_holds", lambda batch, children: True)
    meanwhile: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and meanwhile:
            meanwhile.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        ledger.commit(
            collection, [image("rep", turned(0)), image("a", turned(15)), image("b", turned(30))]
        )

        def delete() -> None:
            ledger.remove(collection, [finding("b", "gone").version])

        meanwhile.append(delete)
        ledger.remove(collection, [finding("rep", "gone").version])
    assert any("which is not kept" in text for text in violations(database_url))
