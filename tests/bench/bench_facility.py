"""Facility location, the bare similarity products, apricot-select and submodlib.

    python tests/bench/bench_facility.py                     2,000 to 10,000 rows, and peers
    python tests/bench/bench_facility.py 100000 5000         so many rows, so many picks
    python tests/bench/bench_facility.py 100000 5000 pruned  the same, pruned to what memory holds
    python tests/bench/bench_facility.py 20000 1000 peers    the same, and peers

The bare products are all N² similarities once, in float32, in the same process just before. Peers
choose from a matrix that is made for them; that time is listed separately. The objective that each
reaches is compared.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.bench_kcenter import make_rows
from bench.report import peak_memory_bytes, publish, table, timed
from pixsift.core.choosing.facility import MEMORY_BYTES, facility_location
from pixsift.core.choosing.rows import ArrayRows

_WITH_PEERS = ((2_000, 200), (5_000, 500), (10_000, 1_000))
_PEER_SECONDS = 600
"""A peer that takes longer does not finish."""
_TILE = 1024


def main() -> dict[str, Any]:
    """Measure, print, publish."""
    given = [int(text) for text in sys.argv[1:] if text.isdigit()]
    is_pruned = "pruned" in sys.argv
    sizes = [(given[0], given[1])] if len(given) == 2 else _WITH_PEERS
    figures = {
        f"{n} x {k}{', pruned' if is_pruned else ''}": _measured(
            n, k, is_pruned=is_pruned, with_peers=len(given) != 2 or "peers" in sys.argv
        )
        for n, k in sizes
    }
    publish("facility", figures, _text(figures))
    return figures


def _measured(count: int, k: int, *, is_pruned: bool, with_peers: bool) -> dict[str, Any]:
    rows = make_rows(count)
    neighbors = int(0.7 * MEMORY_BYTES / 9 / count) if is_pruned else None
    bare = timed(lambda: _products(rows), runs=1, warmup=0)
    found = []
    ours = timed(
        lambda: found.append(facility_location(ArrayRows(rows), k, neighbors=neighbors)),
        runs=1, warmup=0,
    )  # fmt: skip
    choice = found[0]
    return {
        "bare_seconds": bare.median,
        "seconds": ours.median,
        "ratio": ours.median / bare.median,
        "value": choice.value,
        "share_of_optimum": choice.value / choice.best_possible,
        "pruned_loss": choice.pruned_loss,
        "passes": choice.passes,
        "products": choice.products,
        "gains_measured": choice.evaluations,
        "peak_bytes": peak_memory_bytes(),
        "peers": _peers(rows, k, choice.value, ours.median) if with_peers else {},
    }


def _products(rows: NDArray[np.float32]) -> None:
    for start in range(0, len(rows), _TILE):
        for low in range(0, len(rows), _TILE):
            rows[start : start + _TILE] @ rows[low : low + _TILE].T


def _peers(rows: NDArray[np.float32], k: int, value: float, seconds: float) -> dict[str, Any]:
    python = os.environ.get("PIXSIFT_BENCH_PEERS")
    if not python:
        return {"all": "left out: PIXSIFT_BENCH_PEERS is not set"}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, rows)
        for peer in ("apricot", "submodlib"):
            found[peer] = _peer(python, peer, path, k)
            if isinstance(found[peer], dict):
                found[peer]["differs_by"] = found[peer]["value"] - value
                found[peer]["times_ours"] = found[peer]["seconds"] / seconds
    return found


def _peer(python: str, peer: str, path: Path, k: int) -> Any:
    script = Path(__file__).with_name("facility_peers.py")
    try:
        done = subprocess.run(
            [python, str(script), peer, str(path), str(k)], capture_output=True, text=True,
            check=False, timeout=_PEER_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"does not finish in {_PEER_SECONDS} s"
    if done.returncode:
        return f"does not run: {done.stderr.strip().splitlines()[-1:]}"
    return json.loads(done.stdout.splitlines()[-1])


def _text(figures: dict[str, Any]) -> str:
    header = ["rows x k", "bare products s", "ours s", "ratio", "products", "value",
              "share of optimum", "pruned loss", "peak GB", "peers"]  # fmt: skip
    rows = [
        [name, f"{f['bare_seconds']:.2f}", f"{f['seconds']:.2f}", f"{f['ratio']:.2f}",
         f"{f['products']:.2f}", f"{f['value']:.5f}", f"{f['share_of_optimum']:.4f}",
         f"{f['pruned_loss']:.5f}", f"{f['peak_bytes'] / 2**30:.2f}", _told(f["peers"])]
        for name, f in figures.items()
    ]  # fmt: skip
    return str(table(header, rows))


def _told(peers: dict[str, Any]) -> str:
    return "; ".join(
        f"{name} {found['seconds']:.2f} s (matrix {found['matrix_seconds']:.2f} s), "
        f"{found['times_ours']:.1f} x, value {found['differs_by']:+.1e}"
        if isinstance(found, dict) else f"{name} {found}"
        for name, found in peers.items()
    )  # fmt: skip


if __name__ == "__main__":
    main()
