"""Rulings on a real ledger: each kind, conflicts, survival, undo, and what the audit says."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from ledger_world import image, new_collection, outcomes, rows, turned
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge_plan import Change
from pixsift.adapters.ledger.ruling_book import RulingBook, new_ruling, with_batch
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import ChangedOutcome
from pixsift.core.collection import Collection
from pixsift.core.outcomes import Judged
from pixsift.core.rulings import NO_RULINGS, Kind, Ruling, Rulings
from pixsift.errors import ConflictError, RequestError
from pixsift.operations.audit import Auditor

KEPT = ("kept", "new", None)


class World:
    """A ledger whose objects are identified by key."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self.collection: Collection = new_collection(self.ledger)
        self.book = RulingBook(database, actor="writer")
        self.judged: dict[str, Judged] = {}

    def put(self, **angles: float) -> None:
        """Images at these angles; epsilon is 18.2 degrees."""
        for key, angle in angles.items():
            self.judged[key] = image(key, turned(angle))
            self.ledger.commit(self.collection, [self.judged[key]])

    def copy(self, key: str, of: str) -> None:
        """The same bytes again."""
        other = self.judged[of]
        assert other.embedding is not None
        self.judged[key] = image(key, other.embedding, content=f"{of}@v1")
        self.ledger.commit(self.collection, [self.judged[key]])

    def id(self, key: str) -> int:
        ((found,),) = rows(self.database.url, "SELECT object_id FROM object WHERE key = %s", key)
        return int(found)

    def rule(self, kind: Kind, key: str, other: str | None = None) -> list[ChangedOutcome]:
        told = Ruling(kind, self.id(key), None if other is None else self.id(other))
        return self.book.say(self.collection, [new_ruling(told, who="ann", why="seen")])

    def undo(self) -> list[ChangedOutcome]:
        """Take everything back."""
        records = self.book.records(self.collection, in_force=True)
        return self.book.take_back(self.collection, [r.ruling_id for r in records])

    def now(self) -> dict[str, tuple[str, str, str | None]]:
        """Outcome, reason and representative by key; the audit has nothing to say."""
        assert Auditor(self.database).audit(self.collection).findings == []
        return {key.split("@")[0]: value for key, value in outcomes(self.database.url).items()}

    def what_is(self, key: str) -> tuple[str, str, str | None]:
        return self.now()[key]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with Database(database_url) as database:
        yield World(database)


def test_choose__represents_its_group_from_now_on(world: World) -> None:
    world.put(a=0, b=10, c=25, far=90)
    assert world.what_is("b") == ("duplicate", "near", "a")
    assert world.what_is("c") == KEPT
    world.rule("choose", "b")
    assert world.now() == {
        "a": ("duplicate", "near", "b"),
        "b": ("kept", "ruled", None),
        "c": ("duplicate", "near", "b"),
        "far": KEPT,
    }
    world.put(d=12)
    assert world.what_is("d") == ("duplicate", "near", "b")
    world.undo()
    assert world.what_is("a")[0] == "kept"
    assert world.what_is("b") == ("duplicate", "near", "a")


def test_also_keep__beside_its_representative(world: World) -> None:
    world.put(a=0, b=10)
    world.rule("also_keep", "b")
    assert world.now() == {"a": KEPT, "b": ("kept", "ruled", None)}
    world.undo()
    assert world.what_is("b") == ("duplicate", "near", "a")


def test_same__at_any_distance_and_through_the_other(world: World) -> None:
    world.put(a=0, b=10, x=90, y=100)
    assert world.what_is("y") == ("duplicate", "near", "x")
    world.rule("same", "x", "b")
    assert world.now() == {
        "a": KEPT,
        "b": ("duplicate", "near", "a"),
        "x": ("duplicate", "ruled", "a"),
        "y": ("kept", "promoted", None),
    }
    world.ledger.remove(world.collection, [world.judged["a"].version])
    assert world.what_is("b") == ("kept", "promoted", None)
    assert world.what_is("x") == ("duplicate", "ruled", "b")
    world.ledger.remove(world.collection, [world.judged["b"].version])
    assert world.what_is("x") == ("duplicate", "near", "y")


def test_not_same__the_rule_decides_against_all_others(world: World) -> None:
    world.put(a=0, c=25, b=12)
    assert world.what_is("b") == ("duplicate", "near", "a")
    world.rule("not_same", "b", "a")
    assert world.what_is("b") == ("duplicate", "near", "c")
    world.rule("not_same", "b", "c")
    assert world.what_is("b") == ("kept", "promoted", None)
    world.undo()
    assert world.what_is("b")[0] == "duplicate"


def test_useless__rejected_and_others_take_over(world: World) -> None:
    world.put(a=0, b=10)
    world.rule("useless", "a")
    assert world.now() == {"a": ("rejected", "ruled", None), "b": ("kept", "promoted", None)}
    world.ledger.commit(world.collection, [world.judged["a"]])  # delivered again
    assert world.what_is("a") == ("rejected", "ruled", None)
    world.undo()
    assert world.now() == {"a": ("kept", "promoted", None), "b": ("duplicate", "near", "a")}


def test_rulings__survive_redecide_undo_and_another_epsilon(world: World) -> None:
    world.put(a=0, b=10, c=40, d=50, e=90, f=100, g=130, h=134)
    generations = Generations(world.database)
    for kind, key, other in (
        ("choose", "b", None), ("also_keep", "d", None), ("same", "e", "a"), ("useless", "g", None)
    ):  # fmt: skip
        world.rule(kind, key, other)  # type: ignore[arg-type]
    before = {key: value[0] for key, value in world.now().items()}
    asked = generations.what_if(world.collection, epsilon=0.05)
    assert (asked.newly_kept, asked.newly_duplicate) == (0, 0)
    generations.redecide(world.collection, epsilon=0.05)
    assert {key: value[0] for key, value in world.now().items()} == before
    generations.redecide(world.collection, epsilon=0.001)
    now = world.now()
    assert (now["g"][0], now["e"][:2]) == ("rejected", ("duplicate", "ruled"))
    world.rule("not_same", "f", "e")
    world.rule("also_keep", "h")
    generations.undo(world.collection)
    assert world.what_is("h") == ("kept", "ruled", None)


def test_rulings__said_again_after_a_restore(world: World, database_url: str) -> None:
    """A journal's record is restored once, by its id, even for versions that the ledger does not
    know."""
    world.put(a=0, b=10)
    world.rule("also_keep", "b")
    (record,) = world.book.records(world.collection)
    assert (record.who, record.why, record.kind) == ("ann", "seen", "also_keep")
    assert world.book.records(world.collection, since=record.valid_from_seq) == []
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ruling")
    seq = world.ledger.collection("c").seq
    world.book.bring_back(world.collection, [record])
    world.book.bring_back(world.collection, [record])
    (again,) = world.book.records(world.collection)
    assert (again.ruling_id, again.said_at) == (record.ruling_id, record.said_at)
    assert world.ledger.collection("c").seq == seq + 1


def test_arrival__what_is_chosen_displaces_and_followers_follow(world: World) -> None:
    """A ruling about a version that arrives later waits for it."""
    world.put(a=0, x=90)
    with psycopg.connect(world.database.url) as connection:
        connection.execute(
            "INSERT INTO object (bucket, key, version_id) VALUES ('raw', 'b', 'v1'),"
            " ('raw', 't', 'v1')"
        )
    world.rule("choose", "b")
    world.rule("same", "x", "t")
    assert world.what_is("x") == KEPT
    world.put(b=10, t=45)
    assert world.now() == {
        "a": ("duplicate", "near", "b"),
        "b": ("kept", "ruled", None),
        "t": KEPT,
        "x": ("duplicate", "ruled", "t"),
    }


def test_conflicts__are_refused_and_nothing_is_written(world: World) -> None:
    world.put(a=0, b=10, c=90)
    world.copy("a2", of="a")
    seq = world.ledger.collection("c").seq
    refused: list[tuple[Kind, str, str | None, str]] = [
        ("also_keep", "a2", None, "a kept image has the same bytes"),
        ("not_same", "a", "a2", "the two images have the same bytes"),
        ("same", "a", "a", "cannot be compared with itself"),
    ]
    for kind, key, other, why in refused:
        with pytest.raises(ConflictError, match=why):
            world.rule(kind, key, other)
    assert world.ledger.collection("c").seq == seq
    world.rule("choose", "a2")
    assert world.what_is("a") == ("duplicate", "content", "a2")
    later: list[tuple[Kind, str, str | None, str]] = [
        ("choose", "a", None, "another image"),
        ("useless", "a2", None, "has the ruling choose already"),
        ("choose", "b", None, "another image is chosen for its group"),
    ]
    for kind, key, other, why in later:
        with pytest.raises(ConflictError, match=why):
            world.rule(kind, key, other)
    world.rule("same", "b", "c")
    more: list[tuple[Kind, str, str | None, str]] = [
        ("same", "c", "b", "ruled the same as this one already"),
        ("useless", "c", None, "useless image represents no other"),
        ("not_same", "b", "c", "say that the two are the same"),
    ]
    for kind, key, other, why in more:
        with pytest.raises(ConflictError, match=why):
            world.rule(kind, key, other)


def test_batch__all_or_nothing_and_taken_back_as_one(world: World) -> None:
    world.put(a=0, b=10, c=90, d=100)
    batch = uuid4()
    said = with_batch(
        [
            new_ruling(Ruling("choose", world.id("b")), who="ann", why="best"),
            new_ruling(Ruling("choose", world.id("d")), who="ann", why="best"),
        ],
        batch,
    )
    foreseen = world.book.say(world.collection, said, dry_run=True)
    assert world.book.records(world.collection) == []
    assert world.what_is("b")[0] == "duplicate"
    assert world.book.say(world.collection, said) == foreseen
    assert world.book.say(world.collection, said) == []  # known by their ids
    assert [world.what_is(key)[0] for key in "abcd"] == ["duplicate", "kept", "duplicate", "kept"]
    records = world.book.records(world.collection, batch=batch)
    world.book.take_back(world.collection, [r.ruling_id for r in records])
    assert [world.what_is(key)[0] for key in "abcd"] == ["kept", "duplicate", "kept", "duplicate"]
    wrong = [*said[:1], new_ruling(Ruling("same", world.id("c"), world.id("c")), who="", why="")]
    with pytest.raises(ConflictError):
        world.book.say(world.collection, wrong)
    assert world.book.records(world.collection, in_force=True) == []
    with pytest.raises(RequestError, match="too many"):
        world.book.say(world.collection, [said[0]] * 5001)


IGNORED: list[tuple[Kind, str, str | None]] = [
    ("choose", "b", None), ("also_keep", "b", None), ("same", "x", "a"), ("not_same", "b", "a"),
    ("useless", "a", None),
]  # fmt: skip


@pytest.mark.parametrize("said", IGNORED)
def test_mutation__a_ruling_ignored_is_what_the_audit_finds(
    said: tuple[Kind, str, str | None], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, and not obeyed."""
    world.put(a=0, b=10, x=90)
    monkeypatch.setattr(Change, "after", lambda self, in_force: NO_RULINGS)
    assert world.rule(*said) == []
    monkeypatch.undo()
    auditor = Auditor(world.database)
    report = auditor.audit(world.collection)
    assert {found.invariant for found in report.findings} == {
        "INV3" if said[0] == "not_same" else "INV11"
    }
    assert auditor.repair(world.collection, report).findings == []
    assert world.book.records(world.collection, in_force=True)


@pytest.mark.parametrize("said", IGNORED)
def test_mutation__an_audit_that_skips_rulings_is_wrong_about_each(
    said: tuple[Kind, str, str | None], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silent where one is ignored, or reports what one allows: both are seen here."""
    world.put(a=0, b=10, x=90)
    monkeypatch.setattr(Change, "after", lambda self, in_force: NO_RULINGS)
    world.rule(*said)
    monkeypatch.setattr(Rulings, "of", lambda said: NO_RULINGS)
    auditor = Auditor(world.database)
    assert auditor.audit(world.collection).findings == []
    monkeypatch.undo()
    auditor.repair(world.collection, auditor.audit(world.collection))
    assert auditor.audit(world.collection).findings == []
    monkeypatch.setattr(Rulings, "of", lambda said: NO_RULINGS)
    reported = {found.invariant for found in auditor.audit(world.collection).findings}
    wrongly = {"also_keep": {"INV2"}, "not_same": {"INV2"}, "same": {"INV3"}}
    assert reported == wrongly.get(said[0], set())
