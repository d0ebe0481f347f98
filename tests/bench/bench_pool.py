"""Reading a pool of 100,000 embeddings: binary COPY into a spill file, compared with plain SELECT.

The peer is what most code does: SELECT, one text vector per row, parsed into a float32 matrix.
"""

import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from bench.report import publish, table
from pixsift.adapters.ledger.pool import load_pool
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import migrate
from pixsift.messages import Where

COUNT, DIMENSION, RUNS = 100_000, 384, 3

_FILL = """
INSERT INTO model VALUES ('s', 'stub', '', '', 'px1-8', 'gap', {d});
INSERT INTO collection (name, sources, space_id, epsilon, seq)
VALUES ('c', '[{{"bucket": "raw"}}]', 's', 0.05, {n});
INSERT INTO generation VALUES (1, 1, 0.05, NULL, 'current');
INSERT INTO object (bucket, key, version_id, content_sha256, pixel_sha256, quality)
SELECT 'raw', 'r' || i % 8 || '/' || i || '.jpg', 'v1', sha256(i::text::bytea),
       sha256(i::text::bytea), '{{"sharpness": 0.5, "entropy_bits": 7.1, "brightness": 0.4}}'
  FROM generate_series(1, {n}) AS i;
INSERT INTO attribute
SELECT 1, object_id, 'key', jsonb_build_object('robot', 'r' || object_id % 8, 'camera', 'front'), 1
  FROM object;
INSERT INTO embedding (space_id, pixel_sha256, embedding)
SELECT 's', pixel_sha256,
       (SELECT array_agg(sin(object_id * 0.7 + j * object_id))::real[]
          FROM generate_series(1, {d}) AS j)::halfvec
  FROM object;
INSERT INTO representative
SELECT 1, 1, object_id, 's', content_sha256, pixel_sha256, 1 FROM object;
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, pixel_sha256,
                      valid_from_seq)
SELECT 1, 1, object_id, 'kept', 'new', pixel_sha256, 1 FROM object;
ANALYZE;
"""


def main() -> dict[str, Any]:
    """Measure, print, publish."""
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder), durable=False) as server:
            migrate(server.url())
            with psycopg.connect(server.url()) as connection:
                connection.execute(_FILL.format(n=COUNT, d=DIMENSION).encode())
            figures = _measure(server.url())
    publish("pool", figures, _text(figures))
    return figures


def _measure(url: str) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {"pixsift": [], "select": []}
    for _ in range(RUNS):
        for name, work in (("pixsift", _ours), ("select", _naive)):
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                runs[name].append(pool.apply(work, (url,)))
    sums = {run["checksum"] for found in runs.values() for run in found}
    assert len(sums) == 1, "both must read the same values"
    return {
        name: {key: float(np.median([run[key] for run in found]))
               for key in ("seconds", "cpu", "peak")}
        for name, found in runs.items()
    }  # fmt: skip


def _ours(url: str) -> dict[str, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    with Database(url) as database, tempfile.TemporaryDirectory() as folder:
        pool = load_pool(database, 1, 1, COUNT, Where(), spill_dir=Path(folder))
        took = time.perf_counter() - begin, time.process_time() - cpu
        checksum = sum(float(block.sum(dtype=np.float64)) for _, block in pool.rows.blocks(4096))
    return {"seconds": took[0], "cpu": took[1], "peak": _peak(), "checksum": round(checksum, 3)}


def _naive(url: str) -> dict[str, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT o.object_id, o.quality, a.attributes, e.embedding::text FROM representative r"
            " JOIN object o USING (object_id) JOIN attribute a USING (object_id)"
            " JOIN embedding e ON e.pixel_sha256 = o.pixel_sha256 ORDER BY 1"
        ).fetchall()
    matrix = np.array([json.loads(row[3]) for row in rows], dtype=np.float32)
    took = time.perf_counter() - begin, time.process_time() - cpu
    checksum = sum(
        float(matrix[start : start + 4096].sum(dtype=np.float64))
        for start in range(0, len(matrix), 4096)
    )
    return {"seconds": took[0], "cpu": took[1], "peak": _peak(), "checksum": round(checksum, 3)}


def _peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


def _text(figures: dict[str, Any]) -> str:
    matrix = COUNT * DIMENSION * 4
    rows = [
        [name, f["seconds"], f["cpu"], f"{f['peak'] / 1e6:.0f} MB", f"{f['peak'] / matrix:.2f}x"]
        for name, f in figures.items()
    ]
    heading = f"{COUNT:,} images x {DIMENSION}, with facts and attributes; medians of {RUNS}.\n\n"
    columns = ["way", "seconds", "CPU seconds", "peak memory", "of the float32 matrix"]
    return heading + str(table(columns, rows))


if __name__ == "__main__":
    main()
