"""The ledger on a real PostgreSQL, one process."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from invariants import violations
from ledger_world import (
    digest,
    finding,
    image,
    ledger_of,
    new_collection,
    outcomes,
    rows,
    turned,
    unit,
)
from pixsift.adapters.ledger import decision_batch
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.dedup import Fate, Image, decide_batch
from pixsift.core.outcomes import Judged
from pixsift.core.tombstone import content_mark, version_mark
from pixsift.errors import PixsiftError, TransientError, UserError


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as opened:
        yield opened


def test_commit__kept_near_and_exact(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    first = ledger.commit(collection, [image("a", turned(0)), image("b", turned(10))])
    again = ledger.commit(
        collection,
        [image("c", turned(90), content="a@v1"), image("d", turned(0), pixels="a@v1"),
         image("e", turned(45))],
    )  # fmt: skip
    assert outcomes(database_url) == {
        "a@v1": ("kept", "new", None),
        "b@v1": ("duplicate", "near", "a"),
        "c@v1": ("duplicate", "content", "a"),
        "d@v1": ("duplicate", "pixels", "a"),
        "e@v1": ("kept", "new", None),
    }
    assert [d.is_new for d in first + again] == [True] * 5
    assert first[1].distance == pytest.approx(1 - 0.98481, abs=1e-3)
    assert ledger.collection("c").seq == 2


def test_commit__redelivery_changes_nothing(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    batch = [image("a", turned(0)), image("b", turned(5)), finding("r", "rejected", "blurred")]
    ledger.commit(collection, batch)
    before = rows(database_url, "SELECT * FROM decision ORDER BY decision_id")
    repeated = ledger.commit(collection, batch + batch)
    assert [d.is_new for d in repeated] == [False] * 3
    assert [d.outcome for d in repeated] == ["kept", "duplicate", "rejected"]
    assert rows(database_url, "SELECT * FROM decision ORDER BY decision_id") == before
    assert ledger.collection("c").seq == 1


def test_commit__failed_is_replaced_and_gone_is_final(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [finding("a", "failed", "timeout"), finding("b", "gone", "deleted")])
    assert ledger.decided(collection.collection_id, [finding("a", "failed").version]) == set()
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(90))])
    assert outcomes(database_url) == {
        "a@v1": ("kept", "new", None),
        "b@v1": ("gone", "deleted", None),
    }
    assert len(ledger.decided(collection.collection_id, [finding("a", "failed").version])) == 1


def test_remove__children_are_decided_again(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image("rep", turned(0)), image("other", turned(30))])
    ledger.commit(
        collection,
        [image("dull", turned(4), quality={"sharpness": 1.0}),
         image("sharp", turned(-4), quality={"sharpness": 9.0}),
         image("side", turned(14), quality={"sharpness": 0.5})],
    )  # fmt: skip
    assert {o for o, _, _ in outcomes(database_url).values()} == {"kept", "duplicate"}
    ledger.remove(collection, [finding("rep", "gone").version])
    assert outcomes(database_url) == {
        "rep@v1": ("gone", "deleted", None),
        "other@v1": ("kept", "new", None),
        "sharp@v1": ("kept", "promoted", None),
        "dull@v1": ("duplicate", "near", "sharp"),
        "side@v1": ("duplicate", "near", "other"),
    }
    assert ledger.collection("c").seq == 3


def test_remove__expiry_remembers_or_forgets(ledger: Ledger, database_url: str) -> None:
    for name, policy in (("memory", "remember"), ("forget", "redecide")):
        collection = new_collection(ledger, name, expiry_policy=policy)
        ledger.commit(collection, [image("a", turned(0)), image("b", turned(5))])
        ledger.remove(collection, [finding("a", "gone").version], reason="expired")
        (late,) = ledger.commit(collection, [image("late", turned(-5))])
        assert late.reason == "near"
    found = rows(
        database_url,
        "SELECT c.name, o.key FROM representative r JOIN object o USING (object_id)"
        " JOIN collection c USING (collection_id) WHERE r.valid_to_seq IS NULL ORDER BY 1",
    )
    assert found == [("forget", "b"), ("memory", "a")]


def test_remove__a_remembered_image_stays_until_it_is_erased(
    ledger: Ledger, database_url: str
) -> None:
    collection = new_collection(ledger)
    victim = finding("a", "gone").version
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(5))])
    ledger.remove(collection, [victim], reason="expired")
    (again,) = ledger.remove(collection, [victim], reason="deleted")
    assert (again.reason, again.is_new) == ("expired", False)
    assert outcomes(database_url)["b@v1"] == ("duplicate", "near", "a")
    ledger.remove(collection, [victim], reason="erased")
    assert outcomes(database_url) == {
        "a@v1": ("gone", "erased", None),
        "b@v1": ("kept", "promoted", None),
    }


def test_commit__gone_and_created_in_one_batch(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    ledger.commit(
        collection,
        [image("a", turned(0)), image("b", turned(2)), finding("a", "gone", "deleted")],
    )
    assert outcomes(database_url) == {
        "a@v1": ("gone", "deleted", None),
        "b@v1": ("kept", "new", None),
    }


def test_commit__known_bytes_need_no_embedding(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    first = image("a", turned(0), image_facts={"format": "JPEG"}, quality={"sharpness": 2.0})
    ledger.commit(collection, [first])
    assert first.content_sha256 is not None
    known = ledger.find_exact(collection.space_id, [first.content_sha256, b"x" * 32])
    assert list(known) == [first.content_sha256]
    facts = known[first.content_sha256]
    assert (facts.pixel_sha256, facts.image_facts) == (first.pixel_sha256, {"format": "JPEG"})
    ledger.remove(collection, [first.version])
    second = image("b", turned(0), content="a@v1")
    bare = type(second)(
        second.version, "embedded",
        content_sha256=second.content_sha256, pixel_sha256=facts.pixel_sha256,
    )  # fmt: skip
    (decision,) = ledger.commit(collection, [bare])
    assert decision.outcome == "kept"
    unknown = type(second)(
        second.version, "embedded", content_sha256=b"y" * 32, pixel_sha256=b"z" * 32
    )
    with pytest.raises(TransientError):
        ledger.commit(new_collection(ledger, "d"), [unknown])


def test_commit__attributes_and_time_of_the_key(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger, key_pattern=r"(?P<robot>r\d)/(?P<captured_at>[^/]+)\.jpg")
    key = "r2/2026-11-22T10-15-03Z.jpg"
    ledger.commit(collection, [image(key, turned(0), attributes={"sidecar": {"site": "hall"}})])
    found = rows(
        database_url, "SELECT source, attributes, valid_from_seq FROM attribute ORDER BY 1"
    )
    assert found == [
        ("key", {"robot": "r2", "captured_at": "2026-11-22T10-15-03Z"}, 1),
        ("sidecar", {"site": "hall"}, 1),
    ]
    assert rows(database_url, "SELECT captured_at::text FROM object") == [
        ("2026-11-22 10:15:03+00",)
    ]


def test_commit__collections_judge_for_themselves(ledger: Ledger, database_url: str) -> None:
    strict, loose = new_collection(ledger, "strict", epsilon=0.001), new_collection(ledger, "loose")
    batch = [image("a", turned(0)), image("b", turned(10))]
    assert [d.outcome for d in ledger.commit(strict, batch)] == ["kept", "kept"]
    assert [d.outcome for d in ledger.commit(loose, batch)] == ["kept", "duplicate"]
    assert rows(database_url, "SELECT count(*) FROM object")[0] == (2,)


def test_create_collection__mistakes_are_told(ledger: Ledger) -> None:
    new_collection(ledger, "taken")
    with pytest.raises(UserError, match="already"):
        new_collection(ledger, "taken")
    with pytest.raises(UserError, match="name"):
        new_collection(ledger, "Not Good")
    with pytest.raises(UserError, match="named group"):
        new_collection(ledger, "x", key_pattern="abc")
    with pytest.raises(UserError, match="there are: taken"):
        ledger.collection("nope")


def test_record_anomaly__same_message_once(ledger: Ledger, database_url: str) -> None:
    for _ in range(2):
        ledger.record_anomaly("q", "m1", b"\x00rubbish", "bad_json")
    assert rows(database_url, "SELECT body FROM anomaly") == [(b"\x00rubbish",)]


def test_embeddings__first_stored_stays(ledger: Ledger) -> None:
    collection = new_collection(ledger)
    first = image("a", unit(1.0), pixels="p")
    ledger.commit(collection, [first])
    ledger.commit(collection, [image("b", unit(0.0, 1.0), pixels="p")])
    assert first.pixel_sha256 is not None and first.embedding is not None
    found = ledger.embeddings(collection.space_id, [first.pixel_sha256])
    assert (found[first.pixel_sha256] == first.embedding).all()


def commit_one(ledger: Ledger, collection: Collection, item: Judged) -> None:
    """For a pause point."""
    ledger.commit(collection, [item])


def erase(ledger: Ledger, item: Judged) -> None:
    """As the erasure does: the mark first, the removal after."""
    assert item.content_sha256 is not None
    with ledger._database.transaction() as connection:
        salt = ledger.salt(connection)
        connection.execute(
            "INSERT INTO tombstone (bucket, key_hash, content_hash, salt) VALUES ('raw',%s,%s,%s)",
            (version_mark(salt, item.version), content_mark(salt, item.content_sha256), salt),
        )


def test_commit__erased_images_stay_erased(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    first, child = image("a", turned(0)), image("b", turned(5))
    ledger.commit(collection, [first, child])
    erase(ledger, first)
    ledger.remove(collection, [first.version], reason="erased")
    replay = image("copy", turned(0), content="a@v1", image_facts={"format": "JPEG"})
    assert first.content_sha256 is not None
    assert ledger.erased([first.version, child.version], [first.content_sha256]) == (
        {first.version}, {first.content_sha256},
    )  # fmt: skip
    ledger.commit(collection, [first, replay])
    assert outcomes(database_url) == {
        "a@v1": ("gone", "erased", None),
        "b@v1": ("kept", "promoted", None),
        "copy@v1": ("gone", "erased", None),
    }
    facts = rows(database_url, "SELECT content_sha256, image_facts FROM object WHERE key = 'copy'")
    assert facts == [(None, None)]


def test_commit__erased_between_plan_and_lock(database_url: str) -> None:
    victim = image("a", turned(0))
    hooks: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and hooks:
            hooks.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        hooks.append(lambda: erase(ledger, victim))
        (decision,) = ledger.commit(collection, [victim])
    assert (decision.outcome, decision.reason) == ("gone", "erased")
    assert rows(database_url, "SELECT count(*) FROM embedding") == [(0,)]


def test_commit__another_generation_starts_phase_one_again(database_url: str) -> None:
    planned = []

    def pause(point: str) -> None:
        if point == "planned":
            planned.append(point)
            if len(planned) == 2:
                with psycopg.connect(database_url) as connection:
                    connection.execute("UPDATE generation SET state = 'retired'")
                    connection.execute(
                        "INSERT INTO generation (collection_id, generation, epsilon, state)"
                        " VALUES (1, 2, 0.0001, 'current')"
                    )
                    connection.execute("UPDATE collection SET generation = 2, seq = seq + 1")

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, [image("a", turned(0))])
        (decision,) = ledger.commit(collection, [image("b", turned(5))])
    assert len(planned) == 3
    assert decision.outcome == "kept"
    assert rows(
        database_url,
        "SELECT o.key, d.generation FROM decision d JOIN object o USING (object_id) ORDER BY 1",
    ) == [("a", 1), ("b", 2)]


def test_commit__a_child_that_arrives_meanwhile_is_decided_again(database_url: str) -> None:
    hooks: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and hooks:
            hooks.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, [image("rep", turned(0))])
        hooks.append(lambda: commit_one(ledger, collection, image("late", turned(3))))
        ledger.remove(collection, [finding("rep", "gone").version])
    assert outcomes(database_url) == {
        "rep@v1": ("gone", "deleted", None),
        "late@v1": ("kept", "promoted", None),
    }


def children_of_rep() -> list[Judged]:
    """A representative at 0 degrees, three duplicates of it, and what is near two of them."""
    return [
        image("rep", turned(0)), image("a", turned(15)), image("b", turned(16)),
        image("c", turned(-10)), image("other", turned(33)),
    ]  # fmt: skip


def test_remove__its_duplicates_are_decided_before_the_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_the_lock: list[int] = []

    def spy(items: list[Image], *arguments: Any, **more: Any) -> list[Fate]:
        under_the_lock.extend(item.object_id for item in items)
        return decide_batch(items, *arguments, **more)

    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, children_of_rep())
        monkeypatch.setattr(decision_batch, "decide_batch", spy)
        # New ones in the same batch see those that were promoted in it.
        near_c = image("d", turned(-25))
        decided = ledger.commit(collection, [finding("rep", "gone", "deleted"), near_c])
        assert under_the_lock == [decided[1].object_id]
    assert outcomes(database_url) == {
        "rep@v1": ("gone", "deleted", None),
        "a@v1": ("duplicate", "near", "other"),
        "b@v1": ("duplicate", "near", "other"),
        "c@v1": ("kept", "promoted", None),
        "d@v1": ("duplicate", "near", "c"),
        "other@v1": ("kept", "new", None),
    }


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        # What a child would have become a duplicate of goes away as well.
        (finding("other", "gone", "deleted"), {"a": None, "b": "a", "c": None}),
        # Something near a child is kept that was not near the representative.
        (image("near c", turned(-20)), {"a": "other", "b": "other", "c": "near c"}),
        # The same bytes as a child, with pixels and a vector from elsewhere.
        (
            image("same", turned(120), content="c@v1", pixels="same"),
            {"a": "other", "b": "other", "c": "same"},
        ),
        # A child goes away itself; the others do not lean on it.
        (finding("c", "gone", "deleted"), {"a": "other", "b": "other"}),
        # Nothing that matters to them.
        (image("far", turned(90)), {"a": "other", "b": "other", "c": None}),
    ],
)
def test_remove__what_happened_since_its_duplicates_were_decided_counts(
    database_url: str, meanwhile: Judged, expected: dict[str, str | None]
) -> None:
    hooks: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and hooks:
            hooks.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, children_of_rep())
        hooks.append(lambda: commit_one(ledger, collection, meanwhile))
        ledger.remove(collection, [finding("rep", "gone").version])
    now = outcomes(database_url)
    assert {key: now[f"{key}@v1"][2] for key in expected} == expected
    assert violations(database_url) == []


def test_commit__a_vector_stored_first_by_another_counts(database_url: str) -> None:
    hooks: list[Callable[[], None]] = []

    def pause(point: str) -> None:
        if point == "planned" and hooks:
            hooks.pop()()

    with ledger_of(database_url, pause=pause) as ledger:
        one, other = new_collection(ledger, "one"), new_collection(ledger, "other")
        ledger.commit(one, [image("near", turned(0))])
        # The same pixels, measured a little differently by two machines: 30 and 3 degrees.
        hooks.append(lambda: commit_one(ledger, other, image("x", turned(3), pixels="p")))
        (decision,) = ledger.commit(one, [image("y", turned(30), pixels="p")])
    assert (decision.outcome, decision.reason) == ("duplicate", "near")


def test_commit__a_vector_dropped_before_the_lock_is_stored_again(database_url: str) -> None:
    with ledger_of(database_url) as ledger, ThreadPoolExecutor(1) as pool:
        collection = new_collection(ledger)
        ledger.commit(collection, [image("rep", turned(0)), image("a", turned(5), pixels="p")])
        with psycopg.connect(database_url) as eraser:
            eraser.execute("SELECT FROM collection FOR NO KEY UPDATE")
            arriving = pool.submit(
                ledger.commit, collection, [image("b", turned(5), content="b", pixels="p")]
            )
            while not rows(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert not arriving.done()
            eraser.execute("UPDATE decision SET pixel_sha256 = NULL WHERE outcome = 'duplicate'")
            eraser.execute("DELETE FROM embedding WHERE pixel_sha256 = %s", [digest("pxp")])
        (decision,) = arriving.result()
        assert (decision.outcome, decision.reason) == ("duplicate", "near")
    assert rows(database_url, "SELECT count(*) FROM embedding") == [(2,)]


def test_pixels_in_use__by_objects_that_were_not_erased(ledger: Ledger, database_url: str) -> None:
    collection = new_collection(ledger)
    images = [image("a", turned(0)), image("b", turned(0), pixels="a@v1"), image("c", turned(90))]
    ledger.commit(collection, images)
    pixels = [i.pixel_sha256 for i in images if i.pixel_sha256]
    ledger.remove(collection, [images[0].version, images[2].version], reason="erased")
    assert ledger.pixels_in_use(pixels) == {pixels[1]}
    ledger.remove(collection, [images[1].version], reason="erased")
    assert ledger.pixels_in_use(pixels) == set()


def test_remove__a_child_without_a_vector_does_not_hold_its_representative(
    ledger: Ledger, database_url: str
) -> None:
    collection = new_collection(ledger)
    ledger.commit(collection, [image(key, turned(n)) for n, key in enumerate(("rep", "a", "b"))])
    rows(
        database_url,
        "UPDATE decision d SET pixel_sha256 = NULL FROM object o"
        " WHERE o.object_id = d.object_id AND o.key = 'a' RETURNING 1",
    )
    ledger.remove(collection, [finding("rep", "gone").version])
    assert outcomes(database_url) == {
        "rep@v1": ("gone", "deleted", None),
        "a@v1": ("failed", "vector_missing", None),
        "b@v1": ("kept", "promoted", None),
    }
    ledger.commit(collection, [image("a", turned(1))])
    assert outcomes(database_url)["a@v1"] == ("duplicate", "near", "b")


@pytest.mark.parametrize("point", ["lock_held", "inserted"])
def test_commit__a_holder_that_hangs_loses_the_lock(database_url: str, point: str) -> None:
    session = {"idle_in_transaction_session_timeout": "100ms"}
    with ledger_of(database_url) as ledger, Database(database_url, session=session) as hanging:
        collection = new_collection(ledger)

        def hang(here: str) -> None:
            if here == point:
                commit_one(ledger, collection, image("b", turned(5)))

        with pytest.raises(PixsiftError):
            Ledger(hanging, pause=hang).commit(collection, [image("a", turned(0))])
    assert outcomes(database_url) == {"b@v1": ("kept", "new", None)}
