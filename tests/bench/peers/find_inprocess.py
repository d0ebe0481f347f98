"""FAISS flat in process: python find_inprocess.py DATA.npz K THREADS.

Prints JSON: milliseconds of one query (median) and of all at once, and what was found.
"""

import json
import sys
import time
from typing import Any

import faiss
import numpy as np

Rows = Any
"""numpy arrays; this file runs in an environment without our checks."""


def main() -> None:
    data, k = np.load(sys.argv[1]), int(sys.argv[2])
    faiss.omp_set_num_threads(int(sys.argv[3]))
    stored, queries = unit(data["stored"]), unit(data["queries"])
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored)
    index.search(queries[:1], k)
    single, found = [], []
    for query in queries:
        began = time.perf_counter()
        _, ids = index.search(query[None], k)
        single.append(time.perf_counter() - began)
        found.append(ids[0].tolist())
    began = time.perf_counter()
    index.search(queries, k)
    batch = time.perf_counter() - began
    print(  # noqa: T201
        json.dumps({
            "single_ms": 1e3 * float(np.median(single)), "batch_ms": 1e3 * batch,
            "found": found, "bytes": int(stored.nbytes),
        })
    )  # fmt: skip


def unit(halves: Rows) -> Rows:
    wide = halves.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
