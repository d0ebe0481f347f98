"""Folders as queries: the modes' parameters chosen on some classes, reported on others.

    python tests/bench/run.py folders

../shared/data/photos/clothing, EfficientNet-Lite0. A folder is 5 random images of each of 1, 2 or 3
classes; the collection is every other image of that part's classes; 10 results per class. Reported
are the precision, and the share of the places that the least served class of the folder got (an
even share is 1, .5 and .333). The part ``chosen on`` holds five classes and is where linkage and
shared weight are compared; ``reported on`` holds the five others.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import publish, table
from clothing import clothing_pool
from pixsift.core.retrieval import LINKAGE, SHARED, centered, grouped, ranked, scores, unit

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos" / "clothing"
DRAWS, PER_CLASS, FOUND = 120, 5, 10
Vectors = NDArray[np.float64]
Aim = Callable[[Vectors, Vectors], tuple[Vectors, bool]]
"""Examples and the collection's mean -> aims, and whether they take turns."""


def main() -> None:
    """Measure and publish."""
    if not PHOTOS.is_dir():
        sys.exit(f"no real images: {PHOTOS} is absent")
    pool = clothing_pool(PHOTOS)
    rows = unit(pool.rows.take(np.arange(pool.rows.count)))
    column = pool.facts.attributes["class"]
    classes = np.array([column.values[code] for code in column.codes])
    names = sorted(set(classes.tolist()))
    parts = {"chosen on": names[0::2], "reported on": names[1::2]}
    ways: dict[str, Aim] = {
        "nearest to any image": lambda q, m: (q, False),
        "mean vector": lambda q, m: (q.mean(axis=0)[None], True),
        "each image in turn": lambda q, m: (q, True),
        "mean, collection's mean taken out": _modes(2.0, 0.0),
    }
    for linkage in (0.8, 0.85, 0.9, 0.95):
        for shared in (0.0, 0.1, 0.2, 0.4):
            ways[f"groups at {linkage}, {shared} of the whole"] = _modes(linkage, shared)
    shipped = f"groups at {LINKAGE}, {SHARED} of the whole"
    figures: dict[str, Any] = {"shipped": shipped}
    for part, chosen in parts.items():
        inside = np.isin(classes, chosen)
        for name, aim in ways.items():
            figures[f"{part}: {name}"] = _measure(rows[inside], classes[inside], aim)
    publish("folders", figures, _text(figures, list(parts), list(ways)))


def _modes(linkage: float, shared: float) -> Aim:
    def aims(examples: Vectors, mean: Vectors) -> tuple[Vectors, bool]:
        rest = centered(examples, mean)
        whole = shared * rest.sum(axis=0)
        groups = grouped(rest, linkage)
        return unit(np.stack([rest[group].sum(axis=0) + whole for group in groups])), True

    return aims


def _measure(rows: Vectors, classes: NDArray[np.str_], aim: Aim) -> list[list[float]]:
    """For folders of 1, 2 and 3 classes: precision, and the share of the least served class."""
    names, told = sorted(set(classes.tolist())), []
    for count in (1, 2, 3):
        chance = np.random.default_rng(100 + count)
        precision, least = [], []
        for _ in range(DRAWS):
            wanted = chance.choice(names, count, replace=False)
            folder = np.concatenate([
                chance.choice(np.flatnonzero(classes == name), PER_CLASS, replace=False)
                for name in wanted
            ])  # fmt: skip
            others = np.setdiff1d(np.arange(len(rows)), folder)
            aims, in_turn = aim(rows[folder], rows[others].mean(axis=0))
            best, _ = ranked(scores(rows[others], aims, rows[:0]), FOUND * count, in_turn=in_turn)
            found = classes[others[best]]
            precision.append(float(np.isin(found, wanted).mean()))
            least.append(min(float((found == name).mean()) for name in wanted))
        told.append([float(np.mean(precision)), float(np.mean(least))])
    return told


def _text(figures: dict[str, Any], parts: Sequence[str], ways: Sequence[str]) -> str:
    shown = []
    for part in parts:
        lines = []
        for way in ways:
            (one, _), (two, least_two), (three, least_three) = figures[f"{part}: {way}"]
            mark = " (shipped)" if way == figures["shipped"] else ""
            lines.append([way + mark, f"{one:.3f}", f"{two:.3f} / {least_two:.3f}",
                          f"{three:.3f} / {least_three:.3f}"])  # fmt: skip
        shown.append(f"{part}\n\n" + table(["way", "1 class", "2 classes", "3 classes"], lines))
    return "\n\n".join(shown)


if __name__ == "__main__":
    main()
