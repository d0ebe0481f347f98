"""k-center compared with the textbook loop, a tuned loop and lightly-mundig; memory; a million
rows.

    python tests/bench/bench_kcenter.py            n = 100,000 and 200,000, and memory at 500,000
    python tests/bench/bench_kcenter.py million    n = 1,000,000, k = 10,000 as well (minutes)

The order of every traversal is verified in float64 before a figure counts.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench.kcenter_peers import one_at_a_time_seconds, textbook_seconds
from bench.report import Timing, peak_memory_bytes, publish, table, timed
from pixsift.adapters.ledger.spill_rows import SpillRows
from pixsift.core.choosing.kcenter import Traversal, k_center_greedy
from pixsift.core.choosing.rows import ArrayRows, Indices

Rows = NDArray[np.float32]
DIMENSION, CLUSTERS, RUNS = 384, 2000, 3


def main() -> dict[str, Any]:
    """Measure, print, publish."""
    speed = {f"{n} x {k}": _speed(n, k) for n, k in ((100_000, 1_000), (200_000, 4_000))}
    figures: dict[str, Any] = {"speed": speed}
    figures["memory"] = _memory(500_000, 1_000)
    if "million" in sys.argv[1:]:
        figures["million"] = _million()
    publish("kcenter", figures, _text(figures))
    return figures


def make_rows(count: int, *, seed: int = 1) -> Rows:
    """(N, 384) unit rows around 2,000 centers, made block by block."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(CLUSTERS, DIMENSION)).astype(np.float32)
    rows = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, 50_000):
        part = rows[start : start + 50_000]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= 0.6
        part += centers[rng.integers(CLUSTERS, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def verify(rows: Rows, found: Traversal) -> int:
    """Check that every pick is the farthest row at its turn, to 1e-12 in float64.

    Returns how many picks had a rival within 1e-12 (k-center settles those by exact value).
    """
    picks = found.centers
    points = rows[picks].astype(np.float64)
    squares = np.square(points).sum(axis=1)
    top = np.full(len(picks), -np.inf)
    rivals = np.zeros(len(picks), dtype=int)
    own = np.empty(len(picks))
    turn = {int(pick): at for at, pick in enumerate(picks)}
    for rounds in range(2):
        for start in range(0, len(rows), 1024):
            block = rows[start : start + 1024].astype(np.float64)
            far = squares[:, None] - 2 * points @ block.T + np.square(block).sum(axis=1)
            np.minimum.accumulate(far, axis=0, out=far)
            for column in range(len(block)):
                at = turn.get(start + column)
                if at:
                    own[at] = far[at - 1, column]
                    far[at:, column] = -np.inf
            if rounds:
                rivals[1:] += (far[:-1] >= top[1:, None] - 1e-12).sum(axis=1)
            else:
                np.maximum(top[1:], far[:-1].max(axis=1), out=top[1:])
    if (own[1:] < top[1:] - 1e-12).any():
        raise AssertionError("a pick was not the farthest row")
    return int((rivals[1:] > 1).sum())


def _speed(count: int, k: int) -> dict[str, Any]:
    rows = make_rows(count)
    found = k_center_greedy(rows, k, start=0)
    ties = verify(rows, found)
    ours, tuned, naive = [], [], []
    order: list[int] = []
    for _ in range(RUNS):  # in turn, so that a drifting machine hits all
        ours.append(timed(lambda: k_center_greedy(rows, k, start=0), runs=1, warmup=0).median)
        seconds, order = one_at_a_time_seconds(rows, k, start=0, picks=min(k, 300))
        tuned.append(seconds)
        naive.append(textbook_seconds(rows, k, start=0, picks=8)[0])
    peer = _mundig(rows, k)
    return {
        "n": count, "k": k, "passes": found.passes, "covering_radius": found.covering_radius,
        "picks_with_a_rival_within_1e-12": ties,
        "pixsift": _timing(ours), "tuned_loop": _timing(tuned), "textbook_loop": _timing(naive),
        "over_textbook": _timing(naive).median / _timing(ours).median,
        "over_tuned": _timing(tuned).median / _timing(ours).median,
        "tuned_loop_same_order": _same_order(rows, order, found.centers),
        "matrix_product_seconds": _product_seconds(rows, k),
        "mundig": _compared(rows, peer, found),
    }  # fmt: skip


def _same_order(rows: Rows, order: list[int], centers: Indices) -> str:
    """How many picks of the float32 loop are ours; at the first that is not, two rows must tie.

    Raises AssertionError where they do not: then one of the two is wrong.
    """
    at = next((i for i, pick in enumerate(order) if pick != centers[i]), None)
    if at is None:
        return f"all {len(order)}"
    chosen = rows[centers[:at]].astype(np.float64)
    theirs, ours = (
        float(np.square(chosen - rows[pick]).sum(axis=1).min()) for pick in (order[at], centers[at])
    )
    if not theirs <= ours <= theirs + 1e-5:
        raise AssertionError(f"pick {at} of the tuned loop lies at {theirs}, ours at {ours}")
    return f"{at} of {len(order)}, then a tie within float32"


def _timing(seconds: list[float]) -> Timing:
    ordered = sorted(seconds)
    return Timing(ordered[len(ordered) // 2], ordered[0], ordered[-1], 0.0, len(ordered))


def _product_seconds(rows: Rows, k: int) -> float:
    """What the bare matrix products of n x k x d would take on this machine, now."""
    centers, sample = rows[:256].copy(), rows[:65_536]
    out = np.empty((256, 4096), np.float32)

    def multiply() -> None:
        for start in range(0, len(sample), 4096):
            np.matmul(centers, sample[start : start + 4096].T, out=out)

    return timed(multiply, runs=5).median * (len(rows) / len(sample)) * (k / 256)


def _mundig(rows: Rows, k: int) -> dict[str, Any] | None:
    python = os.environ.get("PIXSIFT_BENCH_PEERS")
    if not python:
        return None  # the table says "absent"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, rows)
        script = Path(__file__).with_name("kcenter_peers.py")
        done = subprocess.run([python, str(script), str(path), "0", str(k)],
                              capture_output=True, text=True, check=True)  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _compared(rows: Rows, peer: dict[str, Any] | None, found: Traversal) -> dict[str, Any] | None:
    if peer is None:
        return None
    theirs = np.array(peer["centers"], dtype=np.intp)
    nearest = np.full(len(rows), np.inf, np.float32)
    ArrayRows(rows).lower(nearest, rows[theirs].astype(np.float64))
    nearest[theirs] = 0
    return {
        "seconds": peer["seconds"],
        "taking_in_seconds": peer["taking_in"],
        "covering_radius": float(np.sqrt(nearest.max())),
        "same_place": int((theirs == found.centers).sum()),
        "same_set": int(np.intersect1d(theirs, found.centers).size),
    }


def _memory(count: int, k: int) -> dict[str, Any]:
    """Peak memory in processes of their own, and the same picks under a hard cap."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "rows.npy", make_rows(count))
        # Both read the same float16 values, so that the picks can be compared. The limit counts
        # what every BLAS thread reserves and never touches: one thread.
        matrix = count * DIMENSION * 4
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):
            whole = _in_process(_whole, path, k)
            capped = _in_process(_capped, path, k, matrix // 4)
    return {
        "n": count, "k": k, "matrix_bytes": matrix,
        "in_memory_peak": whole["peak"], "in_memory_ratio": whole["peak"] / matrix,
        "capped_peak": capped["peak"], "capped_ratio": capped["peak"] / matrix,
        "same_picks": whole["centers"] == capped["centers"], "seconds": whole["seconds"],
        "capped_seconds": capped["seconds"], "passes": capped["passes"],
        "bytes_per_pass": capped["bytes_per_pass"],
    }  # fmt: skip


def _in_process(work: Any, *arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: dict[str, Any] = pool.apply(work, arguments)
    return found


def _whole(folder: Path, k: int) -> dict[str, Any]:
    rows = np.load(folder / "rows.npy")
    for start in range(0, len(rows), 10_000):  # to what float16 holds, in place
        rows[start : start + 10_000] = rows[start : start + 10_000].astype(np.float16)
    return _run(ArrayRows(rows), k)


def _capped(folder: Path, k: int, limit: int) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    stored = np.load(folder / "rows.npy", mmap_mode="r")
    rows = SpillRows(folder, DIMENSION)
    for start in range(0, len(stored), 10_000):
        rows.append(stored[start : start + 10_000].astype(np.float16))
    del stored
    # The pages of the map that filled the file do not count as memory of the traversal.
    Path("/proc/self/clear_refs").write_text("5")
    return _run(rows, k)


def _run(source: ArrayRows | SpillRows, k: int) -> dict[str, Any]:
    begin = time.perf_counter()
    found = k_center_greedy(source, k, start=0)
    return {
        "seconds": time.perf_counter() - begin, "peak": _peak(), "centers": found.centers.tolist(),
        "passes": found.passes, "bytes_per_pass": source.bytes_per_pass,
    }  # fmt: skip


def _peak() -> int:
    """Highest resident set since it was last reset; getrusage cannot be reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return peak_memory_bytes()


def _million() -> dict[str, Any]:
    rows = make_rows(1_000_000)
    begin = time.perf_counter()
    found = k_center_greedy(rows, 10_000, start=0)
    seconds = time.perf_counter() - begin
    limit = _product_seconds(rows, 10_000)
    return {"n": 1_000_000, "k": 10_000, "seconds": seconds, "passes": found.passes,
            "matrix_product_seconds": limit, "over_limit": seconds / limit,
            "covering_radius": found.covering_radius,
            "peak_ratio": _peak() / rows.nbytes}  # fmt: skip


def _text(figures: dict[str, Any]) -> str:
    rows = []
    for f in figures["speed"].values():
        peer = f["mundig"]
        rows.append([
            f"{f['n']:,} x {DIMENSION}, k={f['k']:,}", f["pixsift"].median, f["passes"],
            f["matrix_product_seconds"], f["tuned_loop"].median, f"{f['over_tuned']:.1f}x",
            f["textbook_loop"].median, f"{f['over_textbook']:.1f}x",
            peer["seconds"] if peer else "absent",
            f"{peer['seconds'] / f['pixsift'].median:.1f}x" if peer else "",
        ])  # fmt: skip
    text = table(
        ["rows", "pixsift s", "passes", "bare products s", "tuned loop s", "", "textbook loop s",
         "", "lightly-mundig s", ""], rows,
    )  # fmt: skip
    m = figures["memory"]
    text += (
        f"\n\nMemory at {m['n']:,} x {DIMENSION}, k={m['k']:,}, against the float32 matrix: "
        f"{m['in_memory_ratio']:.2f}x in memory ({m['seconds']:.1f} s); from a float16 file under "
        f"a cap of 0.25x: {m['capped_ratio']:.2f}x ({m['capped_seconds']:.1f} s, {m['passes']} "
        f"passes of {m['bytes_per_pass'] / 1e6:.0f} MB), same picks: {m['same_picks']}."
    )
    if "million" in figures:
        f = figures["million"]
        text += (
            f"\n\nn=1,000,000, k=10,000: {f['seconds']:.0f} s, {f['passes']} passes, "
            f"{f['over_limit']:.2f}x the bare matrix products ({f['matrix_product_seconds']:.0f} s)"
            f", peak memory {f['peak_ratio']:.2f}x the matrix."
        )
    return text


if __name__ == "__main__":
    main()
