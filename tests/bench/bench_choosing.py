"""Strategies by what a model learns from them: sets of known structure, and clothing photographs.

    python tests/bench/bench_choosing.py             20 folds of every set
    python tests/bench/bench_choosing.py 5 tail      5 folds of the sets so named

Every fold draws a pool to choose from and other images to test on. Printed per strategy and k: mean
accuracy of a linear probe and of the nearest neighbor, standard error over folds; classes covered,
junk among the first 40, recall of the rare class.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import publish
from clothing import clothing_pool
from pixsift.core.choosing.auto import resolved
from pixsift.core.choosing.probe import nearest, probe
from pixsift.core.choosing.rows import ArrayRows
from pixsift.core.choosing.sampling import select
from pixsift.messages import Select2, Strategy
from pools import make_pool

SHARES = (0.01, 0.04, 0.08, 0.2, 0.4)
STRATEGIES: tuple[Strategy, ...] = (
    "auto", "typical", "balanced", "mixed", "k_center", "farthest", "random",
)  # fmt: skip
_PREFIXES = ("typical", "mixed", "k_center", "farthest", "random")
"""One choice at the largest k holds the smaller ones."""
_CLASSES, _DIMENSION, _POOL, _TESTED = 20, 32, 600, 500
_RARE = _CLASSES - 1
_PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos" / "clothing"


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A pool with its classes (-1: junk), and images to test on."""

    rows: NDArray[np.float16]
    labels: NDArray[np.intp]
    tested: NDArray[np.float64]
    tested_labels: NDArray[np.intp]


def main() -> dict[str, Any]:
    """Measure, print, publish."""
    given = sys.argv[1:]
    folds = int(given[0]) if given and given[0].isdigit() else 20
    names = [name for name in given if not name.isdigit()]
    figures: dict[str, Any] = {}
    text = []
    for name, make in worlds().items():
        if not names or name in names:
            figures[name] = _measured(make, folds)
            text.append(_table(name, folds, figures[name]))
    publish("choosing", figures, "\n\n".join(text))
    return figures


def worlds() -> dict[str, Callable[[int], Fold]]:
    """Sets by name: a fold for a seed."""
    found: dict[str, Callable[[int], Fold]] = {
        "even": lambda seed: _made(seed, "even"),
        "tail": lambda seed: _made(seed, "tail"),
        "bursts": lambda seed: _made(seed, "bursts"),
        "junk": lambda seed: _made(seed, "junk"),
        "rare": lambda seed: _made(seed, "rare"),
    }
    if _PHOTOS.is_dir():
        pool = clothing_pool(_PHOTOS)
        rows, labels = pool.rows.take(np.arange(pool.rows.count)), pool.facts.attributes["class"]
        found["clothing"] = lambda seed: _halved(rows, labels.codes.astype(np.intp), seed)
    return found


def _made(seed: int, kind: str) -> Fold:
    """Classes of four modes each around a common mean; tested on all classes alike."""
    rng = np.random.default_rng([seed, 7])
    base = 0.8 * rng.normal(size=_DIMENSION)
    classes = rng.normal(size=(_CLASSES, 1, _DIMENSION))
    modes = 0.9 * classes + 0.8 * rng.normal(size=(_CLASSES, 4, _DIMENSION))

    def draw(labels: NDArray[np.intp]) -> NDArray[np.float64]:
        spread = rng.gamma(4, 0.25, size=(labels.size, 1))
        noise = spread * rng.normal(size=(labels.size, _DIMENSION))
        return np.asarray(base + modes[labels, rng.integers(4, size=labels.size)] + noise, float)

    labels = rng.integers(_CLASSES, size=_POOL)
    if kind == "tail":
        shares = 1 / np.arange(1, _CLASSES + 1) ** 1.1
        labels = rng.choice(_CLASSES, _POOL, p=shares / shares.sum())
    if kind == "rare":
        labels = rng.integers(_RARE, size=_POOL)
        labels[: _POOL // 200] = _RARE  # 0.5 %
    if kind == "bursts":  # of one to sixty frames
        lengths = np.minimum(rng.zipf(1.7, size=_POOL), 60)
        scenes = np.repeat(np.arange(_POOL), lengths)[:_POOL]
        rows = draw(labels)[scenes] + 0.25 * rng.normal(size=(_POOL, _DIMENSION))
        labels = labels[scenes]
    else:
        rows = draw(labels)
    if kind == "junk":
        places = rng.permutation(_POOL)[: _POOL // 10]
        rows[places] = 1.8 * rng.normal(size=(places.size, _DIMENSION)) + 0.2 * base
        labels[places] = -1
    tested = rng.integers(_CLASSES, size=_TESTED)
    return Fold(_unit(rows).astype(np.float16), labels, _unit(draw(tested)), tested)


def _halved(rows: NDArray[np.float64], labels: NDArray[np.intp], seed: int) -> Fold:
    order = np.random.default_rng(seed).permutation(len(rows))
    pool, rest = order[:200], order[200:]
    return Fold(rows[pool].astype(np.float16), labels[pool], rows[rest], labels[rest])


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)


def _measured(make: Callable[[int], Fold], folds: int) -> dict[str, Any]:
    found: dict[str, list[list[float]]] = {}
    for seed in range(folds):
        fold = make(seed)
        for strategy, share, picks in _choices(fold, seed):
            found.setdefault(f"{strategy} {share}", []).append(_scores(fold, picks))
    names = ("probe", "neighbor", "classes", "junk_of_40", "rare_recall")
    return {
        key: {
            **dict(zip(names, np.mean(values, axis=0).round(4).tolist(), strict=True)),
            "probe_error": float(np.std(np.array(values)[:, 0], ddof=1) / folds**0.5),
            "probes": [round(value[0], 4) for value in values],
        }
        for key, values in found.items()
    }


def _choices(fold: Fold, seed: int) -> list[tuple[str, float, NDArray[np.intp]]]:
    pool = make_pool(fold.rows)
    n = len(fold.rows)
    assert isinstance(pool.rows, ArrayRows)
    ks = {share: max(2, round(share * n)) for share in SHARES}

    def chosen(strategy: Strategy, k: int) -> NDArray[np.intp]:
        return select(pool, Select2(strategy=strategy, k=k, seed=seed, at_most=True)).indices

    whole = {s: chosen(s, ks[SHARES[-1]]) for s in STRATEGIES if s in _PREFIXES}
    result: list[tuple[str, float, NDArray[np.intp]]] = []
    for share, k in ks.items():
        for strategy in STRATEGIES:
            name = resolved(Select2(k=k), n)[0].strategy if strategy == "auto" else strategy
            picks = whole[name][:k] if name in whole else chosen(name, k)
            result.append((strategy, share, picks))
    return result


def _scores(fold: Fold, picks: NDArray[np.intp]) -> list[float]:
    labels = fold.labels[picks]
    sound = picks[labels >= 0]  # people who label images remove junk
    rows, classes = fold.rows[sound].astype(np.float64), fold.labels[sound]
    rare = fold.labels == _RARE
    return [
        float((probe(rows, classes, fold.tested) == fold.tested_labels).mean()),
        float((nearest(rows, classes, fold.tested) == fold.tested_labels).mean()),
        float(np.unique(classes).size),
        float((labels[:40] < 0).sum()),
        float(rare[picks].sum() / max(1, rare.sum())),
    ]


def _table(name: str, folds: int, found: dict[str, Any]) -> str:
    lines = [
        f"{name}, {folds} folds: probe ± error | neighbor | classes | junk of 40 | rare recall",
        f"{'':10s}" + "".join(f"{f'{100 * share:g} %':>34s}" for share in SHARES),
    ]
    for strategy in STRATEGIES:
        cells = ""
        for share in SHARES:
            f = found[f"{strategy} {share}"]
            cells += (
                f"{100 * f['probe']:10.1f} ± {100 * f['probe_error']:.1f} | "
                f"{100 * f['neighbor']:.1f} | {f['classes']:.1f} | {f['junk_of_40']:.1f} | "
                f"{f['rare_recall']:.2f}"
            )
        lines.append(f"{strategy:10s}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
