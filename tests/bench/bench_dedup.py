"""Dedup decisions per second, durable, compared with naive pgvector and in-process indexes.

    python tests/bench/run.py dedup                     100k stored vectors of 384 dimensions
    python tests/bench/bench_dedup.py --rows 1000000    the same at a million (half an hour)

Every scheme decides the same arrivals, nine in ten of them new. Our resident scheme must decide
exactly as the oracle does, or nothing is published; of the approximate ones the wrong decisions
are counted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg

from bench import dedup_world as world
from bench.report import publish, table
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.adapters.search.resident import ResidentSearch
from pixsift.core.collection import Collection
from pixsift.ports import NeighborSearch

RUNS = 3
NAIVE_ARRIVALS = 640
SLOW_SYNC_SECONDS = 0.001
"""Added to each sync in the second part: cloud disks take 1 to 5 ms, this machine's far less."""
MakeSearch = Callable[[Database], NeighborSearch]


def main() -> None:
    """Measure, compare, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--arrivals", type=int, default=2048)
    parser.add_argument("--clusters", type=int, default=300)
    parser.add_argument("--skip", default="", help="schemes to leave out, separated by commas")
    options = parser.parse_args()
    skip = set(options.skip.split(","))
    stored = world.stored_rows(options.rows, clusters=options.clusters)
    sets = [
        world.arrivals(stored, options.arrivals, clusters=options.clusters, seed=10 + run)
        for run in range(RUNS)
    ]
    figures: dict[str, Any] = _Told({"rows": options.rows, "arrivals": options.arrivals})
    with world.durable_server() as server:
        figures["commit_ms"] = 1e3 * world.commit_seconds(server.url())
        figures["resident"] = resident(server.url(), stored, sets)
        figures["resident_two_consumers"] = two_consumers(server.url(), stored, sets[0])
        if "hnsw" not in skip:
            figures["hnsw_body_and_tail"] = body_and_tail(server.url(), stored, sets)
        if "naive" not in skip:
            figures["naive_pgvector"] = naive(server.url(), stored, sets)
        if "growth" not in skip:
            figures["at_10k"] = at_ten_thousand(server.url(), options.arrivals)
            figures["ingest_rate_beside_10k"] = (
                figures["resident"]["decisions_per_second"]
                / figures["at_10k"]["decisions_per_second"]
            )
    if "slow_disk" not in skip:
        with world.durable_server(sync_seconds=SLOW_SYNC_SECONDS) as server:
            figures["commit_ms_slow_disk"] = 1e3 * world.commit_seconds(server.url())
            figures["resident, slow disk"] = resident(server.url(), stored, sets)
            figures["naive_pgvector, slow disk"] = naive(server.url(), stored, sets)
    if "peers" not in skip:
        figures |= peers(stored, sets[0])
    publish(f"dedup-{options.rows}", figures, _text(figures))
    if figures["resident"]["wrong"]:
        sys.exit("the resident search decided otherwise than the oracle")


class _Told(dict[str, Any]):
    """Prints each part as it is known: at a million rows the whole takes half an hour."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        print(name, value, flush=True)  # noqa: T201


def resident(url: str, stored: world.Halves, sets: list[world.Arrivals]) -> dict[str, Any]:
    """One consumer, exact."""
    return _runs(url, "resident", stored, sets, ResidentSearch)


def body_and_tail(url: str, stored: world.Halves, sets: list[world.Arrivals]) -> dict[str, Any]:
    """One consumer, HNSW body built beforehand; recall at epsilon of the body by itself."""
    collection = world.seeded(url, "hnsw", stored)
    with Database(url) as database:
        search = PgvectorSearch(database, background=False)
        started = time.perf_counter()
        search.advance(collection.collection_id)
        built = time.perf_counter() - started
        recall = _recall(search, collection, stored)
        figures = _decide(database, search, collection, sets)
    return {**figures, "index_build_seconds": built, "recall_at_epsilon": recall}


def two_consumers(url: str, stored: world.Halves, arrivals: world.Arrivals) -> dict[str, Any]:
    """Two processes share the arrivals, each refreshing its mirror by what the other kept."""
    collection = world.seeded(url, "two", stored)
    context = get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    halves = [arrivals.vectors[0::2], arrivals.vectors[1::2]]
    # Two processes on two cores: one BLAS thread each, as consumers are deployed.
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = [
        context.Process(target=_consumer, args=(url, part, number, barrier, answers))
        for number, part in enumerate(halves)
    ]
    for process in processes:
        process.start()
    del os.environ["OMP_NUM_THREADS"]
    barrier.wait()
    started = time.perf_counter()
    locks = [lock for _ in processes for lock in answers.get()]
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return {
        "decisions_per_second": len(arrivals.vectors) / seconds,
        "lock_ms_median": float(np.median(locks)) * 1e3,
        "kept_pairs_within_epsilon": _kept_pairs(url, collection, stored, arrivals),
    }


def naive(url: str, stored: world.Halves, sets: list[world.Arrivals]) -> dict[str, Any]:
    """What one writes first: autocommit, text vectors, nearest neighbor, INSERT, row by row."""
    rates, wrong = [], 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE naive (id bigserial, v vector({world.DIMENSION}))")
        connection.execute(
            "INSERT INTO naive (v) SELECT embedding::vector FROM embedding"
            " JOIN representative USING (space_id, pixel_sha256) JOIN collection USING"
            " (collection_id) WHERE name = 'resident' ORDER BY object_id LIMIT %s", (len(stored),),
        )  # fmt: skip
        connection.execute("CREATE INDEX ON naive USING hnsw (v vector_cosine_ops)")
        for each in sets:
            started = time.perf_counter()
            for vector, is_kept in zip(
                each.vectors[:NAIVE_ARRIVALS], each.is_kept[:NAIVE_ARRIVALS], strict=True
            ):
                text = "[" + ",".join(str(x) for x in vector.tolist()) + "]"
                row = connection.execute(
                    "SELECT v <=> %s::vector FROM naive ORDER BY v <=> %s::vector LIMIT 1",
                    (text, text),
                ).fetchone()
                keep = row is None or row[0] > world.EPSILON
                if keep:
                    connection.execute("INSERT INTO naive (v) VALUES (%s::vector)", (text,))
                wrong += int(keep != is_kept)
            rates.append(NAIVE_ARRIVALS / (time.perf_counter() - started))
    return _spread(rates) | {"wrong": wrong, "decided": NAIVE_ARRIVALS * len(sets)}


def at_ten_thousand(url: str, count: int) -> dict[str, Any]:
    """The resident rate with ten thousand stored: what the ingest rate at more is compared to."""
    stored = world.stored_rows(10_000, clusters=30, seed=5)
    sets = [world.arrivals(stored, count, clusters=30, seed=20 + run) for run in range(RUNS)]
    return _runs(url, "small", stored, sets, ResidentSearch)


def peers(stored: world.Halves, arrivals: world.Arrivals) -> dict[str, Any]:
    """hnswlib and FAISS in their own environment; empty, saying so, where there is none."""
    python = os.environ.get("PIXSIFT_BENCH_PEERS")
    if not python:
        return {"peers": "PIXSIFT_BENCH_PEERS is not set: hnswlib and FAISS left out"}
    script = Path(__file__).parent / "peers" / "dedup_inprocess.py"
    with TemporaryDirectory(prefix="pxb-", dir="/tmp") as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, stored=stored, arriving=arrivals.vectors, is_kept=arrivals.is_kept)
        command = [python, str(script), str(data), str(world.EPSILON), str(os.cpu_count())]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _runs(
    url: str, name: str, stored: world.Halves, sets: list[world.Arrivals], make: MakeSearch
) -> dict[str, Any]:
    collection = world.seeded(url, name, stored)
    with Database(url) as database:
        return _decide(database, make(database), collection, sets)


def _decide(
    database: Database,
    search: NeighborSearch,
    collection: Collection,
    sets: list[world.Arrivals],
) -> dict[str, Any]:
    """Decide every set, each against the stored ones and what earlier sets kept.

    The sets are far apart from each other, so each one's oracle stands by itself.
    """
    watch = _LockWatch()
    ledger = Ledger(database, search=search, pause=watch)
    search.within(collection.collection_id, sets[0].vectors[:1], world.EPSILON)  # load the mirror
    rates, wrong = [], 0
    for number, each in enumerate(sets):
        items = world.judged(f"{collection.name}/{number}", each.vectors)
        started = time.perf_counter()
        outcomes = [d.outcome for b in world.batches(items) for d in ledger.commit(collection, b)]
        rates.append(len(items) / (time.perf_counter() - started))
        wrong += int((np.array([o == "kept" for o in outcomes]) != each.is_kept).sum())
    return _spread(rates) | {
        "wrong": wrong,
        "decided": sum(len(each.vectors) for each in sets),
        "lock_ms_median": float(np.median(watch.seconds)) * 1e3,
        "lock_ms_p95": float(np.quantile(watch.seconds, 0.95)) * 1e3,
    }


class _LockWatch:
    """How long the collection's lock is held, from the point it is granted to after COMMIT."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since = 0.0

    def __call__(self, point: str) -> None:
        if point == "lock_held":
            self._since = time.perf_counter()
        elif point == "committed":
            self.seconds.append(time.perf_counter() - self._since)


def _consumer(url: str, vectors: world.Halves, number: int, barrier: Any, answers: Any) -> None:
    watch = _LockWatch()
    with Database(url) as database:
        ledger = Ledger(database, pause=watch)
        collection = ledger.collection("two")
        ledger.search.within(collection.collection_id, vectors[:1], world.EPSILON)
        items = world.judged(f"two/{number}", vectors)
        barrier.wait()
        for batch in world.batches(items):
            ledger.commit(collection, batch)
    answers.put(watch.seconds)


def _kept_pairs(
    url: str, collection: Collection, stored: world.Halves, arrivals: world.Arrivals
) -> int:
    """Pairs that the two consumers kept although they lie within epsilon."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT o.key FROM representative r JOIN object o USING (object_id)"
            " WHERE r.collection_id = %s AND o.key LIKE 'two/%%/new/%%'",
            (collection.collection_id,),
        ).fetchall()
    parts = [(int(key.split("/")[1]), int(key.split("/")[3])) for (key,) in rows]
    kept = arrivals.vectors[[2 * index + number for number, index in parts]]
    return int((~world.oracle(stored, kept)).sum())


def _recall(search: PgvectorSearch, collection: Collection, stored: world.Halves) -> float:
    """Share of planted neighbors, 0.5 to 1.0 epsilon away, that the search proposes."""
    chance = np.random.default_rng(99)
    rows = chance.choice(len(stored), 2000, replace=False)
    queries = np.stack(
        [
            world.planted(
                stored[row].astype(np.float64), chance.uniform(0.5, 0.99) * world.EPSILON, chance
            )
            for row in rows
        ]
    )
    with psycopg.connect(search._database.url) as connection:
        ids = connection.execute(
            "SELECT object_id FROM object WHERE key LIKE 'hnsw/0%%' ORDER BY key"
        ).fetchall()
    found = 0
    for start in range(0, len(rows), 64):
        part = slice(start, start + 64)
        near = search.within(collection.collection_id, queries[part], world.EPSILON)
        for row, proposed in zip(rows[part], near.object_ids, strict=True):
            found += int(ids[row][0] in proposed)
    return found / len(rows)


def _spread(rates: list[float]) -> dict[str, Any]:
    return {
        "decisions_per_second": float(np.median(rates)),
        "slowest": min(rates),
        "fastest": max(rates),
    }


def _text(figures: dict[str, Any]) -> str:
    lines = [
        (
            name,
            value["decisions_per_second"],
            _beside_naive(figures, name),
            value.get("lock_ms_median", "-"),
            value.get("wrong", "-"),
            value.get("recall_at_epsilon", "-"),
        )
        for name, value in figures.items()
        if isinstance(value, dict)
    ]
    header = ("scheme", "decisions/s", "x naive", "lock ms per 64", "wrong", "recall at epsilon")
    return (
        f"{figures['rows']:,} stored vectors of {world.DIMENSION} dimensions in burst order, "
        f"{figures['arrivals']:,} arrivals a run, nine in ten kept, batches of 64; fsync on; "
        "hnswlib and FAISS hold everything in memory and nothing is durable. A commit takes "
        f"{figures['commit_ms']:.2f} ms, on the slow disk "
        f"{figures.get('commit_ms_slow_disk', float('nan')):.2f} ms.\n\n" + table(header, lines)
    )


def _beside_naive(figures: dict[str, Any], name: str) -> float | str:
    """Decisions per second over the naive way's on the same disk."""
    disk = ", slow disk" if name.endswith(", slow disk") else ""
    naive = figures.get(f"naive_pgvector{disk}")
    return figures[name]["decisions_per_second"] / naive["decisions_per_second"] if naive else "-"


if __name__ == "__main__":
    main()
