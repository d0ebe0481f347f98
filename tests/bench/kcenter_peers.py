"""Other implementations of farthest-first traversal, for comparison.

Run as a script (by a peer's own interpreter): ``kcenter_peers.py ROWS.npy START K`` times
lightly-mundig and prints JSON.
"""

import json
import sys
import time
from array import array
from typing import Any

import numpy as np


def textbook_seconds(rows: Any, k: int, *, start: int, picks: int) -> tuple[float, list[int]]:
    """The obvious loop, as anomalib and others have it: seconds for k, measured over ``picks``.

    Its cost per pick does not change, so the first picks tell the whole.
    """
    begin = time.perf_counter()
    nearest = np.linalg.norm(rows - rows[start], axis=1)
    centers = [start]
    while len(centers) < picks:
        pick = int(np.argmax(nearest))
        centers.append(pick)
        nearest = np.minimum(nearest, np.linalg.norm(rows - rows[pick], axis=1))
    return (time.perf_counter() - begin) * k / picks, centers


def one_at_a_time_seconds(rows: Any, k: int, *, start: int, picks: int) -> tuple[float, list[int]]:
    """The tuned loop: one matrix-vector product per pick, nothing allocated."""
    begin = time.perf_counter()
    squares = np.einsum("ij,ij->i", rows, rows)
    nearest = np.full(len(rows), np.inf, np.float32)
    found = np.empty(len(rows), np.float32)
    centers: list[int] = []
    pick = start
    while len(centers) < picks:
        centers.append(pick)
        np.matmul(rows, rows[pick], out=found)
        found *= -2
        found += squares
        found += squares[pick]
        np.minimum(nearest, found, out=nearest)
        nearest[pick] = 0
        pick = int(np.argmax(nearest))
    return (time.perf_counter() - begin) * k / picks, centers


def _mundig(path: str, start: int, k: int) -> dict[str, Any]:
    import lightly_mundig

    rows = np.load(path)
    selection = lightly_mundig.Selection()
    begin = time.perf_counter()
    selection.add_diversifying_strategy([array("f", row.tobytes()) for row in rows], 1.0)
    taken_in = time.perf_counter()
    centers = selection.run_selection([start], len(rows), k)
    done = time.perf_counter()
    return {"seconds": done - taken_in, "taking_in": taken_in - begin, "centers": centers}


if __name__ == "__main__":
    json.dump(_mundig(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
