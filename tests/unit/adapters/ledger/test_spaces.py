"""A generation of another embedding space: made known, built, switched to, undone."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from invariants import violations
from ledger_world import (
    finding,
    image,
    ledger_of,
    new_collection,
    outcomes,
    rows,
    space,
    turned,
)
from pixsift.adapters.ledger import spaces as spaces_of_ledger
from pixsift.adapters.ledger.generation_build import Build, Rule, Target
from pixsift.adapters.ledger.generation_rows import GenerationRows
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.spaces import Spaces
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import SwitchedGeneration
from pixsift.core.collection import Collection
from pixsift.core.outcomes import Judged
from pixsift.errors import ConflictError, TransientError
from pixsift.operations.audit import Auditor

OLD, NEW = space(), replace(space(8), recipe_id="px2-224")
EPSILON = 0.05
"""18.2 degrees."""


def old(key: str, degrees: float, **facts: str) -> Judged:
    """An image as the old space sees it."""
    return image(key, turned(degrees), **facts)


def new(key: str, degrees: float, **facts: str) -> Judged:
    """The same in the new space: other pixels, another vector, the same bytes."""
    found = image(key, turned(degrees, dimension=8), **facts)
    pixels = facts.get("pixels") or facts.get("content") or key
    return replace(found, pixel_sha256=("new " + pixels).encode().ljust(32, b".")[:32])


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url, max_connections=6) as opened:
        opened.ensure_space(NEW)
        new_collection(opened)
        yield opened


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, max_connections=6) as opened:
        yield opened


class Eyes:
    """Embeds in the new space what is lacking there, from a table of angles."""

    def __init__(
        self, database: Database, collection: Collection, angles: dict[str, float]
    ) -> None:
        self._spaces = Spaces(database)
        self._collection = collection
        self.angles = angles
        self.seen: list[str] = []

    def __call__(self) -> None:
        for page in self._spaces.lacking(self._collection, NEW.space_id):
            found = [(row.object_id, self._look(row.key, row.content_sha256)) for row in page]
            self._spaces.put(self._collection, NEW.space_id, found)

    def _look(self, key: str, content: bytes) -> Judged:
        self.seen.append(key)
        return replace(new(key, self.angles[key]), content_sha256=content)


def reembed(
    database: Database,
    prepare: Callable[[], None],
    *,
    patience: float = 10.0,
    epsilon: float = EPSILON,
) -> SwitchedGeneration:
    collection = Ledger(database).collection("c")
    return Generations(database, actor="someone").reembed(
        collection, Rule(epsilon, None), Target(NEW.space_id, NEW.dimension, {"epsilon": epsilon}),
        prepare=prepare, patience_seconds=patience, notice_seconds=0,
    )  # fmt: skip


def test_reembed__the_new_space_decides_and_undo_returns(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(
        collection,
        [
            old("a", 0), old("b", 10), old("c", 90), old("twin", 90, content="c@v1"),
            finding("bad", "rejected", "blurred"), finding("lost", "gone", "deleted"),
        ],
    )  # fmt: skip
    before = outcomes(database_url)
    assert before["b@v1"] == ("duplicate", "near", "a")
    eyes = Eyes(database, collection, {"a": 0, "b": 60, "c": 65, "twin": 65})
    switched = reembed(database, eyes)
    after = outcomes(database_url)
    assert after == {
        "a@v1": ("kept", "new", None), "b@v1": ("kept", "new", None),
        "c@v1": ("duplicate", "near", "b"), "twin@v1": ("duplicate", "near", "b"),
        "bad@v1": ("rejected", "blurred", None), "lost@v1": ("gone", "deleted", None),
    }  # fmt: skip
    assert violations(database_url) == []
    now = ledger.collection("c")
    assert (now.space_id, now.generation) == (NEW.space_id, switched.generation)
    assert now.calibration == {"epsilon": EPSILON}
    assert sorted(eyes.seen) == ["a", "b", "c"] or sorted(eyes.seen) == ["a", "b", "c", "twin"]
    assert not Auditor(database).audit(now).findings
    told = rows(database_url, "SELECT reason, actor FROM turn WHERE seq = %s", switched.seq)
    assert told == [("reembed", "someone")]

    Generations(database).undo(now)
    back = ledger.collection("c")
    assert (back.space_id, back.calibration) == (OLD.space_id, None)
    assert outcomes(database_url) == before and violations(database_url) == []
    Generations(database).undo(back)
    assert outcomes(database_url) == after and violations(database_url) == []


def test_reembed__what_has_no_vector_there_is_what_became_of_it(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0), old("b", 5), old("gone", 90)])

    def prepare() -> None:
        for page in spaces.lacking(collection, NEW.space_id):
            spaces.put(collection, NEW.space_id, [
                (row.object_id, new(row.key, 7) if row.key == "b"
                 else finding(row.key, "gone" if row.key == "gone" else "rejected", "no_reading"))
                for row in page
            ])  # fmt: skip

    spaces = Spaces(database)
    reembed(database, prepare)
    assert outcomes(database_url) == {
        "a@v1": ("rejected", "no_reading", None), "b@v1": ("kept", "new", None),
        "gone@v1": ("gone", "no_reading", None),
    }  # fmt: skip
    assert violations(database_url) == []


def test_reembed__a_run_that_died_goes_on(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old(f"k{i}", 20 * i) for i in range(12)])
    spaces = Spaces(database)

    def die_half_way() -> None:
        page = next(spaces.lacking(collection, NEW.space_id))
        spaces.put(collection, NEW.space_id,
                   [(row.object_id, new(row.key, 0)) for row in page[:5]])  # fmt: skip
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(database, die_half_way)
    assert ledger.collection("c").generation == 1
    assert spaces.work(collection, NEW.space_id).objects == 7
    eyes = Eyes(database, collection, {f"k{i}": 0 for i in range(12)})
    switched = reembed(database, eyes)
    assert len(eyes.seen) == 7 and (switched.kept, switched.duplicate) == (1, 11)
    states = rows(database_url, "SELECT state FROM generation ORDER BY generation")
    assert [state for (state,) in states] == ["retired", "discarded", "current"]


def test_reembed__two_at_once_are_refused(ledger: Ledger, database: Database) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0)])

    def meanwhile() -> None:
        with pytest.raises(ConflictError, match="another process"):
            reembed(database, lambda: None)
        Eyes(database, collection, {"a": 0})()

    reembed(database, meanwhile)


def test_reembed__arrivals_meanwhile_are_decided_and_not_missed(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    rng = np.random.default_rng(3)
    angles = {f"k{i:03d}": float(rng.uniform(0, 360)) for i in range(150)}
    keys = list(angles)
    ledger.commit(collection, [old(key, angles[key]) for key in keys[:50]])
    refused: list[str] = []

    def arrive() -> None:
        with ledger_of(database_url) as other:
            for number, key in enumerate(keys[50:]):
                try:
                    other.commit(collection, [old(key, angles[key])])
                    if number % 3 == 0:
                        other.remove(collection, [old(keys[number], 0).version])
                except TransientError:  # it has moved: for the consumers of the new space now
                    refused.extend(keys[50 + number :])
                    return

    robot = threading.Thread(target=arrive)
    robot.start()
    eyes = Eyes(database, collection, angles)
    switched = reembed(database, eyes)
    robot.join()
    now = ledger.collection("c")
    assert now.generation == switched.generation
    for key in refused:
        ledger.commit(now, [new(key, angles[key])])
    assert violations(database_url) == []
    assert len(outcomes(database_url)) == 150
    assert not Auditor(database).audit(ledger.collection("c")).findings
    reasons = {reason for _, reason, _ in outcomes(database_url).values()}
    assert "vector_missing" not in reasons


def test_reembed__waits_for_arrivals_that_were_acknowledged(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0)])
    spaces = Spaces(database)
    eyes = Eyes(database, collection, {"a": 0, "late": 50})

    def prepare() -> None:
        eyes()
        spaces.put_arrivals(collection, NEW.space_id, [new("late", 50)])

    with pytest.raises(ConflictError) as stopped:
        reembed(database, prepare, patience=0.2)
    assert stopped.value.code == "arrivals_undecided"
    assert ledger.collection("c").space_id == OLD.space_id
    ledger.commit(collection, [old("late", 5)])
    reembed(database, eyes, patience=0.2)
    assert outcomes(database_url)["late@v1"] == ("kept", "new", None)
    assert eyes.seen == ["a"]  # what the consumer embedded is not embedded again


class Switch:
    """Arrivals in every gap that the switch leaves: between its rounds, right before it takes the
    lock, and one that consumers of the new space have acknowledged and the present one decides only
    after the first attempt."""

    def __init__(self, ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_locked = False
        self.is_blind = False
        """A mutation: nothing is embedded while decisions wait."""
        self._ledger, self._database, self._attempts = ledger, database, 0
        self._collection = ledger.collection("c")
        self._angles = {"first": 0.0, "deleted": 45.0, "acknowledged": 90.0}
        self._eyes = Eyes(database, self._collection, self._angles)
        self._wanted = {"first", "deleted", "acknowledged"}
        original = Build._switch

        def switch(build: Build, *arguments: Any) -> tuple[float, int]:
            self.is_locked = True
            try:
                return original(build, *arguments)
            finally:
                self.is_locked, self._attempts = False, self._attempts + 1

        monkeypatch.setattr(Build, "_switch", switch)

    def troubles(self) -> list[str]:
        """What is wrong after the switch."""
        self._ledger.commit(self._collection, [old("first", 0), old("deleted", 45)])
        reembed(self._database, self._prepare)
        with self._database.connection() as connection:
            found = {key: (outcome, reason) for key, outcome, reason in connection.execute(
                "SELECT key, outcome, reason FROM decision JOIN object USING (object_id)"
                " JOIN collection USING (collection_id, generation) WHERE valid_to_seq IS NULL"
            ).fetchall()}  # fmt: skip
        wrong = [f"{key} has no outcome" for key in self._wanted - found.keys()]
        wrong += [f"{key} is {reason}" for key, (_, reason) in found.items()
                  if reason == "vector_missing"]  # fmt: skip
        return wrong + ([] if found["deleted"][0] == "gone" else ["a deleted image is there"])

    def _prepare(self) -> None:
        if not (self.is_locked and self.is_blind):
            self._eyes()
        if self.is_locked:
            return
        if self._attempts == 0:
            Spaces(self._database).put_arrivals(
                self._collection, NEW.space_id, [new("acknowledged", 90)]
            )
            self._arrive(f"late {len(self._angles)}", 30.0 * len(self._angles))
            if "late 5" in self._angles:
                self._ledger.remove(self._collection, [old("deleted", 45).version])
        elif self._attempts == 1:
            self._arrive("acknowledged", 90)
            self._arrive(f"last {len(self._angles)}", 30.0 * len(self._angles))

    def _arrive(self, key: str, degrees: float) -> None:
        self._angles[key] = degrees
        self._wanted.add(key)
        self._ledger.commit(self._collection, [old(key, degrees)])


def _unchecked(monkeypatch: pytest.MonkeyPatch, _: Switch) -> None:
    monkeypatch.setattr(Build, "_check_ready", lambda *_: None)


def _deaf(monkeypatch: pytest.MonkeyPatch, _: Switch) -> None:
    monkeypatch.setattr(spaces_of_ledger, "undecided_arrivals", lambda *_: 0)


def _blind(monkeypatch: pytest.MonkeyPatch, switch: Switch) -> None:
    switch.is_blind = True
    monkeypatch.setattr(spaces_of_ledger, "lacks_any", lambda *_, **__: False)


def _without_last_stretch(monkeypatch: pytest.MonkeyPatch, switch: Switch) -> None:
    original = GenerationRows.changes
    monkeypatch.setattr(
        GenerationRows, "changes",
        lambda rows, *seqs: [] if switch.is_locked else original(rows, *seqs),
    )  # fmt: skip


def test_switch__misses_nothing_whenever_it_arrives(
    ledger: Ledger, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Switch(ledger, database, monkeypatch).troubles() == []
    assert violations(database_url) == []
    assert not Auditor(database).audit(ledger.collection("c")).findings


@pytest.mark.parametrize("mutate", [_unchecked, _deaf, _blind, _without_last_stretch])
def test_switch__the_test_above_sees_each_protection_missing(
    ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch, Switch], None],
) -> None:  # fmt: skip
    switch = Switch(ledger, database, monkeypatch)
    mutate(monkeypatch, switch)
    assert switch.troubles()


def test_arrivals__are_refused_where_no_generation_of_the_space_is_being_built(
    ledger: Ledger, database: Database
) -> None:
    collection = ledger.collection("c")
    with pytest.raises(TransientError, match="no longer being built"):
        Spaces(database).put_arrivals(collection, NEW.space_id, [new("a", 0)])


def test_commit__of_another_space_is_refused_after_the_switch(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0)])
    reembed(database, Eyes(database, collection, {"a": 0}))
    with pytest.raises(TransientError, match="has moved"):
        ledger.commit(collection, [old("b", 90)])
    assert set(outcomes(database_url)) == {"a@v1"}


def test_undo__needs_vectors_of_what_arrived_since(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0)])
    reembed(database, Eyes(database, collection, {"a": 0}))
    now = ledger.collection("c")
    ledger.commit(now, [new("late", 90)])
    with pytest.raises(ConflictError) as refused:
        Generations(database).undo(now)
    assert refused.value.code == "not_embedded"
    object_id = rows(database_url, "SELECT object_id FROM object WHERE key = 'late'")[0][0]
    Spaces(database).put(now, OLD.space_id, [(object_id, old("late", 90))])
    Generations(database).undo(now)
    assert set(outcomes(database_url)) == {"a@v1", "late@v1"}
    assert violations(database_url) == []


def test_expired__a_memory_that_cannot_be_embedded_ends_with_the_space(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    collection = ledger.collection("c")
    ledger.commit(collection, [old("a", 0), old("b", 90)])
    ledger.remove(collection, [old("a", 0).version], reason="expired")
    assert Spaces(database).work(collection, NEW.space_id).remembered == 1
    reembed(database, Eyes(database, collection, {"b": 90}))
    now = ledger.collection("c")
    assert ledger.commit(now, [new("again", 0)])[0].outcome == "kept"
    assert violations(database_url) == []
