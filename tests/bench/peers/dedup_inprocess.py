"""hnswlib and FAISS flat in process, nothing durable: python dedup_inprocess.py DATA.npz EPSILON.

Prints JSON: decisions per second and how many decisions differ from the exact ones.
"""

import json
import sys
import time
from typing import Any

import faiss
import hnswlib
import numpy as np

Rows = Any
"""numpy arrays; this file runs in an environment without our checks."""

BATCH = 64


def main() -> None:
    data = np.load(sys.argv[1])
    epsilon = float(sys.argv[2])
    stored = unit(data["stored"])
    arriving = unit(data["arriving"])
    truth = data["is_kept"]
    threads = int(sys.argv[3])
    faiss.omp_set_num_threads(threads)
    found = {
        "faiss_flat": run(FaissFlat(stored), arriving, truth, epsilon),
        "hnswlib": run(Hnswlib(stored, len(arriving), threads), arriving, truth, epsilon),
    }
    print(json.dumps(found))  # noqa: T201


def unit(halves: Rows) -> Rows:
    wide = halves.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


class FaissFlat:
    """Exact; the batch is searched at once and compared within itself."""

    def __init__(self, stored: Rows) -> None:
        self.index = faiss.IndexFlatIP(stored.shape[1])
        self.index.add(stored)

    def nearest(self, batch: Rows) -> Rows:
        similarity, _ = self.index.search(batch, 1)
        return 1 - similarity[:, 0]

    def add(self, kept: Rows) -> None:
        self.index.add(kept)


class Hnswlib:
    """With the parameters of our HNSW body, inserting inline."""

    def __init__(self, stored: Rows, more: int, threads: int) -> None:
        self.index = hnswlib.Index("ip", stored.shape[1])
        self.index.init_index(len(stored) + more, M=16, ef_construction=400)
        self.index.set_num_threads(threads)
        self.index.add_items(stored)
        self.index.set_ef(200)

    def nearest(self, batch: Rows) -> Rows:
        _, distances = self.index.knn_query(batch, k=1)
        return distances[:, 0]

    def add(self, kept: Rows) -> None:
        self.index.add_items(kept)


def run(index: FaissFlat | Hnswlib, arriving: Rows, truth: Rows, eps: float) -> dict[str, Any]:
    decided = np.zeros(len(arriving), bool)
    started = time.perf_counter()
    for start in range(0, len(arriving), BATCH):
        batch = arriving[start : start + BATCH]
        nearest = index.nearest(batch)
        among = 1 - batch @ batch.T
        keep: list[int] = []
        for i in range(len(batch)):
            if nearest[i] > eps and not (among[i, keep] <= eps).any():
                keep.append(i)
        decided[start : start + BATCH][keep] = True
        if keep:
            index.add(batch[keep])
    seconds = time.perf_counter() - started
    return {
        "decisions_per_second": len(arriving) / seconds,
        "wrong": int((decided != truth).sum()),
    }


if __name__ == "__main__":
    main()
