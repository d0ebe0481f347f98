"""The pruned products never lose a pair, whatever the data and its order."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ledger_world import image, ledger_of, new_collection, rows
from pixsift.adapters.postgres import copying
from pixsift.adapters.search.cell_blocks import CellBlocks
from pixsift.adapters.search.mirror import (
    BLOCK_ROWS,
    Blocks,
    Mirror,
    NumpyBlocks,
    put_in_parts,
    unit_rows,
)
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.retrieval import unit
from pixsift.errors import DependencyDownError

Halves = NDArray[np.float16]
MakeBlocks = Callable[[int], Blocks]
both = pytest.mark.parametrize("make", [NumpyBlocks, CellBlocks])


def small_cells(dimension: int) -> CellBlocks:
    """Cells that are founded and judged after few rows and queries."""
    return CellBlocks(dimension, settle_at=64, founders=4, patience=40)


def data(kind: str, count: int, dimension: int, seed: int) -> Halves:
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal((count, dimension))
    if kind == "bursts":
        centers = np.repeat(chance.standard_normal((-(-count // 500), dimension)), 500, axis=0)
        noise = centers[:count] + noise * 0.2
    elif kind == "flat":
        noise[:, 8:] *= 0.01
    return unit_rows(noise.astype(np.float16)).astype(np.float16)


def expected(stored: Halves, queries: Halves, reach: float) -> NDArray[np.bool_]:
    a, b = stored.astype(np.float64), queries.astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    near: NDArray[np.bool_] = 1 - b @ a.T <= reach
    return near


@both
@pytest.mark.parametrize("kind", ["random", "bursts", "flat"])
@pytest.mark.parametrize(("dimension", "count"), [(64, 900), (128, 5000), (256, 17_003)])
def test_within__every_pair_and_nothing_far(
    kind: str, dimension: int, count: int, make: MakeBlocks
) -> None:
    stored = data(kind, count, dimension, seed=1)
    queries = np.concatenate([stored[::701], data(kind, 20, dimension, seed=2)])
    noisy = queries.astype(np.float32) + np.random.default_rng(3).normal(0, 0.01, queries.shape)
    queries = noisy.astype(np.float16)
    mirror = Mirror(make(dimension))
    for start in range(0, count, 3333):
        block = stored[start : start + 3333]
        mirror.append(np.arange(start, start + len(block)), block)
    for reach in (0.03, 0.3, 1.5):
        found = mirror.within(unit_rows(queries), reach + 1e-4)
        must, may = expected(stored, queries, reach), expected(stored, queries, reach + 2e-4)
        for query, ids in enumerate(found):
            assert set(np.flatnonzero(must[query])) <= set(ids) <= set(np.flatnonzero(may[query]))


@both
def test_remove__rows_change_places_across_blocks(make: MakeBlocks) -> None:
    stored = data("random", BLOCK_ROWS + 100, 128, seed=4)
    mirror = Mirror(make(128))
    for start in range(0, len(stored), BLOCK_ROWS):
        part = stored[start : start + BLOCK_ROWS]
        mirror.append(np.arange(start, start + len(part)) + 7, part)
    gone = np.random.default_rng(5).choice(len(stored), 300, replace=False)
    mirror.remove([int(i) + 7 for i in gone] + [10**9])
    assert mirror.count == len(stored) - 300
    found = mirror.within(unit_rows(stored[::50]), 0.01)
    for row, ids in zip(range(0, len(stored), 50), found, strict=True):
        assert ((row + 7) in ids) == (row not in gone)


@both
@pytest.mark.parametrize("seed", range(6))
def test_within__after_any_coming_and_going(make: MakeBlocks, seed: int) -> None:
    chance = np.random.default_rng(seed)
    mirror = Mirror(small_cells(32) if make is CellBlocks else make(32))
    scenes = chance.standard_normal((5, 32))
    alive: dict[int, Halves] = {}
    for turn in range(120):
        if chance.random() < 0.7:
            spread = chance.choice([0.05, 0.1, 2.0])  # scenes, and now and then none
            noisy = scenes[chance.integers(5, size=9)] + spread * chance.standard_normal((9, 32))
            halves = unit_rows(noisy.astype(np.float16)).astype(np.float16)
            ids = 100 * turn + np.arange(9)
            mirror.append(ids, halves)
            alive.update(zip(ids.tolist(), halves, strict=True))
        elif alive:
            gone = chance.choice(list(alive), min(len(alive), 5), replace=False).tolist()
            mirror.remove(gone)
            for object_id in gone:
                del alive[object_id]
        if not alive:
            continue
        ids, stored = np.array(list(alive)), np.stack(list(alive.values()))
        queries = stored[chance.integers(len(stored), size=3)]
        must = expected(stored, queries, 0.02)
        may = expected(stored, queries, 0.0202)
        for query, found in enumerate(mirror.within(unit_rows(queries), 0.0201)):
            assert len(set(found)) == len(found)
            assert set(ids[must[query]]) <= set(found) <= set(ids[may[query]])
    assert mirror.count == len(alive)


def products_of(stored: Halves, queries: Halves) -> NDArray[np.float64]:
    """(M, N) by brute force in float64."""
    return unit(queries.astype(np.float64)) @ unit(stored.astype(np.float64)).T


def check_best(
    found: NDArray[np.intp], products: NDArray[np.float64], k: int, keep: NDArray[np.bool_]
) -> None:
    """The k best of the kept and what ties with the last; nothing else but rounding's neighbors."""
    kept = products[keep]
    least = np.sort(kept)[::-1][: min(k, len(kept))].min(initial=np.inf)
    assert len(np.unique(found)) == len(found)
    assert set(np.flatnonzero(keep & (products >= least))) <= set(found.tolist())
    assert keep[found].all() and (products[found] >= least - 2e-5).all()


@pytest.mark.parametrize("kind", ["random", "bursts", "flat", "copies"])
@pytest.mark.parametrize(
    ("dimension", "count"), [(64, 900), (160, 63), (160, 5000), (130, BLOCK_ROWS + 77)]
)
def test_top__is_the_brute_force_of_any_filter(kind: str, dimension: int, count: int) -> None:
    """One query, or many at once: what bounds exclude is never among the k best."""
    stored = data("bursts" if kind == "copies" else kind, count, dimension, seed=1)
    if kind == "copies":  # the k-th place is shared by many
        stored = stored[np.random.default_rng(4).integers(count // 40 + 1, size=count)]
    blocks = NumpyBlocks(dimension)
    put_in_parts(blocks, 0, unit_rows(stored))
    queries = np.concatenate([stored[:: count // 3], data(kind, 2, dimension, seed=2)])
    asked, products = unit_rows(queries), products_of(stored, queries)
    for share in (1.0, 0.5, 0.01, 0.0):
        keep = np.random.default_rng(7).random(count) < share
        for k in (1, 10, count // 3, count + 5):
            is_open = None if share == 1.0 else keep
            together = blocks.top(asked, count, k, is_open, margin=1e-5)
            alone = blocks.top(asked[1:2], count, k, is_open, margin=1e-5)
            for found, true in zip([*together, *alone], [*products, products[1]], strict=True):
                check_best(found, true, k, keep)


@pytest.mark.parametrize("seed", range(4))
def test_top__after_any_coming_and_going(seed: int) -> None:
    chance = np.random.default_rng(seed)
    blocks = NumpyBlocks(160)
    mirror = Mirror(blocks)
    scenes = chance.standard_normal((12, 160))
    alive: dict[int, Halves] = {}
    for turn in range(14):
        spread = chance.choice([0.05, 0.3, 2.0])
        count = int(chance.integers(1, 2500))
        noisy = scenes[chance.integers(12, size=count)]
        noisy = noisy + spread * chance.standard_normal((count, 160))
        halves = unit_rows(noisy.astype(np.float16)).astype(np.float16)
        ids = 10_000 * turn + np.arange(count)
        mirror.append(ids, halves)
        alive.update(zip(ids.tolist(), halves, strict=True))
        gone = chance.choice(list(alive), int(chance.integers(0, count)), replace=False).tolist()
        mirror.remove(gone)
        for object_id in gone:
            del alive[object_id]
        if not alive:
            continue
        blocks.turn(mirror.count)
        stored = np.stack([alive[i] for i in mirror.object_ids[: mirror.count].tolist()])
        queries = stored[chance.integers(len(stored), size=3)]
        every = np.ones(len(stored), bool)
        together = blocks.top(unit_rows(queries), len(stored), 7, None, margin=1e-5)
        for found, true in zip(together, products_of(stored, queries), strict=True):
            check_best(found, true, 7, every)


def test_turn__lets_the_bounds_of_later_scenes_exclude_again() -> None:
    """The first rows are of three scenes only, and their axes say nothing of nine others."""
    chance = np.random.default_rng(5)
    centers = np.repeat(chance.standard_normal((12, 160)), 1400, axis=0)
    stored = (centers + 0.3 * chance.standard_normal(centers.shape)).astype(np.float16)
    blocks = NumpyBlocks(160)
    for start in range(0, len(stored), 1024):
        put_in_parts(blocks, start, unit_rows(stored[start : start + 1024]))
    asked = unit_rows(stored[6000::1111])

    def lengths() -> float:
        """Mean of what the heads of later rows leave out: the looseness of their bounds."""
        return float(np.mean(blocks._split(asked)[0][:, -1]))

    before = lengths()
    blocks.turn(len(stored))
    assert lengths() < 0.6 * before


def test_cells__are_founded_by_scenes_and_met_by_their_queries_only() -> None:
    stored = data("bursts", 5000, 128, seed=8)
    blocks = CellBlocks(128)
    mirror = Mirror(blocks)
    mirror.append(np.arange(5000), stored)
    assert 8 <= len(blocks._cells) - 1 <= 12
    mirror.within(unit_rows(stored[::10]), 0.05)
    assert blocks._met / blocks._asked < 0.2


def test_cells__are_dissolved_where_they_do_not_help() -> None:
    stored = data("flat", 3000, 128, seed=9)
    blocks = small_cells(128)
    mirror = Mirror(blocks)
    mirror.append(np.arange(3000), stored)
    assert len(blocks._cells) > 1
    for _ in range(3):
        found = mirror.within(unit_rows(stored[:50]), 1.2)
        assert all(row in ids for row, ids in enumerate(found))
    assert len(blocks._cells) == 1


def test_unit_rows__a_broken_vector_is_refused() -> None:
    for broken in (0.0, np.nan, np.inf):
        with pytest.raises(DependencyDownError):
            unit_rows(np.full((1, 4), broken, np.float16))


def test_load__more_than_one_block_of_the_wire(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BLOCK_BYTES", 1000)
    stored = data("random", 300, 16, seed=6)
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, epsilon=1e-6)
        ledger.commit(collection, [image(str(i), vector) for i, vector in enumerate(stored)])
        found = ResidentSearch(ledger._database).within(1, stored, 1e-5).object_ids
    names = dict(rows(database_url, "SELECT object_id, key FROM object"))
    assert [[names[i] for i in ids.tolist()] for ids in found] == [[str(i)] for i in range(300)]
