"""Search by example: recall under filters, time of a query, a batch against a loop, memory.

    python tests/bench/run.py find                                  100k vectors of 384 dimensions
    python tests/bench/bench_find.py --rows 1000000 --no-index      the resident search at a million

Filters keep about half, 1 % and 0.01 % of the images. Recall is measured against the exact order in
float64, of the resident search and of the one beyond memory (HNSW, or a scan where the filter is
selective). Times are of the server's engine without embedding, in one run with raw prepared SQL on
the same database and with FAISS flat on the same vectors.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench import dedup_world as world
from bench.report import publish, table
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.mirror import NumpyBlocks, put_in_parts, unit_rows
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.api import Example, SearchAsk
from pixsift.core.retrieval import unit
from pixsift.messages import Range, Where2
from pixsift.operations.find import Finder

K, BATCH = 10, 64


def main() -> None:
    """Measure and publish; exit 1 where recall or a length falls short."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=300)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--no-index", action="store_true")
    options = parser.parse_args()
    stored = world.stored_rows(options.rows, clusters=options.clusters)
    chance = np.random.default_rng(17)
    asked = np.sort(chance.choice(options.rows, options.queries, replace=False))
    figures: dict[str, Any] = {"rows": options.rows}
    with world.durable_server() as server:
        collection = world.seeded(server.url(), "find", stored)
        sharp = _with_metrics(server.url(), options.rows)
        with Database(server.url(), max_connections=4) as database:
            ids = _ids(database)
            before = _resident_bytes()
            resident = Finder(database, memory_bytes=1 << 40)
            resident.find(_ask(int(ids[0]), Where2(flagged="include")))
            figures["memory_per_million_gb"] = (
                (_resident_bytes() - before) / options.rows * 1e6 / 1e9
            )
            finders = {"resident": resident}
            if not options.no_index:
                began = time.perf_counter()
                PgvectorSearch(database, background=False).advance(collection.collection_id)
                figures["index_build_seconds"] = time.perf_counter() - began
                finders["beyond memory"] = Finder(database, memory_bytes=0)
            for name, keep in _filters(options.rows, sharp).items():
                for engine, finder in finders.items():
                    figures[f"{engine}, {name}"] = _quality(finder, stored, ids, asked, keep)
            figures["resident_ms"] = _milliseconds(
                lambda i: resident.find(_ask(int(ids[i]), Where2(flagged="include"))), asked
            )
            figures["64_examples_in_one_request_ms"] = _milliseconds(
                lambda i: resident.find(_many(ids[np.resize(asked, BATCH)])), asked[:5]
            )
            figures |= _sql(server.url(), stored, asked, with_index=not options.no_index)
    figures |= _batch(stored, asked)
    figures |= _faiss(stored, asked)
    publish(f"find-{options.rows}", figures, _text(figures))
    short = [
        n for n, f in figures.items() if isinstance(f, dict) and (f["short"] or f["recall"] < 0.98)
    ]
    if short:
        sys.exit(f"recall below 0.98, or an answer too short: {short}")


def _filters(rows: int, sharp: NDArray[np.float32]) -> dict[str, tuple[Where2, NDArray[np.bool_]]]:
    digits = 9 - (len(str(rows)) - 1)  # leading zeros of every key, and one in ten digits more
    numbers = np.arange(rows)
    one_percent, ten_thousandth = "find/" + "0" * (digits + 2), "find/" + "0" * (digits + 4)
    include: dict[str, Any] = {"flagged": "include"}
    return {
        "no filter": (Where2(**include), np.ones(rows, bool)),
        "50 %": (Where2(**include, quality={"sharpness": Range(min=0.5)}), sharp >= 0.5),
        "1 %": (Where2(**include, prefix=one_percent), numbers < rows // 100),
        "0.01 %": (Where2(**include, prefix=ten_thousandth), numbers < rows // 10_000),
    }


def _quality(
    finder: Finder, stored: world.Halves, ids: NDArray[np.int64], asked: NDArray[np.intp],
    keeping: tuple[Where2, NDArray[np.bool_]],
) -> dict[str, Any]:  # fmt: skip
    """Recall@10, answers that are too short, and the median time."""
    where, keep = keeping
    units = unit(stored[keep].astype(np.float64))
    kept = np.flatnonzero(keep)
    place = {int(object_id): n for n, object_id in enumerate(ids)}
    recalls, short, taken, plans = [], 0, [], set()
    for row in asked.tolist():
        cosines = np.round(units @ unit(stored[row : row + 1].astype(np.float64))[0], 9)
        cosines[kept == row] = -np.inf
        limit = np.sort(cosines)[::-1][: min(K, len(kept) - int(keep[row]))]
        began = time.perf_counter()
        found = finder.find(_ask(int(ids[row]), where))
        taken.append(time.perf_counter() - began)
        plans.add(found.plan.how)
        rows = [place[hit.object_id] for hit in found.hits]
        good = sum(float(cosines[np.searchsorted(kept, r)]) >= limit[-1] for r in rows)
        recalls.append(good / len(limit))
        short += len(rows) < len(limit)
    return {
        "recall": float(np.mean(recalls)), "short": short, "plans": sorted(plans),
        "ms": 1e3 * float(np.median(taken)),
    }  # fmt: skip


def _ask(object_id: int, where: Where2) -> SearchAsk:
    return SearchAsk(collection="find", examples=[Example(object_id=object_id)], k=K, where=where)


def _many(object_ids: NDArray[np.int64]) -> SearchAsk:
    examples = [Example(object_id=int(object_id)) for object_id in object_ids]
    where = Where2(flagged="include")
    return SearchAsk(collection="find", examples=examples, k=K, where=where, way="nearest")


def _milliseconds(work: Callable[[int], object], asked: NDArray[np.intp]) -> float:
    taken = []
    for row in asked.tolist():
        began = time.perf_counter()
        work(row)
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def _sql(
    url: str, stored: world.Halves, asked: NDArray[np.intp], *, with_index: bool
) -> dict[str, float]:
    """Raw prepared SQL: exact, and through the same index."""
    exact = (
        "SELECT r.object_id FROM representative r JOIN embedding e USING (space_id, pixel_sha256)"
        " WHERE r.valid_to_seq IS NULL ORDER BY e.embedding <=> %s::halfvec LIMIT 10"
    )
    figures = {}
    with psycopg.connect(url, autocommit=True) as connection:
        body = connection.execute("SELECT body_table FROM neighbor_index").fetchone()

        def ask(statement: str, row: int) -> object:
            text = "[" + ",".join(map(str, stored[row].tolist())) + "]"
            return connection.execute(statement.encode(), (text,), prepare=True).fetchall()

        figures["sql_exact_ms"] = _milliseconds(lambda row: ask(exact, row), asked[:8])
        if with_index and body is not None:
            connection.execute("SET hnsw.ef_search = 200")
            near = f"SELECT object_id FROM {body[0]} ORDER BY embedding <=> %s::halfvec LIMIT 10"
            figures["sql_hnsw_ms"] = _milliseconds(lambda row: ask(near, row), asked)
    return figures


def _batch(stored: world.Halves, asked: NDArray[np.intp]) -> dict[str, float]:
    """64 queries at once against one after the other, in the resident blocks."""
    blocks = NumpyBlocks(stored.shape[1])
    put_in_parts(blocks, 0, unit_rows(stored))
    blocks.turn(len(stored))
    queries = unit_rows(stored[np.resize(asked, BATCH)])
    single, batch = [], []
    for _ in range(3):
        began = time.perf_counter()
        for query in queries:
            blocks.top(query[None], len(stored), K, None, margin=1e-5)
        single.append(time.perf_counter() - began)
        began = time.perf_counter()
        blocks.top(queries, len(stored), K, None, margin=1e-5)
        batch.append(time.perf_counter() - began)
    return {
        "vectors_alone_one_query_ms": 1e3 * float(np.median(single)) / BATCH,
        "loop_of_64_ms": 1e3 * float(np.median(single)),
        "batch_of_64_ms": 1e3 * float(np.median(batch)),
        "batch_gain": float(np.median(single) / np.median(batch)),
    }  # fmt: skip


def _faiss(stored: world.Halves, asked: NDArray[np.intp]) -> dict[str, float]:
    python = os.environ.get("PIXSIFT_BENCH_PEERS")
    if python is None:
        print("FAISS is left out: PIXSIFT_BENCH_PEERS is not set")  # noqa: T201
        return {}
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, stored=stored, queries=stored[np.resize(asked, BATCH)])
        script = Path(__file__).parent / "peers" / "find_inprocess.py"
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        told = subprocess.run(
            [python, str(script), str(data), str(K), threads], check=True, capture_output=True
        ).stdout
    found = json.loads(told)
    return {"faiss_single_ms": found["single_ms"], "faiss_batch_of_64_ms": found["batch_ms"]}


def _with_metrics(url: str, rows: int) -> NDArray[np.float32]:
    """Every object gets a sharpness, evenly spread and in no order."""
    sharp = np.random.default_rng(23).permutation(rows).astype(np.float32) / np.float32(rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE object o SET quality = jsonb_build_object('sharpness', s.v) FROM"
            " unnest(%s::float4[]) WITH ORDINALITY AS s (v, n)"
            " WHERE o.key = 'find/' || lpad((s.n - 1)::text, 9, '0')", (sharp.tolist(),),
        )  # fmt: skip
        connection.execute("VACUUM ANALYZE")
    return sharp


def _ids(database: Database) -> NDArray[np.int64]:
    with database.connection() as connection:
        rows = connection.execute("SELECT object_id FROM object ORDER BY key").fetchall()
    return np.array([row[0] for row in rows], np.int64)


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _text(figures: dict[str, Any]) -> str:
    lines = [[name, f["recall"], f["short"], f["ms"], ", ".join(f["plans"])]
             for name, f in figures.items() if isinstance(f, dict)]  # fmt: skip
    rest = [[name, value] for name, value in figures.items() if not isinstance(value, dict)]
    return "\n\n".join([
        table(["engine, filter", "recall@10", "too short", "ms (median)", "plan"], lines),
        table(["figure", "value"], rest),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
