"""Search by example over a real ledger: every plan gives the exact answer, and is never short."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ledger_world import digest, ledger_of, new_collection
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.by_example import ByExample, Findable
from pixsift.adapters.search.mirror import NumpyBlocks
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.api import Example, SearchAnswer, SearchAsk
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.retrieval import unit
from pixsift.errors import NotFoundError, RequestError
from pixsift.messages import Range, SnapshotRequest2, Where2
from pixsift.operations.choose import choose
from pixsift.operations.find import Finder
from server_world import new_database

DIMENSION = 192  # above the split into heads and rests
COUNT = 3000


@pytest.fixture(scope="module")
def rows() -> NDArray[Any]:
    """(N, D) float16 in scenes, as robots upload."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(60, DIMENSION))
    found = centers[rng.integers(0, 60, COUNT)] + rng.normal(0, 0.6, (COUNT, DIMENSION))
    return unit(found).astype(np.float16)


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres, template_database: str, rows: NDArray[Any]) -> Iterator[str]:
    """A ledger that keeps them all, and an index over two thirds of them."""
    with new_database(postgres, template_database) as url, ledger_of(url) as ledger:
        collection = new_collection(
            ledger, dimension=DIMENSION, epsilon=0.0, key_pattern=r"(?P<robot>[^/]+)/(?P<n>\d+)"
        )
        for start in range(0, COUNT, 1000):
            ledger.commit(collection, [kept(n, rows[n]) for n in range(start, start + 1000)])
            if start == 1000:
                with Database(url) as database:
                    PgvectorSearch(database, background=False).advance(collection.collection_id)
        yield url


def kept(number: int, row: NDArray[Any]) -> Judged:
    key = f"r{number % 100}/{number:05}"
    return Judged(
        ObjectVersion("raw", key, "v1"), "embedded", content_sha256=digest(key),
        pixel_sha256=digest("px" + key), embedding=row, quality={"sharpness": number / COUNT},
    )  # fmt: skip


@pytest.fixture(params=["resident", "limited"])
def finder(request: pytest.FixtureRequest, url: str) -> Iterator[Finder]:
    with Database(url, max_connections=4) as database:
        yield Finder(database, memory_bytes=1 << 30 if request.param == "resident" else 0)


def numbers(found: SearchAnswer) -> list[int]:
    return [int(hit.uri.split("/")[-1].split("?", maxsplit=1)[0]) for hit in found.hits]


def expected(rows: NDArray[Any], query: int, keep: NDArray[Any], k: int) -> list[int]:
    """The truth, by brute force in float64."""
    units = unit(rows.astype(np.float64))
    cosines = np.round(units @ units[query], 9)
    order = np.lexsort((np.arange(COUNT), -cosines))
    return [int(n) for n in order if keep[n] and n != query][:k]


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"quality": {"sharpness": {"min": 0.5}}},  # 50 %
        {"attributes": {"robot": ["r7"]}},  # 1 %
        {"prefix": "r7/00007"},  # one image
    ],
    ids=["everything", "half", "one percent", "one"],
)
@pytest.mark.parametrize("exact", [True, False])
def test_find__is_right_and_never_short(
    finder: Finder, rows: NDArray[Any], where: dict[str, object], exact: bool
) -> None:
    every = np.arange(COUNT)
    keep = np.ones(COUNT, bool)
    if "quality" in where:
        keep = (every / COUNT).astype(np.float32) >= np.float32(0.5)
    if "attributes" in where:
        keep = every % 100 == 7
    if "prefix" in where:
        keep = every == 7
    right = total = 0
    for query in (3, 404, 1905, 2999):
        ask = SearchAsk.model_validate({
            "examples": [{"uri": f"s3://raw/r{query % 100}/{query:05}"}], "k": 10, "where": where,
            "exact": exact,
        })  # fmt: skip
        answer = finder.find(ask)
        found, due = numbers(answer), expected(rows, query, keep, 10)
        assert len(found) == len(due), "short"
        assert [hit.rank for hit in answer.hits] == list(range(1, len(due) + 1))
        right, total = right + len(set(found) & set(due)), total + len(due)
        if answer.plan.is_exact:
            assert found == due, answer.plan
    assert right / total >= 0.98
    assert answer.plan.kept == COUNT
    if exact:
        assert answer.plan.is_exact


def test_find__the_plan_fits_the_filter(url: str) -> None:
    with Database(url) as database:
        limited = Finder(database, memory_bytes=0)
        ask = SearchAsk(examples=[Example(uri="s3://raw/r3/00003")], k=5)
        assert limited.find(ask).plan.how == "index"
        few = ask.model_copy(update={"where": Where2(attributes={"robot": ["r7"]})})
        assert limited.find(few).plan.how == "scan"
        most = ask.model_copy(update={"k": 2900})  # beyond what the index holds: a scan answers
        assert len(limited.find(most).hits) == 2900
        assert Finder(database).find(ask).plan.how == "resident"


def test_find__own_images_bounds_folders_and_counterexamples(finder: Finder) -> None:
    example = Example(uri="s3://raw/r3/00003")
    own = finder.find(SearchAsk(examples=[example], k=1, own=True)).hits[0]
    assert own.is_itself and own.distance == 0.0
    others = finder.find(SearchAsk(examples=[example], k=10_000))
    assert len(others.hits) == COUNT - 1 and not any(hit.is_itself for hit in others.hits)
    middle = others.hits[500].distance
    near = finder.find(SearchAsk(examples=[example], k=10_000, distance=Range(max=middle)))
    assert len(near.hits) == 501
    folder = finder.find(SearchAsk(folder="s3://raw/r7/", k=30))
    assert folder.way == "modes" and sum(mode.hits for mode in folder.modes) == 30
    assert not any("/r7/" in hit.uri for hit in folder.hits)
    first = others.hits[0].object_id
    away = finder.find(
        SearchAsk(examples=[example], counterexamples=[Example(object_id=first)], k=5)
    )
    assert first not in [hit.object_id for hit in away.hits]


@pytest.mark.parametrize("way", ["nearest", "modes", "mean"])
def test_find__a_snapshot_made_of_a_search_holds_the_same_images(finder: Finder, way: str) -> None:
    """In the same order, whatever way a folder is searched."""
    folder = [f"s3://raw/r7/{n:05}" for n in range(7, COUNT, 100)]
    away = "s3://raw/r8/00008"
    searched = finder.find(SearchAsk.model_validate({
        "examples": [{"uri": uri} for uri in folder], "counterexamples": [{"uri": away}],
        "k": 60, "way": way, "where": {"quality": {"sharpness": {"min": 0.25}}},
    }))  # fmt: skip
    assert len(searched.modes) != 1 or way == "mean"
    request = SnapshotRequest2.model_validate({
        "request_id": "r", "collection": "c", "name": "same",
        "where": {"flagged": "include", "quality": {"sharpness": {"min": 0.25}}},
        "select": {"strategy": "similar", "similar_to": folder, "dissimilar_to": [away], "k": 60,
                   "similar_way": way},
    })  # fmt: skip
    with choose(finder.database, request) as choice:
        assert choice.selection.object_ids.tolist() == [hit.object_id for hit in searched.hits]


def test_find__mistakes_are_named(finder: Finder) -> None:
    for ask, code in (
        (SearchAsk(), "no_examples"),
        (SearchAsk(examples=[Example(uri="http://169.254.169.254/")]), "bad_uri"),
        (SearchAsk(examples=[Example(upload="a.png")]), "no_upload"),
    ):
        with pytest.raises(RequestError) as error:
            finder.find(ask)
        assert error.value.code == code
    for ask, code in (
        (SearchAsk(folder="s3://raw/nowhere/"), "empty_folder"),
        (SearchAsk(examples=[Example(object_id=10**9)]), "unknown_object"),
        (SearchAsk(examples=[Example(uri="s3://raw/none")]), "unknown_object"),
    ):
        with pytest.raises(NotFoundError) as missing:
            finder.find(ask)
        assert missing.value.code == code


def test_resident__sees_what_arrives_and_forgets_what_goes(database_url: str) -> None:
    rng = np.random.default_rng(3)
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger, dimension=DIMENSION, epsilon=0.0)
        vectors = unit(rng.normal(size=(3, DIMENSION))).astype(np.float16)
        ledger.commit(collection, [kept(0, vectors[0]), kept(1, vectors[1])])
        finder = Finder(database)
        ask = SearchAsk(collection="c", examples=[Example(uri="s3://raw/r0/00000")])
        filtered = ask.model_copy(update={"where": Where2(prefix="r")})

        def found() -> list[int]:
            """By a search, by one with a filter, and by each again from what was kept of it."""
            answers = [sorted(numbers(finder.find(each))) for each in 2 * (ask, filtered)]
            assert all(answer == answers[0] for answer in answers)
            return answers[0]

        assert found() == [1]
        ledger.commit(collection, [kept(2, vectors[2])])
        assert found() == [1, 2]
        _remove(ledger, 1)
        assert found() == [2]


def test_find__leaves_out_the_kept_image_with_the_pixels_of_an_example(database_url: str) -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng.normal(size=(2, DIMENSION))).astype(np.float16)
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger, dimension=DIMENSION, epsilon=0.0)
        twin = replace(kept(2, vectors[0]), pixel_sha256=kept(0, vectors[0]).pixel_sha256)
        ledger.commit(collection, [kept(0, vectors[0]), kept(1, vectors[1]), twin])
        ask = SearchAsk(collection="c", examples=[Example(uri="s3://raw/r2/00002")])
        for memory in (0, 1 << 30):
            finder = Finder(database, memory_bytes=memory)
            assert numbers(finder.find(ask)) == [1]
            assert numbers(finder.find(ask.model_copy(update={"own": True}))) == [0, 1]
            away = {"counterexamples": [Example(uri="s3://raw/r1/00001")], "own": True}
            assert numbers(finder.find(ask.model_copy(update=away))) == [0]


def test_find__a_collection_under_a_new_generation_is_read_again(database_url: str) -> None:
    """What a search keeps of a collection holds for one generation."""
    vectors = unit(np.random.default_rng(5).normal(size=(3, DIMENSION))).astype(np.float16)
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger, dimension=DIMENSION, epsilon=0.0)
        ledger.commit(collection, [kept(n, vectors[n]) for n in range(3)])
        finder = Finder(database)
        ask = SearchAsk(collection="c", examples=[Example(uri="s3://raw/r0/00000")])
        assert len(finder.find(ask).hits) == 2
        Generations(database).redecide(collection, epsilon=1.5)  # one image stays
        answer = finder.find(ask)
        assert answer.generation == 2 and answer.plan.kept == 1
        with pytest.raises(NotFoundError):
            finder.find(ask.model_copy(update={"collection": "d"}))


def _remove(ledger: Ledger, number: int) -> None:
    version = ObjectVersion("raw", f"r{number % 100}/{number:05}", "v1")
    ledger.remove(ledger.collection("c"), [version])


def test_blocks__top_equals_brute_force_with_ties_and_filters() -> None:
    rng = np.random.default_rng(8)
    vectors = unit(rng.normal(size=(40_000, DIMENSION))).astype(np.float32)
    vectors[20_000:20_050] = vectors[:50]  # ties across blocks
    blocks = NumpyBlocks(DIMENSION)
    row = 0
    while row < 40_000:
        stop = min(40_000, (row // 16_384 + 1) * 16_384, row + 5_000)
        blocks.put(row, vectors[row:stop])
        row = stop
    queries = unit(vectors[[5, 20_007, 39_999]] + rng.normal(0, 0.02, (3, DIMENSION)))
    is_open = rng.random(40_000) < 0.3
    for mask in (None, is_open):
        found = blocks.top(queries.astype(np.float32), 40_000, 20, mask, margin=4e-6)
        products = vectors @ queries.astype(np.float32).T
        for number, rows_found in enumerate(found):
            column = products[:, number].copy()
            if mask is not None:
                column[~mask] = -np.inf
            due = set(np.argsort(-column, kind="stable")[:20].tolist())
            assert due <= set(rows_found.tolist()) and len(rows_found) <= 25
    np.testing.assert_allclose(blocks.mean(40_000), vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        blocks.products(queries.astype(np.float32), 40_000).T,
        vectors @ queries.astype(np.float32).T, atol=1e-5,
    )  # fmt: skip


def test_by_example__an_empty_collection_has_nothing_near(database_url: str) -> None:
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger, dimension=DIMENSION)
        for memory in (0, 1 << 30):
            search = ByExample(database, memory_bytes=memory)
            point = search.point(collection.collection_id)
            found = search.near(
                point, np.ones((1, DIMENSION)), 5, counterexamples=np.empty((0, DIMENSION)),
                findable=Findable(), exact=False,
            )  # fmt: skip
            assert found.object_ids.size == 0 and found.searched == 0
            assert not search.mean(point, Findable()).any()
