"""What-if, redecide and undo on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from ledger_world import finding, image, ledger_of, new_collection, outcomes, rows, turned, unit
from pixsift.adapters.ledger.generation_build import _SQL
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import SwitchedGeneration
from pixsift.core.outcomes import Judged
from pixsift.errors import TransientError, UserError

WIDE = 0.2
"""37 degrees; the collection's own epsilon of 0.05 is 18 degrees."""


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as opened:
        yield opened


@pytest.fixture
def generations(database_url: str) -> Iterator[Generations]:
    with Database(database_url) as database:
        yield Generations(database)


def some_images(count: int, seed: int = 0) -> list[Judged]:
    """Images in a plane, a few of them with equal pixels."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        pixels = f"twin-{number // 10}" if number % 10 < 2 else None
        angle = 400.0 + number // 10 if pixels else float(rng.uniform(0, 360))
        images.append(image(f"k{number:03d}", turned(angle), pixels=pixels))
    return images


def test_redecide__equals_a_fresh_collection(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    batch = [
        *some_images(60),
        finding("bad", "rejected", "blurred"),
        finding("x", "gone", "deleted"),
    ]
    for start in range(0, len(batch), 16):
        ledger.commit(collection, batch[start : start + 16])
    switched = generations.redecide(collection, epsilon=WIDE)
    decided = outcomes(database_url)
    now = ledger.collection("c")
    assert (now.generation, now.epsilon, now.seq) == (2, WIDE, switched.seq)

    rows_before = len(decided)
    other = new_collection(ledger, "fresh", epsilon=WIDE)
    for start in range(0, len(batch), 16):
        ledger.commit(other, batch[start : start + 16])
    fresh = {key: value[:2] for key, value in outcomes_of(database_url, "fresh").items()}
    assert {key: value[:2] for key, value in decided.items()} == fresh
    assert rows_before == len(batch)
    assert switched.kept == sum(value[0] == "kept" for value in fresh.values())


def outcomes_of(url: str, name: str) -> dict[str, tuple[str, str]]:
    found = rows(
        url,
        "SELECT o.key || '@' || o.version_id, d.outcome, d.reason FROM decision d"
        " JOIN object o USING (object_id) JOIN collection c USING (collection_id, generation)"
        " WHERE d.valid_to_seq IS NULL AND c.name = %s", name,
    )  # fmt: skip
    return {key: (outcome, reason) for key, outcome, reason in found}


def test_what_if__says_what_redecide_does(ledger: Ledger, generations: Generations) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(50))
    before = ledger.collection("c")
    asked = generations.what_if(collection, epsilon=WIDE)
    assert ledger.collection("c") == before
    done = generations.redecide(collection, epsilon=WIDE)
    assert (asked.kept, asked.duplicate) == (done.kept, done.duplicate)
    assert asked.kept_now - asked.newly_duplicate + asked.newly_kept == asked.kept
    assert asked.newly_duplicate > 0
    assert len(asked.examples) == min(10, asked.newly_duplicate + asked.newly_kept)
    assert all(e["uri"].startswith("s3://raw/") for e in asked.examples)


def test_what_if__the_same_epsilon_changes_nothing(
    ledger: Ledger, generations: Generations
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(40))
    asked = generations.what_if(collection, epsilon=collection.epsilon)
    assert (asked.newly_kept, asked.newly_duplicate, asked.examples) == (0, 0, [])


def test_redecide__arrivals_meanwhile_are_caught_up_with(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(30))
    stop = threading.Event()

    def arrive() -> None:
        with ledger_of(database_url) as other:
            for number in range(400):
                if stop.is_set():
                    return
                other.commit(collection, [image(f"late{number:03d}", turned(number * 7.3))])
                if number % 3 == 0:
                    other.remove(collection, [image(f"late{number // 2:03d}", turned(0)).version])

    robot = threading.Thread(target=arrive)
    robot.start()
    try:
        switches: list[SwitchedGeneration] = [
            generations.redecide(collection, epsilon=e) for e in (WIDE, 0.01, WIDE)
        ]
    finally:
        stop.set()
        robot.join()
    assert [s.generation for s in switches] == [2, 3, 4]
    assert ledger.collection("c").generation == 4
    assert_sound(ledger, database_url)


def assert_sound(ledger: Ledger, url: str) -> None:
    """Separation, live representatives and one outcome each, straight from the tables."""
    kept = rows(
        url,
        "SELECT count(*) FROM representative a JOIN representative b"
        " ON (a.collection_id, a.generation) = (b.collection_id, b.generation)"
        " AND a.object_id < b.object_id JOIN collection c ON (c.collection_id, c.generation) ="
        " (a.collection_id, a.generation)"
        " JOIN embedding x ON x.pixel_sha256 = a.pixel_sha256"
        " JOIN embedding y ON y.pixel_sha256 = b.pixel_sha256"
        " WHERE a.valid_to_seq IS NULL AND b.valid_to_seq IS NULL"
        " AND x.embedding <=> y.embedding < c.epsilon - 0.001",
    )
    assert kept == [(0,)]
    orphans = rows(
        url,
        "SELECT count(*) FROM decision d JOIN collection c USING (collection_id, generation)"
        " WHERE d.valid_to_seq IS NULL AND d.outcome = 'duplicate' AND NOT EXISTS ("
        "  SELECT FROM representative r WHERE r.object_id = d.representative_object_id"
        "  AND (r.collection_id, r.generation) = (d.collection_id, d.generation)"
        "  AND r.valid_to_seq IS NULL)",
    )
    assert orphans == [(0,)]
    objects = rows(url, "SELECT count(*) FROM object")
    current = rows(
        url,
        "SELECT count(*) FROM decision d JOIN collection c USING (collection_id, generation)"
        " WHERE d.valid_to_seq IS NULL",
    )
    assert objects == current


def test_redecide__a_batch_planned_before_the_switch_starts_again(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image("a", turned(0))])
    switched: list[int] = []

    def pause(point: str) -> None:
        if point == "planned" and not switched:
            switched.append(generations.redecide(collection, epsilon=WIDE).generation)

    with ledger_of(database_url, pause=pause) as mid_batch:
        mid_batch.commit(collection, [image("b", turned(30))])  # near by the new rule only
    assert outcomes(database_url)["b@v1"][:2] == ("duplicate", "near")
    assert rows(
        database_url, "SELECT generation FROM decision d JOIN object USING (object_id)"
        " WHERE key = 'b'",
    ) == [(2,)]  # fmt: skip


def test_undo__restores_the_decisions_and_decides_what_came_since(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(40))
    before = outcomes(database_url)
    generations.redecide(collection, epsilon=WIDE)
    ledger.commit(collection, [image("late", unit(0, 0, 1))])
    ledger.remove(collection, [image("k003", turned(0)).version])
    undone = generations.undo(collection)
    after = outcomes(database_url)
    assert after.pop("late@v1")[0] == "kept"
    assert after.pop("k003@v1")[0] == "gone"
    moved = {key for key, value in after.items() if value != before[key]}
    assert all(before[key][2] == "k003" for key in moved)
    now = ledger.collection("c")
    assert (now.generation, now.epsilon) == (undone.generation, collection.epsilon) == (3, 0.05)
    assert_sound(ledger, database_url)
    assert generations.undo(collection).epsilon == WIDE  # an undo can be undone


def test_undo__nothing_to_go_back_to(ledger: Ledger, generations: Generations) -> None:
    collection = new_collection(ledger)
    with pytest.raises(UserError, match="no earlier generation"):
        generations.undo(collection)


def test_redecide__a_crash_leaves_a_generation_that_can_be_taken_over(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(30))
    before = outcomes(database_url)
    rows(
        database_url,
        "INSERT INTO generation (collection_id, generation, epsilon, state)"
        " VALUES (%s, 2, 0.5, 'building') RETURNING 1", collection.collection_id,
    )  # fmt: skip
    with pytest.raises(UserError, match="has been building"):
        generations.redecide(collection, epsilon=WIDE)
    assert outcomes(database_url) == before
    assert generations.redecide(collection, epsilon=WIDE, take_over=True).generation == 3


def test_redecide__a_number_taken_by_somebody_else_this_moment(
    ledger: Ledger, generations: Generations, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = new_collection(ledger)
    # The check for another builder was made before the other one began.
    monkeypatch.setitem(_SQL, "building", "SELECT 1 WHERE false")
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(_SQL["begin_generation"], {
            "collection_id": collection.collection_id, "epsilon": 0.1, "second_look": None,
            "space_id": None, "calibration": None, "keep_best": None,
        })  # fmt: skip
        late = pool.submit(generations.redecide, collection, epsilon=WIDE)
        while not rows(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"):
            assert not late.done()
        other.commit()
        with pytest.raises(UserError, match="another process has just"):
            late.result()


def test_redecide__one_that_was_taken_over_does_not_switch(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(1001))
    before = outcomes(database_url)
    others: list[SwitchedGeneration] = []

    def take_over(what: str, done: int, of: int) -> None:
        if not others:
            with Database(database_url) as database:
                other = Generations(database)
                others.append(other.redecide(collection, epsilon=0.05, take_over=True))

    with pytest.raises(TransientError):
        generations.redecide(collection, epsilon=WIDE, progress=take_over)
    now = ledger.collection("c")
    assert (now.generation, now.epsilon) == (others[0].generation, 0.05)
    assert outcomes(database_url) == before
    assert rows(database_url, "SELECT state FROM generation ORDER BY generation") == [
        ("retired",), ("discarded",), ("current",)
    ]  # fmt: skip


def test_redecide__one_that_was_discarded_does_not_switch(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, some_images(1001))

    def discard(what: str, done: int, of: int) -> None:
        rows(database_url, "UPDATE generation SET state = 'discarded' WHERE state = 'building'"
             " RETURNING 1")  # fmt: skip

    with pytest.raises(TransientError, match="discarded"):
        generations.redecide(collection, epsilon=WIDE, progress=discard)
    assert ledger.collection("c") == replace(collection, seq=1)


def test_redecide__remembered_images_keep_filtering(
    ledger: Ledger, generations: Generations, database_url: str
) -> None:
    collection = new_collection(ledger, expiry_policy="remember")
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(5))])
    ledger.remove(collection, [image("a", turned(0)).version], reason="expired")
    generations.redecide(collection, epsilon=WIDE)
    ledger.commit(collection, [image("c", turned(20))])
    assert outcomes(database_url) == {
        "a@v1": ("gone", "expired", None),
        "b@v1": ("duplicate", "near", "a"),
        "c@v1": ("duplicate", "near", "a"),
    }
