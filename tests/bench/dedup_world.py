"""Stored representatives in burst order, arrivals, and the exact oracle: the dedup benchmark."""

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psycopg
from numpy.typing import NDArray

from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import migrate
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.sources import SourceRule
from pixsift.ports import EmbeddingSpace

DIMENSION = 384
EPSILON = 0.05
Halves = NDArray[np.float16]

_SPREAD = 0.33
"""Length of the noise around a burst's center: frames of a burst lie 0.07 to 0.13 apart, so all
are kept, but only just."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """What comes in, and which of it must be kept according to exact comparison in order."""

    vectors: Halves
    is_kept: NDArray[np.bool_]


def stored_rows(count: int, *, clusters: int, seed: int = 1) -> Halves:
    """(N, D) float16 unit rows, burst after burst, as robots upload them."""
    chance = np.random.default_rng(seed)
    rows = np.empty((count, DIMENSION), np.float16)
    size = -(-count // clusters)
    for start in range(0, count, size):
        center = _unit(chance.standard_normal((1, DIMENSION)))
        rows[start : start + size] = _around(center, min(size, count - start), chance)
    return rows


def arrivals(stored: Halves, count: int, *, clusters: int, seed: int) -> Arrivals:
    """Nine in ten new ones of the stored bursts, one in ten planted at 0.5 to 1.0 epsilon."""
    chance = np.random.default_rng(seed)
    size = -(-len(stored) // clusters)
    vectors = np.empty((count, DIMENSION), np.float16)
    centers = np.concatenate(
        [
            _unit(stored[start : start + size].astype(np.float64).mean(0, keepdims=True))
            for start in range(0, len(stored), size)
        ]
    )
    for i in range(count):
        if chance.random() < 0.1:
            near = stored[chance.integers(len(stored))].astype(np.float64)
            vectors[i] = planted(near, chance.uniform(0.5, 0.99) * EPSILON, chance)
        else:
            burst = int(chance.integers(len(centers)))
            vectors[i] = _around(centers[burst : burst + 1], 1, chance)[0]
    return Arrivals(vectors, oracle(stored, vectors))


def planted(near: NDArray[np.float64], distance: float, chance: np.random.Generator) -> Halves:
    """A unit vector at this cosine distance from ``near``, in a random direction."""
    near = near / np.linalg.norm(near)
    aside = chance.standard_normal(len(near))
    aside -= (aside @ near) * near
    aside /= np.linalg.norm(aside)
    cosine = 1.0 - distance
    return np.asarray(cosine * near + np.sqrt(1 - cosine**2) * aside, np.float16)


def oracle(stored: Halves, vectors: Halves) -> NDArray[np.bool_]:
    """Exact, one after the other, in float64 wherever float32 is within 1e-4 of epsilon."""
    queries = _unit(vectors.astype(np.float64))
    nearest = np.full(len(vectors), 2.0)
    for begin in range(0, len(stored), 8192):
        block = _unit(stored[begin : begin + 8192].astype(np.float64)).astype(np.float32)
        distances = 1.0 - queries.astype(np.float32) @ block.T
        best = distances.argmin(1)
        for i in np.flatnonzero(distances.min(1) < nearest + 1e-4).tolist():
            wide = _unit(stored[begin + int(best[i])].astype(np.float64)[None])[0]
            nearest[i] = min(nearest[i], 1.0 - queries[i] @ wide)
    among = 1.0 - queries @ queries.T
    is_kept = np.zeros(len(vectors), bool)
    for i in range(len(vectors)):
        is_kept[i] = nearest[i] > EPSILON and not (among[i, :i][is_kept[:i]] <= EPSILON).any()
    return is_kept


@contextmanager
def durable_server(*, sync_seconds: float = 0.0) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of our own with fsync on: what is measured is durable.

    sync_seconds: added to every fsync and fdatasync, as disks over a network take 1 to 5 ms.
    Autovacuum is off: it would slow the measurement after a large load.
    """
    settings = {"shared_buffers": "2GB", "maintenance_work_mem": "2GB", "max_wal_size": "8GB",
                "autovacuum": "off"}  # fmt: skip
    with TemporaryDirectory(prefix="pxb-", dir="/tmp") as folder:
        root = Path(folder)
        root.chmod(0o755)
        slow = _slow_sync(root, sync_seconds) if sync_seconds else {}
        with EmbeddedPostgres(root / "pg", settings=settings, environment=slow) as server:
            migrate(server.url())
            yield server


_SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_first(void) { usleep(atoi(getenv("SYNC_MICROSECONDS"))); }
int fsync(int fd) {
    wait_first();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    wait_first();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def _slow_sync(folder: Path, seconds: float) -> dict[str, str]:
    """Variables that put a pause before each sync of a process started with them."""
    source, library = folder / "slow_sync.c", folder / "slow_sync.so"
    source.write_text(_SLOW_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    library.chmod(0o755)
    return {"LD_PRELOAD": str(library), "SYNC_MICROSECONDS": str(round(1e6 * seconds))}


def commit_seconds(url: str) -> float:
    """What the smallest durable transaction takes, mean of 100."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS tick (i int)")
        started = time.perf_counter()
        for i in range(100):
            connection.execute("INSERT INTO tick VALUES (%s)", (i,))
        return (time.perf_counter() - started) / 100


def seeded(url: str, name: str, stored: Halves) -> Collection:
    """A collection whose representatives are ``stored``, 64 to a decision transaction."""
    space = EmbeddingSpace("bench", name, "00", "px1-224", "none", DIMENSION)
    with Database(url) as database:
        ledger = Ledger(database)
        ledger.ensure_space(space)
        collection = ledger.create_collection(
            name, sources=[SourceRule("raw")], space_id=space.space_id, epsilon=EPSILON
        )
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMP TABLE seed (n bigint, h bytea, v halfvec)")
        with connection.cursor().copy("COPY seed FROM STDIN (FORMAT binary)") as copy:
            copy.write(_binary_rows(name, stored))
        connection.execute(
            "INSERT INTO object (bucket, key, version_id, content_sha256, pixel_sha256)"
            " SELECT 'raw', %s || '/' || lpad(n::text, 9, '0'), 'v1', h, h FROM seed ORDER BY n",
            (name,),
        )
        connection.execute(
            "INSERT INTO embedding (space_id, pixel_sha256, embedding)"
            " SELECT %s, h, v FROM seed ORDER BY n", (space.space_id,),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO representative (collection_id, generation, object_id, space_id,"
            " content_sha256, pixel_sha256, valid_from_seq)"
            " SELECT %s, 1, o.object_id, %s, s.h, s.h, 1 + n / 64"
            " FROM seed s JOIN object o ON o.content_sha256 = s.h ORDER BY n",
            (collection.collection_id, space.space_id),
        )
        connection.execute(
            "INSERT INTO decision (collection_id, generation, object_id, outcome, reason,"
            " pixel_sha256, valid_from_seq)"
            " SELECT collection_id, 1, object_id, 'kept', 'new', pixel_sha256, valid_from_seq"
            " FROM representative WHERE collection_id = %s ORDER BY valid_from_seq",
            (collection.collection_id,),
        )
        connection.execute(
            "UPDATE collection SET seq = %s WHERE collection_id = %s",
            (1 + len(stored) // 64, collection.collection_id),
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return collection


def judged(name: str, vectors: Halves, start: int = 0) -> list[Judged]:
    """Arrivals as the consumer hands them over."""
    found = []
    for i, vector in enumerate(vectors):
        digest = hashlib.sha256(f"{name}/{start + i}".encode()).digest()
        found.append(
            Judged(
                ObjectVersion("raw", f"{name}/new/{start + i:09}", "v1"), "embedded",
                content_sha256=digest, pixel_sha256=digest, embedding=vector,
                size_bytes=50_000, etag=digest.hex()[:32], sequencer=f"{start + i:016X}",
                image_facts={"format": "JPEG", "width": 640, "height": 360, "mode": "RGB"},
                quality={"sharpness": 0.5, "entropy_bits": 7.1, "brightness": 0.4},
            )
        )  # fmt: skip
    return found


def batches(items: Sequence[Judged], size: int = 64) -> list[list[Judged]]:
    """Slices of ``size``."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _around(center: NDArray[np.float64], count: int, chance: np.random.Generator) -> Halves:
    noise = _unit(chance.standard_normal((count, DIMENSION)))
    length = _SPREAD * chance.uniform(0.85, 1.15, (count, 1))
    return np.asarray(_unit(center + noise * length), np.float16)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _binary_rows(name: str, stored: Halves) -> bytes:
    """The rows in PostgreSQL's binary COPY format."""
    row = np.dtype(
        [("fields", ">i2"), ("s1", ">i4"), ("n", ">i8"), ("s2", ">i4"), ("h", "S32"),
         ("s3", ">i4"), ("d", ">i2"), ("u", ">i2"), ("v", ">f2", (stored.shape[1],))]
    )  # fmt: skip
    rows = np.zeros(len(stored), row)
    rows["fields"], rows["s1"], rows["s2"] = 3, 8, 32
    rows["s3"], rows["d"] = 4 + 2 * stored.shape[1], stored.shape[1]
    rows["n"] = np.arange(len(stored))
    seeds = [hashlib.sha256(f"{name}:{i}".encode()).digest() for i in range(len(stored))]
    rows["h"] = np.frombuffer(b"".join(seeds), "S32")
    rows["v"] = stored
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    body = bytearray(rows.tobytes())
    return head + bytes(body) + b"\xff\xff"
