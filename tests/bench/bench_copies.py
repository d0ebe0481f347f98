"""Server-side copies: requests and client CPU per object, compared with ``aws s3 sync``.

Both run as processes of their own against the same counting S3 on this machine, so that CPU is the
client's alone; wall time says little here, as the server shares the cores. Equal answers first:
both must have asked for every object's copy exactly once.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.copy_stub import BODY, keys
from bench.report import publish, table

OBJECTS = int(os.environ.get("PIXSIFT_BENCH_OBJECTS", "2000"))
RUNS = 3
HERE = Path(__file__).resolve().parent
_OURS = "ours"


@dataclass(frozen=True)
class Run:
    """One client over all objects."""

    wall: float
    cpu: float
    requests: dict[str, int]


def main() -> dict[str, Any]:
    """Measure, check, publish; returns the figures."""
    peer = Path(os.environ.get("PIXSIFT_BENCH_PEERS", "")).parent / "aws"
    with subprocess.Popen(
        [sys.executable, str(HERE / "copy_stub.py"), str(OBJECTS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as stub:  # fmt: skip
        assert stub.stdout is not None and stub.stdin is not None
        url = stub.stdout.readline().strip()
        clients: dict[str, Callable[[], Run]] = {
            "pixsift ThreadCopier": lambda: _run([sys.executable, __file__, _OURS], url)
        }
        if peer.exists():
            clients["aws s3 sync"] = lambda: _run(
                [str(peer), "s3", "sync", "s3://raw", "s3://curated", "--only-show-errors"], url
            )
        runs: dict[str, list[Run]] = {name: [] for name in clients}
        for number in range(RUNS + 1):
            for name, client in clients.items():
                found = client()
                assert found.requests.get("copy") == OBJECTS, (name, found.requests)
                if number:  # the first round warms the caches
                    runs[name].append(found)
        stub.stdin.close()
    figures = {name: _figures(several) for name, several in runs.items()}
    publish("copies", {"objects": OBJECTS, **figures}, _text(figures))
    return figures


def copy_all() -> None:
    """The client under test: this process copies every object, as the curator does."""
    import threading

    from pixsift.adapters.aws.thread_copier import ThreadCopier
    from pixsift.core.copyplan import CopyItem
    from pixsift.core.identity import ObjectVersion

    digest = sha256(BODY).digest()
    items = [
        CopyItem(rank, rank, ObjectVersion("raw", key, "v1"), "5ef7ba61cbb1ca5fe0b5f5ff2d2a4a4c",
                 len(BODY), digest, "train", f"data/train/{key}")
        for rank, key in enumerate(keys(OBJECTS))
    ]  # fmt: skip
    results = list(ThreadCopier("curated").copy(items, prefix="s/1/", stop=threading.Event()))
    assert len(results) == OBJECTS
    assert all(result.checksum == f"sha256:{digest.hex()}" for result in results)


def _run(command: list[str], url: str) -> Run:
    environment = {
        **os.environ, "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "PIXSIFT_BENCH_OBJECTS": str(OBJECTS),
    }  # fmt: skip
    _counts(url)
    before, started = _children_cpu(), time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    return Run(time.perf_counter() - started, _children_cpu() - before, _counts(url))


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/_counts") as answer:  # noqa: S310 - our own stub
        found: dict[str, int] = json.loads(answer.read())
    return found


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _figures(runs: list[Run]) -> dict[str, Any]:
    return {
        "wall": statistics.median(run.wall for run in runs),
        "cpu": statistics.median(run.cpu for run in runs),
        "cpu_spread": [min(run.cpu for run in runs), max(run.cpu for run in runs)],
        "requests_per_object": sum(runs[0].requests.values()) / OBJECTS,
        "requests": runs[0].requests,
    }


def _text(figures: dict[str, dict[str, Any]]) -> str:
    ours = figures["pixsift ThreadCopier"]["cpu"]
    rows = [
        (name, f["requests_per_object"], 1000 * f["cpu"] / OBJECTS,
         f"{f['cpu_spread'][0]:.2f}-{f['cpu_spread'][1]:.2f}", f["cpu"] / ours, f["wall"],
         ", ".join(f"{count} {kind}" for kind, count in sorted(f["requests"].items())))
        for name, f in figures.items()
    ]  # fmt: skip
    head = ("client", "requests / object", "client CPU, ms / object", "CPU s, spread", "ratio",
            "wall s", "requests")  # fmt: skip
    notes = (
        f"{OBJECTS} objects of {len(BODY)} bytes, start of the process included, {RUNS} runs each "
        "in turn. Ours also checks S3's SHA-256 of every copy and pins its version."
    )
    return f"{table(head, rows)}\n\n{notes}"


if __name__ == "__main__":
    if sys.argv[1:] == [_OURS]:
        copy_all()
    else:
        main()
