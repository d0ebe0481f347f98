"""Fifty clients for minutes while images arrive: nothing lost, memory steady, times measured.

``PIXSIFT_CLIENTS_SECONDS`` sets the length; the first minute warms up.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from faults.consumer_process import ROOT
from faults.stub_aws import StubAws
from ledger_world import image, ledger_of, new_collection
from pixsift.client import Client
from pixsift.core.retrieval import unit

CLIENTS, STREAMS, DIMENSION, STORED = 45, 5, 64, 2000
SECONDS = float(os.environ.get("PIXSIFT_CLIENTS_SECONDS", "600"))
WARM_SECONDS = 60.0


@contextmanager
def server(url: str, aws: StubAws, log: Path) -> Iterator[tuple[str, int]]:
    """``pixsift-server`` as a process of its own: its URL and process id."""
    folders = os.pathsep.join(str(ROOT / name) for name in ("shared", "services", "tests"))
    environment = {
        **aws.environment(), "PATH": os.environ["PATH"], "PYTHONPATH": folders,
        "OMP_NUM_THREADS": "1", "PIXSIFT_MODEL": "stub", "PIXSIFT_DATABASE_URL": url,
        "PIXSIFT_SERVER_PORT": "0", "PIXSIFT_REQUESTS_PER_SECOND": "100000",
    }  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "pixsift_server.main"], env=environment, stdout=stream,
            stderr=stream,
        )  # fmt: skip
        try:
            until, found = time.monotonic() + 120, ""
            while not found:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                ready = [line for line in log.read_text().splitlines() if "server ready" in line]
                found = json.loads(ready[0])["url"] if ready else ""
                time.sleep(0.1)
            yield found, process.pid
        finally:
            process.terminate()
            process.wait(60)


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def ask(url: str, stop: threading.Event, seed: int) -> list[float]:
    """Requests one after the other, with pauses; their seconds. Every answer must be good."""
    chance, taken = random.Random(seed), []
    with httpx.Client(base_url=url, timeout=60) as http:
        while not stop.is_set():
            number = chance.randrange(1, STORED)
            path, body = chance.choice([
                ("/v1/collections/c/images?limit=50", None),
                ("/v1/collections/c/images?outcome=kept&limit=20", None),
                (f"/v1/images/{number}", None), ("/v1/status", None),
                (f"/v1/images/{number}/neighbors?collection=c&k=20", None),
                ("/v1/collections/c/facets/robot", None),
                ("/v1/search", {"collection": "c", "examples": [{"object_id": number}], "k": 50}),
                ("/v1/search", {"collection": "c", "k": 20, "examples": [{"object_id": number}],
                                "where": {"attributes": {"robot": ["r3"]}}}),
            ])  # fmt: skip
            began = time.monotonic()
            answer = http.get(path) if body is None else http.post(path, json=body)
            taken.append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
            stop.wait(chance.uniform(0.2, 0.8))
    return taken


def follow(url: str, last_seq: threading.Event, target: list[int], begun: int) -> int:
    """How many decisions one stream reports, until it has seen the last turn."""
    told, at = 0, begun
    with Client(url) as client:
        stream: Any = client.events()
        for _, event, data in stream:
            if event == "decisions":
                assert data["from_seq"] == at, "a gap, or something twice"
                told, at = told + sum(data["counts"].values()), data["to_seq"]
            if last_seq.is_set() and at >= target[0]:
                break
        stream.close()
    return told


@pytest.mark.full
def test_server__fifty_clients_while_images_arrive(database_url: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    with StubAws() as aws, ledger_of(database_url) as ledger:
        collection = new_collection(
            ledger, dimension=DIMENSION, epsilon=0.0, key_pattern=r"(?P<robot>[^/]+)/.*"
        )
        rows = unit(chance.standard_normal((STORED, DIMENSION))).astype(np.float16)
        for start in range(0, STORED, 500):
            ledger.commit(collection, [image(f"r{n % 10}/{n}.jpg", rows[n])
                                       for n in range(start, start + 500)])  # fmt: skip
        with (
            server(database_url, aws, tmp_path / "log") as (url, pid),
            ThreadPoolExecutor(CLIENTS + STREAMS) as pool,
        ):
            stop, ended, target = threading.Event(), threading.Event(), [0]
            seq = ledger.collection("c").seq
            followers = [pool.submit(follow, url, ended, target, seq) for _ in range(STREAMS)]
            time.sleep(3)
            asking = [pool.submit(ask, url, stop, seed) for seed in range(CLIENTS)]
            began, sent, warm, most = time.monotonic(), 0, 0, 0
            while (passed := time.monotonic() - began) < SECONDS:
                more = unit(chance.standard_normal((8, DIMENSION))).astype(np.float16)
                ledger.commit(collection, [image(f"r3/new-{sent + n}.jpg", row)
                                           for n, row in enumerate(more)])  # fmt: skip
                sent += len(more)
                if passed < WARM_SECONDS:
                    warm = max(warm, resident_bytes(pid))
                most = max(most, resident_bytes(pid))
                time.sleep(0.5)
            stop.set()
            taken = np.sort(np.concatenate([each.result(120) for each in asking]))
            target[0] = ledger.collection("c").seq
            ended.set()
            ledger.commit(collection, [image("r3/last.jpg", unit(
                chance.standard_normal((1, DIMENSION))).astype(np.float16)[0])])  # fmt: skip
            told = [each.result(120) for each in followers]
            now = resident_bytes(pid)
        figures = {
            "seconds": SECONDS, "requests": len(taken), "arrived": sent,
            "p50_ms": 1e3 * float(np.quantile(taken, 0.5)),
            "p99_ms": 1e3 * float(np.quantile(taken, 0.99)),
            "memory_warm_mb": warm / 1e6, "memory_end_mb": now / 1e6, "memory_most_mb": most / 1e6,
        }  # fmt: skip
        print(json.dumps(figures))  # noqa: T201
        assert all(sent <= each <= sent + 1 for each in told), (told, sent)
        assert now <= 1.05 * warm, figures
