"""Keep-best on a real ledger: who takes a place, who does not, and that a replay says the same."""

from collections.abc import Iterator
from typing import Any

import pytest

from ledger_world import image, new_collection, outcomes, rows, snapshot_of, turned
from pixsift.adapters.ledger import keep_best as module
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.core.outcomes import Judged
from pixsift.messages import parse_snapshot_request
from pixsift.operations.audit import Auditor
from pixsift.operations.protect import protect_prefix
from pixsift.operations.rule import rule
from races import Races, run


class World:
    """A collection that keeps the best, by a margin of 0.1."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self.collection = new_collection(self.ledger, keep_best=0.1)

    def put(self, *arrivals: Judged) -> None:
        """In one batch."""
        self.ledger.commit(self.collection, list(arrivals))

    def now(self) -> dict[str, tuple[str, str, str | None]]:
        """By key; the audit has nothing to say."""
        assert Auditor(self.database).audit(self.collection).findings == []
        return {key.split("@")[0]: value for key, value in outcomes(self.database.url).items()}

    def places(self) -> dict[str, str | None]:
        """By key who represents it; None: itself."""
        return {key: of for key, (_, _, of) in self.now().items()}

    def replayed(self) -> dict[str, str | None]:
        """The same after all was decided again by the same rule."""
        Generations(self.database).redecide(self.collection, epsilon=self.collection.epsilon)
        return self.places()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with Database(database_url) as database:
        yield World(database)


def shot(key: str, angle: float, sharpness: float | None, **facts: Any) -> Judged:
    """Epsilon is 18.2 degrees."""
    quality = {} if sharpness is None else {"sharpness": sharpness}
    return image(key, turned(angle), quality=quality, **facts)


BLURRED = {"detail": {"flags": ["blurred", "near_protected"]}}
CASES: dict[str, tuple[list[list[Judged]], dict[str, str | None]]] = {
    "a sharper one takes the place, with all duplicates": (
        [[shot("a", 0, 0.2)], [shot("b", 5, 0.1)], [shot("n", 3, 0.6)], [shot("c", 8, 0.3)]],
        {"a": "n", "b": "n", "n": None, "c": "n"},
    ),
    "not by the margin": (
        [[shot("a", 0, 0.2)], [shot("n", 3, 0.25)]], {"a": None, "n": "a"},
    ),
    "one after the other": (
        [[shot("a", 0, 0.2)], [shot("b", 2, 0.4)], [shot("n", 3, 0.6)]],
        {"a": "n", "b": "n", "n": None},
    ),
    "all in one batch": (
        [[shot("a", 0, 0.2), shot("b", 2, 0.4), shot("c", 3, 0.1), shot("n", 4, 0.6)]],
        {"a": "n", "b": "n", "c": "n", "n": None},
    ),
    "near another one as well": (
        [[shot("a", 0, 0.2)], [shot("b", 30, 0.2)], [shot("n", 14, 0.9)]],
        {"a": None, "b": None, "n": "a"},
    ),
    "not near a duplicate": (
        [[shot("a", 0, 0.2)], [shot("b", -12, 0.2)], [shot("n", 12, 0.9)]],
        {"a": None, "b": "a", "n": "a"},
    ),
    "equal pixels are no better": (
        [[shot("a", 0, 0.2)], [shot("n", 0, 0.9, pixels="a@v1")]], {"a": None, "n": "a"},
    ),
    "more pixels, where it is as sharp": (
        [[shot("a", 0, 0.2, image_facts={"width": 10, "height": 10})],
         [shot("n", 3, 0.2, image_facts={"width": 20, "height": 10})]],
        {"a": "n", "n": None},
    ),
    "fewer flags, where all else is equal": (
        [[shot("a", 0, 0.2, **BLURRED)], [shot("n", 3, 0.2)]], {"a": "n", "n": None},
    ),
    "what is not known is not compared": (
        [[shot("a", 0, None)], [shot("n", 3, 0.9)]], {"a": None, "n": "a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_keep_best__and_deciding_again_changes_nothing(case: str, world: World) -> None:
    batches, expected = CASES[case]
    for batch in batches:
        world.put(*batch)
    assert world.places() == expected
    told = world.now()
    assert {value[1] for value in told.values() if value[2] is None} <= {"new", "better"}
    assert world.replayed() == expected
    assert {key: value[:2] for key, value in world.now().items()} == {
        key: value[:2] for key, value in told.items()
    }


def test_keep_best__is_off_by_default(world: World) -> None:
    other = new_collection(world.ledger, "plain")
    world.ledger.commit(other, [shot("a", 0, 0.2)])
    world.ledger.commit(other, [shot("n", 3, 0.9)])
    assert other.keep_best is None
    assert world.places() == {"a": None, "n": "a"}


def test_keep_best__what_a_snapshot_lists_keeps_its_place(world: World) -> None:
    """From when the list was stored, also in a replay; before that, an image may lose it."""
    world.put(shot("a", 0, 0.2), shot("b", 90, 0.2))
    world.put(shot("n", 3, 0.9))
    asked = parse_snapshot_request({
        "schema": "pixsift.snapshot-request/2", "request_id": "r", "collection": "c",
        "name": "n", "at_seq": 1, "select": {"strategy": "all"},
    })  # fmt: skip
    snapshot_of(world.database, asked)  # as of before n: it lists a and b
    world.put(shot("m", 93, 0.9))
    expected = {"a": "n", "n": None, "b": None, "m": "b"}
    assert world.places() == expected
    assert world.replayed() == expected


def test_keep_best__rulings_and_evaluation_sets_hold(world: World) -> None:
    world.put(shot("exam/a", 0, 0.2), shot("b", 90, 0.2), shot("c", 140, 0.2))
    world.put(shot("c2", 141, 0.2))
    protect_prefix(
        world.database, "c", S3Uri("raw", "exam/"), distance=0.001, who="ann", why="exam"
    )
    rule(world.database, "c", "also_keep", [S3Uri("raw", "b")], why="x", who="ann")
    rule(world.database, "c", "not_same", [S3Uri("raw", "c2")], other=S3Uri("raw", "b"),
         why="x", who="ann")  # fmt: skip
    world.put(shot("exam-b", 3, 0.9), shot("n", 93, 0.9), shot("m", 142, 0.9))
    expected = {
        "exam/a": None, "exam-b": "exam/a", "b": None, "n": "b", "c": None, "c2": "c", "m": "c",
    }  # fmt: skip
    assert world.places() == expected
    assert world.replayed() == expected


def test_keep_best__of_too_many_duplicates_none_is_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_DUPLICATES", 1)
    monkeypatch.setattr("pixsift.core.keep_best.MOST_DUPLICATES", 1)
    world.put(shot("a", 0, 0.2))
    world.put(shot("b", 1, 0.2), shot("c", 2, 0.2))
    world.put(shot("n", 3, 0.9))
    assert world.places() == {"a": None, "b": "a", "c": "a", "n": "a"}
    assert world.replayed()["n"] == "a"


def test_keep_best__goes_on_after_deletes_and_undo(world: World) -> None:
    world.put(shot("a", 0, 0.2))
    world.put(shot("b", 5, 0.4), shot("far", 90, 0.1))
    assert world.places() == {"a": "b", "b": None, "far": None}
    world.ledger.remove(world.collection, [image("b", turned(5)).version])
    assert world.places() == {"a": None, "b": None, "far": None}
    world.put(shot("n", 3, 0.9))
    assert world.places()["a"] == "n"
    generations = Generations(world.database)
    told = generations.what_if(world.collection, epsilon=0.05, keep_best=False)
    assert (told.newly_kept, told.newly_duplicate) == (1, 1)
    generations.redecide(world.collection, epsilon=0.05, keep_best=False)
    assert world.places()["n"] == "a"
    generations.undo(world.collection)
    assert world.places()["a"] == "n"
    assert world.ledger.collection("c").keep_best == 0.1
    world.put(shot("o", 4, 1.2))
    assert world.places() == {"a": "o", "n": "o", "o": None, "b": None, "far": None}


def test_keep_best__races_end_as_a_replay_does(database_url: str) -> None:
    """Threads commit variants of one image at once, some of them sharper."""

    def keep_the_best(ledger: Ledger) -> None:
        original = ledger.create_collection
        ledger.create_collection = (  # type: ignore[method-assign]
            lambda name, **options: original(name, **options, keep_best=0.1)
        )

    run(database_url, Races(rounds=25, threads=3, removals=False, sharpness=True), keep_the_best)
    with Database(database_url) as database:
        world = World.__new__(World)
        world.database, world.ledger = database, Ledger(database)
        world.collection = world.ledger.collection("c")
        before = world.places()
        reasons = {value[1] for value in world.now().values()}
        assert "better" in reasons
        assert rows(
            database_url,
            "SELECT count(*) FROM decision WHERE valid_to_seq IS NOT NULL AND outcome = 'kept'",
        ) > [(5,)]
        assert world.replayed() == before
