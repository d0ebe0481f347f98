"""Watches over a real ledger: one hit for each image and watch, whatever happens in between."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import Any

import numpy as np
import pytest

from ledger_world import image, ledger_of, new_collection, rows, turned
from pixsift.adapters.ledger.find_rows import FindRows
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.watch_rows import WatchRows
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.by_example import ByExample
from pixsift.api import Example
from pixsift.api_watches import WatchAsk
from pixsift.core.collection import Collection
from pixsift.core.outcomes import Judged
from pixsift.errors import ConflictError, NotFoundError, RequestError, TransientError
from pixsift.operations import watch
from pixsift.operations.announce import KIND, announce_hits
from pixsift.operations.forget import Forgetting

TIME = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as made:
        yield made


@pytest.fixture
def database(ledger: Ledger) -> Database:
    return ledger._database


@pytest.fixture
def collection(ledger: Ledger) -> Collection:
    """With two kept images a right angle apart."""
    found = new_collection(ledger, key_pattern=r"(?P<robot>[^/]+)/.*")
    ledger.commit(found, [image("r1/a.jpg", turned(0)), image("r2/b.jpg", turned(90))])
    return found


def ask(name: str = "a", **more: Any) -> WatchAsk:
    example = Example(uri="s3://raw/r1/a.jpg")
    return WatchAsk(name=name, **{"examples": [example], "max_distance": 0.3, **more})


def keys_hit(url: str, watch_id: int) -> list[str]:
    found = rows(url, "SELECT o.key FROM watch_hit h JOIN object o USING (object_id)"
                 " WHERE watch_id = %s ORDER BY 1", watch_id)  # fmt: skip
    return [key for (key,) in found]


def test_watch__matches_what_arrives_from_now_on(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    begun = watch.begin(database, ask(), actor="me")
    assert begun.state == "watching" and begun.hits == 0 and begun.from_seq == 1
    assert begun.modes == [["s3://raw/r1/a.jpg"]]
    ledger.commit(collection, [
        image("r1/near.jpg", turned(30)),  # kept: 0.134 from a
        image("r1/far.jpg", turned(60)),  # kept: 0.5
        image("r1/copy.jpg", turned(4)),  # a duplicate of a
    ])  # fmt: skip
    assert keys_hit(database_url, begun.watch_id) == ["r1/near.jpg"]
    (hit,) = watch.hits(database, begun.watch_id, before=None, limit=10).hits
    assert abs(hit.distance - (1 - np.cos(np.radians(30)))) < 1e-3
    assert (hit.outcome, hit.seq, hit.is_past, hit.watch) == ("kept", 2, False, "a")
    assert watch.show(database, begun.watch_id).hits == 1
    found = watch.hits_between(database, "c", 1, 2)
    assert [(c.watch, c.hits) for c in found.counts] == [("a", 1)]
    assert [h.hit_id for h in found.hits] == [hit.hit_id]


def test_watch__duplicates_are_matched_where_they_are_asked_for(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    begun = watch.begin(database, ask(duplicates=True), actor="me")
    batch = [image("r1/near.jpg", turned(30)), image("r1/copy.jpg", turned(4))]
    ledger.commit(collection, batch)
    assert keys_hit(database_url, begun.watch_id) == ["r1/copy.jpg", "r1/near.jpg"]
    ledger.commit(collection, batch)  # delivered again
    assert watch.show(database, begun.watch_id).hits == 2


def test_watch__an_image_that_comes_back_is_one_hit(
    ledger: Ledger, collection: Collection, database: Database
) -> None:
    begun = watch.begin(database, ask(), actor="me")
    there = image("r1/near.jpg", turned(30), version="etag:1", sequencer="01")
    ledger.commit(collection, [there])
    ledger.remove(collection, [there.version])
    again = image("r1/near.jpg", turned(30), version="etag:1", sequencer="09",
                  stored_at=datetime(2030, 1, 1, tzinfo=UTC))  # fmt: skip
    ledger.commit(collection, [again])
    assert watch.show(database, begun.watch_id).hits == 1


def test_watch__counterexamples_and_modes(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    both = [Example(uri="s3://raw/r1/a.jpg"), Example(uri="s3://raw/r2/b.jpg")]
    two = watch.begin(database, ask("two", examples=both), actor="me")
    not_b = watch.begin(
        database, ask("not b", max_distance=2, counterexamples=[both[1]]), actor="me"
    )
    ledger.commit(collection, [image("r1/30.jpg", turned(30)), image("r1/65.jpg", turned(65)),
                               image("r1/180.jpg", turned(180))])  # fmt: skip
    assert keys_hit(database_url, two.watch_id) == ["r1/30.jpg", "r1/65.jpg"]
    modes = {h.uri.split("/")[-1][:2]: h.mode
             for h in watch.hits(database, two.watch_id, before=None, limit=9).hits}  # fmt: skip
    assert modes == {"30": 0, "65": 1}
    assert keys_hit(database_url, not_b.watch_id) == ["r1/30.jpg"]


FILTERS: list[Mapping[str, Any]] = [
    {}, {"prefix": "r1/"}, {"attributes": {"robot": ["r1", "r3"]}},
    {"attributes": {"robot": ["r2"]}, "prefix": "r2/x"}, {"attributes": {"nothing": ["x"]}},
    {"captured_after": "2026-01-02T00:00:00"}, {"captured_before": "2026-01-02T00:00:00+01:00"},
    {"quality": {"sharpness": {"min": 0.5}}}, {"quality": {"sharpness": {"max": 0.25}}},
    {"flagged": "exclude"}, {"flagged": "only"}, {"flags": ["blurred"]},
    {"flags": ["blurred", "dark"], "flagged": "only"},
]  # fmt: skip


def strangers() -> list[Judged]:
    """Kept images with all that a filter can go by."""
    many: list[dict[str, Any]] = [
        {}, {"captured_at": TIME, "quality": {"sharpness": 0.5}},
        {"quality": {"sharpness": 0.25}, "detail": {"flags": ["blurred"]}},
        {"stored_at": datetime(2026, 1, 1, 22, tzinfo=UTC), "detail": {"flags": ["odd_size"]}},
        {"attributes": {"sidecar": {"robot": "r1"}}, "detail": {"flags": ["dark"]}},
        {"captured_at": datetime(2025, 1, 1, tzinfo=UTC), "quality": {"sharpness": 0.9}},
    ]  # fmt: skip
    names = ("r1/x.jpg", "r2/x.jpg", "r2/y.jpg", "r3/x.jpg", "other.jpg", "r2/z.jpg")
    angles = (30, 60, 115, 140, 165, -40)
    return [image(name, turned(angle), **facts)
            for name, angle, facts in zip(names, angles, many, strict=True)]  # fmt: skip


def test_watch__its_filter_is_that_of_a_search(
    ledger: Ledger, collection: Collection, database: Database
) -> None:
    begun = [watch.begin(database, ask(f"w{n}", max_distance=2, where=where), actor="me")
             for n, where in enumerate(FILTERS)]  # fmt: skip
    found = ledger.commit(collection, strangers())
    ids = {decision.object_id for decision in found if decision.outcome == "kept"}
    assert len(ids) == 6
    point = ByExample(database, memory_bytes=0).point(collection.collection_id)
    for number, (where, one) in enumerate(zip(FILTERS, begun, strict=True)):
        asked = ask(f"x{number}", max_distance=2, where=where)
        searched = set(FindRows(database).matching(point, asked.where).tolist()) & ids
        hits = watch.hits(database, one.watch_id, before=None, limit=100).hits
        assert {hit.object_id for hit in hits} == searched, where


def test_past__finds_the_same_as_arrivals_and_only_once(
    ledger: Ledger, collection: Collection, database: Database
) -> None:
    early = watch.begin(database, ask("early", max_distance=1, duplicates=True), actor="me")
    ledger.commit(collection, [*strangers(), image("r1/copy.jpg", turned(31))])
    late = watch.begin(database, ask("late", max_distance=1, duplicates=True), actor="me")
    arrived = {h.object_id: h.distance for h in
               watch.hits(database, early.watch_id, before=None, limit=99).hits}  # fmt: skip
    done = watch.run_past(database, late.watch_id)
    assert done.compared == 9 and done.added == done.matched == len(arrived) + 2  # a and b as well
    past = watch.hits(database, late.watch_id, before=None, limit=99).hits
    assert all(hit.is_past for hit in past)
    assert {h.object_id: h.distance for h in past}.items() >= arrived.items()
    assert watch.run_past(database, late.watch_id).added == 0
    assert watch.run_past(database, early.watch_id).added == 2
    tried = watch.attempt(database, ask("try", max_distance=1))
    assert (tried.compared, tried.matching) == (8, 5)  # of the kept ones: a, b and three
    assert tried.nearest[0].distance == 0 and len(tried.nearest) == 8


def test_watch__a_turn_that_was_planned_before_it_began_knows_it(
    database_url: str, collection: Collection
) -> None:
    """The gap between past and arrivals: nothing falls into it."""
    planned, go_on = Event(), Event()

    def pause(point: str) -> None:
        if point == "planned" and not planned.is_set():
            planned.set()
            assert go_on.wait(30)

    with (
        ledger_of(database_url, pause=pause) as slow,
        ledger_of(database_url) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        committing = pool.submit(slow.commit, collection, [image("r1/near.jpg", turned(30))])
        assert planned.wait(30)
        begun = watch.begin(other._database, ask(), actor="me")
        go_on.set()
        (decision,) = committing.result(30)
        assert decision.seq > begun.from_seq
    assert keys_hit(database_url, begun.watch_id) == ["r1/near.jpg"]


def test_watch__waits_for_a_turn_under_way_which_is_its_past(
    database_url: str, collection: Collection
) -> None:
    held, go_on = Event(), Event()

    def pause(point: str) -> None:
        if point == "inserted":
            held.set()
            assert go_on.wait(30)

    with (
        ledger_of(database_url, pause=pause) as slow,
        ledger_of(database_url) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        committing = pool.submit(slow.commit, collection, [image("r1/near.jpg", turned(30))])
        assert held.wait(30)
        beginning = pool.submit(watch.begin, other._database, ask(), actor="me")
        assert not beginning.done()
        go_on.set()
        begun, (decision,) = beginning.result(30), committing.result(30)
        assert decision.seq <= begun.from_seq
        assert watch.run_past(other._database, begun.watch_id).added == 2
    assert keys_hit(database_url, begun.watch_id) == ["r1/a.jpg", "r1/near.jpg"]


def test_end__stops_it_keeps_its_hits_and_frees_its_name(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    begun = watch.begin(database, ask(), actor="me")
    with pytest.raises(ConflictError, match="has a watch named"):
        watch.begin(database, ask(), actor="me")
    ledger.commit(collection, [image("r1/near.jpg", turned(30))])
    ended = watch.end(database, begun.watch_id)
    assert (ended.state, ended.ended_why, ended.hits) == ("ended", "asked", 1)
    assert rows(database_url, "SELECT count(*) FROM watch_vector") == [(0,)]
    ledger.commit(collection, [image("r1/two.jpg", turned(-30))])
    assert watch.end(database, begun.watch_id).hits == 1
    with pytest.raises(ConflictError, match="does not match anything"):
        watch.run_past(database, begun.watch_id)
    assert watch.begin(database, ask(), actor="me").watch_id != begun.watch_id
    assert [w.state for w in watch.list_watches(database, collection="c", ended=True).watches] == [
        "watching", "ended"
    ]  # fmt: skip
    assert watch.named(database, "a").state == "watching"
    assert watch.named(database, str(begun.watch_id)).state == "ended"


def test_erasure__takes_hits_and_what_was_made_of_the_image(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    of_a = watch.begin(database, ask("of a", max_distance=2), actor="me")
    of_b = watch.begin(
        database, ask("of b", max_distance=2, examples=[Example(uri="s3://raw/r2/b.jpg")]),
        actor="me",
    )  # fmt: skip
    ledger.commit(collection, [image("r1/near.jpg", turned(30))])
    forgetting = Forgetting(database, ledger)
    for key in ("r1/a.jpg", "r1/near.jpg"):
        found = forgetting.find("raw", key, None)
        forgetting.bury(forgetting.entry(found, reason="asked", block_content=True))
        forgetting.remove(found)
        forgetting.forget(found)
    assert rows(database_url, "SELECT count(*) FROM watch_hit") == [(0,)]
    assert rows(database_url, "SELECT DISTINCT watch_id FROM watch_vector") == [(of_b.watch_id,)]
    ended = watch.show(database, of_a.watch_id)
    assert (ended.state, ended.ended_why, ended.modes) == ("ended", "erased", [])
    ledger.commit(collection, [image("r1/last.jpg", turned(-40))])
    assert keys_hit(database_url, of_b.watch_id) == ["r1/last.jpg"]


def test_announce__at_least_once_with_an_id_that_stays(
    ledger: Ledger, collection: Collection, database: Database, database_url: str
) -> None:
    watch.begin(database, ask("quiet", max_distance=2), actor="me")
    loud = watch.begin(database, ask("loud", max_distance=2, destination="events"), actor="me")
    ledger.commit(collection, [image(f"r1/{n}.jpg", turned(20 * n)) for n in range(1, 13)])
    watch.run_past(database, loud.watch_id)  # the past is not announced
    sent: list[Mapping[str, Any]] = []

    def broken(kind: str, details: Sequence[Mapping[str, Any]]) -> None:
        sent.extend(details)
        raise TransientError("the bus failed after it took them")

    with pytest.raises(TransientError):
        announce_hits(database, broken)
    first = {detail["id"] for detail in sent}
    assert len(first) == 10
    kinds: list[str] = []

    def send(kind: str, details: Sequence[Mapping[str, Any]]) -> None:
        kinds.append(kind)
        sent.extend(details)

    due = watch.show(database, loud.watch_id).hits - 2
    assert announce_hits(database, send) == due - 10  # the claim of the failed ones holds
    with database.connection() as connection:
        connection.execute("UPDATE watch_hit SET claimed_until = now() - interval '1 s'"
                           " WHERE claimed_until IS NOT NULL")  # fmt: skip
    assert announce_hits(database, send) == 10
    assert announce_hits(database, send) == 0
    assert {detail["id"] for detail in sent[-10:]} == first and set(kinds) == {KIND}
    assert {detail["watch"] for detail in sent} == {"loud"}
    hits = watch.hits(database, loud.watch_id, before=None, limit=99).hits
    assert all((hit.announced_at is None) == hit.is_past for hit in hits)


BAD: list[tuple[Callable[[Database], object], type[Exception], str]] = [
    (lambda d: watch.begin(d, ask(examples=[]), actor="me"), RequestError, "no_examples"),
    (lambda d: watch.begin(d, ask(collection="none"), actor="me"), NotFoundError,
     "unknown_collection"),
    (lambda d: watch.show(d, 999), NotFoundError, "unknown_watch"),
    (lambda d: watch.named(d, "none"), NotFoundError, "unknown_watch"),
    (lambda d: watch.end(d, 999), NotFoundError, "unknown_watch"),
    (lambda d: watch.hits(d, 999, before=None, limit=1), NotFoundError, "unknown_watch"),
    (lambda d: watch.run_past(d, 999), NotFoundError, "unknown_watch"),
    (lambda d: watch.begin(d, ask(examples=[Example(object_id=1)] * 65, way="nearest"),
                           actor="me"), RequestError, "too_many_modes"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_watch__bad_input_is_refused_and_changes_nothing(
    database: Database, collection: Collection, database_url: str,
    case: tuple[Callable[[Database], object], type[Exception], str],
) -> None:  # fmt: skip
    call, kind, code = case
    with pytest.raises(kind) as refused:
        call(database)
    assert getattr(refused.value, "code", None) == code
    assert rows(database_url, "SELECT count(*) FROM watch") == [(0,)]


def test_watch__of_another_space_sleeps(
    database: Database, collection: Collection, ledger: Ledger
) -> None:
    begun = watch.begin(database, ask(), actor="me")
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO model SELECT 'another', name, revision, weights_sha256, recipe_id,"
            " pooling, dimension FROM model"
        )
        connection.execute("UPDATE collection SET space_id = 'another'")
    assert watch.show(database, begun.watch_id).state == "other_space"
    with pytest.raises(ConflictError):
        watch.run_past(database, begun.watch_id)
    assert not WatchRows(database).matcher(ledger.collection("c"), begun.watch_id)
