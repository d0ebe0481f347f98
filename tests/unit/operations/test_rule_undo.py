"""After a choice is taken back its group is what the rule decides in the order of arrival."""

from collections.abc import Callable, Iterator, Mapping
from uuid import UUID

import numpy as np
import pytest

from ledger_world import EPSILON, image, new_collection, outcomes, rows, space, turned
from made_images import scene
from oracle import Oracle, Picture
from pixsift.adapters.ledger.generation_rows import GenerationRows
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.identity import S3Uri
from pixsift.core.outcomes import Judged
from pixsift.core.second_look import LookRule, look_signals
from pixsift.operations.audit import Auditor
from pixsift.operations.rule import rule, rule_best, undo_rulings


class Group:
    """Images of one collection, identified by their keys."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self.collection: Collection = new_collection(self.ledger)
        self.arrived: list[Judged] = []

    def arrive(self, *batch: Judged) -> None:
        """In one transaction, in this order."""
        self.ledger.commit(self.collection, list(batch))
        self.arrived += batch

    def choose(self, key: str) -> UUID:
        done = rule(self.database, "c", "choose", [S3Uri("raw", key)], why="seen", who="ann")
        assert self.now()[key][:2] == ("kept", "ruled")
        return UUID(done.ruling_ids[0])

    def undo(self, *ruling_ids: UUID) -> None:
        undo_rulings(self.database, "c", ruling_ids=ruling_ids)

    def now(self) -> dict[str, tuple[str, str, str | None]]:
        """Outcome, reason and representative by key; the audit has nothing to say."""
        assert Auditor(self.database).audit(self.collection).findings == []
        return {key.split("@")[0]: value for key, value in outcomes(self.database.url).items()}

    def places(self) -> dict[str, tuple[str, str | None]]:
        """The same without reasons."""
        return {key: (outcome, of) for key, (outcome, _, of) in self.now().items()}

    def by_brute_force(self, epsilon: float = EPSILON) -> dict[str, tuple[str, str | None]]:
        """``places`` as the oracle has them, who has never heard of a ruling."""
        oracle = Oracle(epsilon)
        for judged in self.arrived:
            assert judged.content_sha256 and judged.pixel_sha256 and judged.embedding is not None
            oracle.put(
                Picture(judged.version.key, judged.content_sha256, judged.pixel_sha256,
                        judged.embedding)
            )  # fmt: skip
        return {
            name: (oracle.outcome(name) or "", oracle.children.get(name))
            for name in oracle.pictures
        }


@pytest.fixture
def group(database_url: str) -> Iterator[Group]:
    with Database(database_url) as database:
        yield Group(database)


def angles(**degrees: float) -> list[Judged]:
    """Epsilon is 18.2 degrees."""
    return [image(key, turned(angle)) for key, angle in degrees.items()]


CASES: dict[str, tuple[list[list[Judged]], str]] = {
    "one duplicate": ([angles(a=0), angles(b=12)], "b"),
    "a duplicate that is far from the chosen": ([angles(a=0), angles(b=12), angles(c=-12)], "b"),
    "chosen after it": ([angles(a=0), angles(c=-12), angles(b=12)], "b"),
    "many children on both sides": (
        [angles(a=0), angles(b=12, c=-12, d=-15, e=15, f=-9, g=3, h=-17)], "b",
    ),
    "one batch, keys against the arrival": ([angles(z=0, b=12, y=-12, a=5)], "b"),
    "the displaced come back with their own": (
        [angles(a=0), angles(b=12), angles(c=24), angles(d=33)], "b",
    ),
    "the chosen represents already": ([angles(a=0), angles(b=12)], "a"),
    "equal pixels": (
        [angles(a=0), [image("p", turned(0), pixels="a@v1")], angles(c=-12)], "p",
    ),
    "equal bytes": (
        [angles(a=0), [image("p", turned(0), content="a@v1")], angles(b=12, c=-12)], "p",
    ),
    "a copy of the chosen": (
        [angles(a=0), angles(b=12), [image("b2", turned(12), content="b@v1")], angles(c=-12)], "b2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_undo__brings_the_group_back(case: str, group: Group) -> None:
    batches, chosen = CASES[case]
    for batch in batches:
        group.arrive(*batch)
    before = group.places()
    assert before == group.by_brute_force()
    group.undo(group.choose(chosen))
    assert group.places() == before


@pytest.mark.parametrize("late", [-24.0, -12.0, 3.0, 13.0, 25.0])
def test_undo__what_arrived_since_takes_its_place_behind(late: float, group: Group) -> None:
    """-24: kept meanwhile or not, far from both; -12: kept only because a was a duplicate."""
    group.arrive(*angles(a=0, b=12))
    said = group.choose("b")
    group.arrive(*angles(late=late))
    group.arrive(*angles(later=late - 10))
    group.undo(said)
    assert group.places() == group.by_brute_force()


def test_undo__other_rulings_hold(group: Group) -> None:
    group.arrive(*angles(a=0, b=12, c=-12, d=-14))
    said = group.choose("b")
    rule(group.database, "c", "also_keep", [S3Uri("raw", "d")], why="seen", who="ann")
    group.undo(said)
    assert group.places() == {
        "a": ("kept", None), "b": ("duplicate", "a"), "c": ("duplicate", "a"), "d": ("kept", None),
    }  # fmt: skip


def test_undo__a_batch_over_many_groups(group: Group) -> None:
    """Of real frames: a place again and again, some pairs of which lie beyond epsilon."""
    rng = np.random.default_rng(7)
    for place in range(12):
        middle = rng.normal(size=16)
        middle /= np.linalg.norm(middle)
        frames = [middle] + [middle + 0.06 * rng.normal(size=16) for _ in range(place % 5)]
        vectors = [(frame / np.linalg.norm(frame)).astype(np.float16) for frame in frames]
        # Keys run against the arrival.
        group.arrive(
            *(
                image(f"{place}/{9 - n}", vector, quality={"sharpness": 0.1 * n})
                for n, vector in enumerate(vectors)
            )
        )
    before = group.places()
    assert before == group.by_brute_force()
    done = rule_best(group.database, "c", "most sharpness", why="legible", who="ann")
    assert done.batch is not None and done.rulings >= 6
    assert sum(outcome == "kept" for outcome, _ in group.places().values()) > sum(
        outcome == "kept" for outcome, _ in before.values()
    )  # some frames of a place lie far from the chosen one
    undo_rulings(group.database, "c", batch=UUID(done.batch))
    assert group.places() == before


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.2])
def test_undo__in_a_generation_that_was_made_since(
    epsilon: float, together: bool, group: Group
) -> None:
    arrivals = angles(a=0, b=12, c=-12, d=-26, e=9)
    for batch in [arrivals] if together else [[arrival] for arrival in arrivals]:
        group.arrive(*batch)
    said = group.choose("b")
    Generations(group.database).redecide(group.collection, epsilon=epsilon)
    group.undo(said)
    assert group.places() == group.by_brute_force(epsilon)


def test_undo__with_the_second_look_of_real_pictures(database_url: str) -> None:
    """The same view three times, and one that only the embedding takes for it."""
    view, other = np.asarray(scene("coffee.png")), np.asarray(scene("rocket.jpg"))
    looks: Mapping[str, Callable[[], bytes]] = {
        "same": lambda: look_signals(view), "other": lambda: look_signals(other),
    }  # fmt: skip
    with Database(database_url) as database:
        group = Group(database)
        group.collection = new_collection(
            group.ledger, "looked", second_look=LookRule(narrow=0.001).to_json()
        )
        for key, angle, look in (
            ("a", 0, "same"), ("b", 12, "same"), ("o", 3, "other"), ("c", -12, "same"),
        ):  # fmt: skip
            group.arrive(image(key, turned(angle), look=looks[look]()))
        wanted = {
            "a": ("kept", "new", None), "b": ("duplicate", "near_look", "a"),
            "o": ("kept", "new", None), "c": ("duplicate", "near_look", "a"),
        }  # fmt: skip
        assert group.now() == wanted
        done = rule(database, "looked", "choose", [S3Uri("raw", "b")], why="seen", who="ann")
        assert group.places()["c"] == ("kept", None)
        undo_rulings(database, "looked", ruling_ids=[UUID(done.ruling_ids[0])])
        assert group.places() == {key: (row[0], row[2]) for key, row in wanted.items()}
        assert group.now()["b"][1] == "near_look"
        assert rows(database.url, "SELECT count(*) FROM ruling WHERE valid_to_seq IS NULL") == [
            (0,)
        ]


@pytest.mark.parametrize("kind", ["useless", "same"])
def test_undo__a_representative_comes_back_to_its_place(kind: str, group: Group) -> None:
    """Its duplicates were kept or handed on meanwhile, and others arrived."""
    group.arrive(*angles(a=0, b=12, c=-12, far=90))
    before = group.places()
    other = S3Uri("raw", "far") if kind == "same" else None
    done = rule(group.database, "c", kind, [S3Uri("raw", "a")], other=other, why="seen", who="ann")
    assert group.places()["b"] == ("kept", None)
    group.undo(UUID(done.ruling_ids[0]))
    assert group.places() == before
    done = rule(group.database, "c", kind, [S3Uri("raw", "a")], other=other, why="seen", who="ann")
    group.arrive(*angles(late=-14, later=28))
    group.undo(UUID(done.ruling_ids[0]))
    assert group.places() == group.by_brute_force()


@pytest.mark.parametrize("kind", ["useless", "same"])
def test_undo__a_duplicate_takes_no_place_from_who_was_promoted(kind: str, group: Group) -> None:
    """b represents since a went away, as the sharpest; the earlier c is a duplicate again."""
    group.arrive(*angles(a=0, c=8))
    group.arrive(image("b", turned(10), quality={"sharpness": 0.9}), *angles(far=90))
    group.ledger.remove(group.collection, [group.arrived[0].version])
    before = group.places()
    assert before["c"] == ("duplicate", "b")
    other = S3Uri("raw", "far") if kind == "same" else None
    done = rule(group.database, "c", kind, [S3Uri("raw", "c")], other=other, why="seen", who="ann")
    group.undo(UUID(done.ruling_ids[0]))
    assert group.places() == before


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["choose", "useless", "same"])
def test_undo__of_a_generation_after_a_ruling_was_taken_back(
    kind: str, together: bool, group: Group
) -> None:
    """The generation returned to was decided under the ruling, and has not heard of its end."""
    arrivals = angles(a=0, b=12, c=-12, d=-50, far=120)
    for batch in [arrivals] if together else [[arrival] for arrival in arrivals]:
        group.arrive(*batch)
    about, other = ("b", None) if kind == "choose" else ("a", "far" if kind == "same" else None)
    done = rule(
        group.database, "c", kind, [S3Uri("raw", about)], why="seen", who="ann",
        other=None if other is None else S3Uri("raw", other),
    )  # fmt: skip
    generations = Generations(group.database)
    generations.redecide(group.collection, epsilon=0.2)
    group.undo(UUID(done.ruling_ids[0]))
    assert group.places() == group.by_brute_force(0.2)
    generations.undo(group.collection)
    assert group.places() == group.by_brute_force()
    assert {row[1] for row in group.now().values()} <= {"new", "near", "promoted"}


@pytest.mark.parametrize("kind", ["choose", "useless", "also_keep", "not_same"])
def test_undo__of_a_generation_obeys_what_was_said_since(kind: str, group: Group) -> None:
    group.arrive(*angles(a=0, b=12, c=-12))
    generations = Generations(group.database)
    generations.redecide(group.collection, epsilon=0.2)
    rule(
        group.database, "c", kind, [S3Uri("raw", "b")], why="seen", who="ann",
        other=S3Uri("raw", "a") if kind == "not_same" else None,
    )  # fmt: skip
    generations.undo(group.collection)
    now = group.places()
    assert now["b"] == ("rejected", None) if kind == "useless" else ("kept", None)
    assert now["a"] == (("duplicate", "b") if kind == "choose" else ("kept", None))


def test_redecide__after_an_undone_choice_is_still_in_the_order_of_arrival(group: Group) -> None:
    """The rows that a choice put first in their batch do not tell who arrived first."""
    group.arrive(*angles(z=0, b=12, y=-12, a=5))
    before, said = group.places(), group.choose("b")
    generations = Generations(group.database)
    generations.redecide(group.collection, epsilon=EPSILON)
    group.undo(said)
    assert group.places() == before
    for _ in range(2):
        generations.redecide(group.collection, epsilon=EPSILON)
        assert group.places() == before


def test_redecide__what_was_useless_on_arrival_has_its_place_when_it_is_no_longer(
    group: Group,
) -> None:
    group.arrive(*angles(a=0))
    said = rule(group.database, "c", "useless", [S3Uri("raw", "a")], why="seen", who="ann")
    group.arrive(*angles(b=12))
    generations = Generations(group.database)
    generations.redecide(group.collection, epsilon=EPSILON)
    assert group.places()["b"] == ("kept", None)
    group.undo(UUID(said.ruling_ids[0]))
    assert group.places() == group.by_brute_force()
    generations.redecide(group.collection, epsilon=EPSILON)
    assert group.places() == group.by_brute_force()


def test_changes__of_one_batch_come_as_they_arrived(group: Group) -> None:
    """A build that catches up decides them in this order; ids are given in that of the keys."""
    group.arrive(*angles(z=0, m=40, a=80))
    with group.database.connection() as connection:
        found = GenerationRows(connection, group.collection.collection_id, 1, space().space_id)
        ids = [state.object_id for state in found.changes(0, 1)]
    told = dict(rows(group.database.url, "SELECT object_id, key FROM object"))
    assert [told[i] for i in ids] == ["z", "m", "a"]
