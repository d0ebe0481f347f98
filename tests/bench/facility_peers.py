"""Facility location by others, run by their own interpreter: ``facility_peers.py PEER ROWS.npy K``.

Prints JSON: seconds of the choice alone, seconds to make the matrix before, the value reached.
"""

import json
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np


def main() -> dict[str, Any]:
    """Choose with one peer."""
    peer, path, k = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = np.load(path).astype(np.float32)
    begin = time.perf_counter()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similar = (1 + rows @ rows.T) / 2
    if peer == "apricot":
        similar = similar.astype(np.float64)
    made = time.perf_counter() - begin
    choose = _apricot if peer == "apricot" else _submodlib
    picks, seconds = choose(similar, k)
    value = float(similar[:, picks].max(axis=1).mean())
    return {"seconds": seconds, "matrix_seconds": made, "value": value}


def _apricot(similar: Any, k: int) -> tuple[list[int], float]:
    selection = import_module("apricot").FacilityLocationSelection
    # What it compiles on first use is not charged.
    selection(2, metric="precomputed", optimizer="lazy").fit(similar[:50, :50])
    begin = time.perf_counter()
    model = selection(k, metric="precomputed", optimizer="lazy").fit(similar)
    return [int(i) for i in model.ranking], time.perf_counter() - begin


def _submodlib(similar: Any, k: int) -> tuple[list[int], float]:
    function = import_module("submodlib").FacilityLocationFunction
    begin = time.perf_counter()
    model = function(n=len(similar), mode="dense", sijs=similar, separate_rep=False)
    found = model.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)
    return [int(i) for i, _ in found], time.perf_counter() - begin


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
