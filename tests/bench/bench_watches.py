"""What a thousand watches add to an arrival: paired batches, with and without.

    python tests/bench/run.py watches

Two collections of the same 10,000 stored vectors, one with 1,000 watches of two modes each that
match few arrivals. Batches of 64 go to both in turn, in durable transactions. The arrival path is
that and what comes before it, decoding and embedding (EfficientNet-Lite0, photographs of 0.2
megapixel), measured in the same run.
"""

import argparse
import sys
import time
from typing import Any

import numpy as np

from bench import dedup_world as world
from bench.bench_pipeline import photo
from bench.report import publish, table
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.watch_rows import NewWatch, WatchRows
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.images import DecodedImage

STORED, CLUSTERS, BATCH = 10_000, 100, 64
WATCHES, MODES, WITHIN = 1000, 2, 0.08


def main() -> None:
    """Measure and publish; exit 1 where a thousand watches add more than 5 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=40)
    batches = parser.parse_args().batches
    stored = world.stored_rows(STORED, clusters=CLUSTERS)
    arriving = world.arrivals(stored, BATCH * (batches + 2), clusters=CLUSTERS, seed=5).vectors
    with world.durable_server() as server:
        plain = world.seeded(server.url(), "plain", stored)
        watched = world.seeded(server.url(), "watched", stored)
        with Database(server.url()) as database:
            rows, chance = WatchRows(database), np.random.default_rng(3)
            for number in range(WATCHES):
                rows.add(watched, _watch(number, stored[chance.integers(STORED, size=MODES)]))
            seconds: dict[str, list[float]] = {"plain": [], "watched": []}
            ledgers = {"plain": (Ledger(database), plain), "watched": (Ledger(database), watched)}
            for number in range(batches + 2):
                part = arriving[BATCH * number : BATCH * (number + 1)]
                order = list(ledgers) if number % 2 else list(ledgers)[::-1]
                for name in order:
                    ledger, collection = ledgers[name]
                    items = world.judged(name, part, BATCH * number)
                    began = time.perf_counter()
                    ledger.commit(collection, items)
                    seconds[name].append(time.perf_counter() - began)
            with database.connection() as connection:
                row = connection.execute("SELECT count(*) FROM watch_hit").fetchone()
    before = {name: float(np.median(values[2:])) for name, values in seconds.items()}
    added = float(np.median(np.subtract(seconds["watched"][2:], seconds["plain"][2:])))
    path = _decode_and_embed() + before["plain"]
    figures: dict[str, Any] = {
        "commit_ms": 1e3 * before["plain"], "commit_watched_ms": 1e3 * before["watched"],
        "added_ms": 1e3 * added, "arrival_path_ms": 1e3 * path, "share_of_path": added / path,
        "share_of_commit": added / before["plain"], "hits": row[0] if row else 0,
    }  # fmt: skip
    text = table(
        ["per batch of 64", "ms"],
        [["decision without watches", figures["commit_ms"]],
         [f"decision with {WATCHES} watches of {MODES} modes", figures["commit_watched_ms"]],
         ["median of paired differences", figures["added_ms"]],
         ["arrival path without watches", figures["arrival_path_ms"]]],
    )  # fmt: skip
    text += f"\n\n{figures['hits']} hits; {100 * figures['share_of_path']:.2f} % of the path"
    publish("watches", figures, text)
    sys.exit(figures["share_of_path"] > 0.05)


def _watch(number: int, modes: world.Halves) -> NewWatch:
    return NewWatch(
        name=f"w{number}", max_distance=WITHIN, condition={"flagged": "include"},
        duplicates=False, destination="ledger", examples=[["made"]] * MODES, pixels=[],
        modes=modes, against=modes[:0], created_by="bench",
    )  # fmt: skip


def _decode_and_embed() -> float:
    """Seconds of 64 photographs, median of 3; one decoder process, one model."""
    photos, taken = [photo(n) for n in range(BATCH)], []
    embedder = load_embedder("efficientnet-lite0")
    with DecoderPool(embedder.input_side, workers=1) as decoder:
        for _ in range(4):
            began = time.perf_counter()
            decoded = decoder.decode(photos)
            found = [each.model_input for each in decoded if isinstance(each, DecodedImage)]
            for start in range(0, BATCH, embedder.batch_size):
                embedder.embed(found[start : start + embedder.batch_size])
            taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))


if __name__ == "__main__":
    main()
