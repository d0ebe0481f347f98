"""Coverage of a selection of real photographs, compared with random and stratified random choices.

The figures of random choices are means over many seeds.
"""

import sys
from pathlib import Path
from statistics import mean
from typing import Any

from bench.report import publish, table
from clothing import clothing_pool
from pixsift.core.choosing.coverage import Comparison, compare
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.sampling import select
from pixsift.messages import Quota, Select

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos" / "clothing"
SIZES, SEEDS = (10, 20, 50, 100), 20


def main() -> dict[str, Any]:
    """Measure, print, publish."""
    if not PHOTOS.is_dir():
        sys.exit(f"no real images: {PHOTOS} is absent")
    pool = clothing_pool(PHOTOS)
    figures = {str(k): _at(pool, k) for k in SIZES}
    publish("coverage", {"images": pool.object_ids.size, "at": figures}, _text(pool, figures))
    return figures


def _at(pool: Pool, k: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[Comparison]] = {"k_center": [], "balanced": [], "stratified": []}
    for seed in range(SEEDS):
        for strategy, compared in found.items():
            quota = Quota(by="class") if strategy == "stratified" else None
            asked = Select.model_validate({"strategy": strategy, "k": k, "seed": seed,
                                           "quota": quota})  # fmt: skip
            compared.append(compare(pool, select(pool, asked), by="class", seed=seed))
    chance = found["k_center"]
    ways = {name: [c.selection for c in each] for name, each in found.items()}
    ways |= {"random": [c.random for c in chance],
             "stratified random": [c.stratified_random for c in chance]}  # fmt: skip
    return {
        name: {
            "covering_radius": mean(c.covering_radius for c in coverages),
            "mean_distance": mean(c.mean_distance for c in coverages),
            "classes": mean(c.curve[-1].strata_covered for c in coverages),
        }
        for name, coverages in ways.items()
    }


def _text(pool: Pool, figures: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = [
        [k, name, f["covering_radius"], f["mean_distance"], f"{f['classes']:.1f}"]
        for k, ways in figures.items()
        for name, f in ways.items()
    ]
    classes = len(pool.facts.attributes["class"].values)
    heading = (
        f"{pool.object_ids.size} photographs of {classes} classes, EfficientNet-Lite0, means over "
        f"{SEEDS} seeds; cosine distance.\n\n"
    )
    return heading + str(
        table(["k", "way", "covering radius", "mean distance", "classes covered"], rows)
    )


if __name__ == "__main__":
    main()
