"""Strategies by what a model learns from them: sets of known structure, and clothing photographs.

    python tests/bench/bench_choosing.py             20 folds of every set
    python tests/bench/bench_choosing.py 5 tail      5 folds of the sets so named

Every fold draws a pool to choose from and other images to test on. Printed per strategy and k: mean
accuracy of a linear probe and of the nearest neighbor, standard error over folds; classes covered,
junk among the first 40, recall of the rare class. Then ``auto`` and ``balanced`` minus
random and minus the best single strategy: the paired difference and its standard error.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import publish
from clothing import clothing_pool, embedded
from odd_images import odd_images
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
_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_ODD = 20
"""Odd images among 200 photographs: 9 % of the pool."""


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
            text.append(table_of(name, folds, figures[name]))
    publish("choosing", figures, "\n\n".join(text))
    return figures


def worlds() -> dict[str, Callable[[int], Fold]]:
    """Sets by name: a fold for a seed."""
    made = ("even", "tail", "bursts", "junk", "clumps", "rare")
    found: dict[str, Callable[[int], Fold]] = {name: partial(_made, kind=name) for name in made}
    if (_DATA / "photos" / "clothing").is_dir():
        found["clothing"] = lambda seed: _photos(seed, odd=False)
        found["clothing_odd"] = lambda seed: _photos(seed, odd=True)
    return found


@cache
def photos() -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Embeddings and classes of the clothing photographs, and embeddings of odd images."""
    pool = clothing_pool(_DATA / "photos" / "clothing")
    codes = pool.facts.attributes["class"].codes.astype(np.intp)
    odd = embedded(odd_images(_DATA))[0].astype(np.float64)
    return pool.rows.take(np.arange(pool.rows.count)), codes, odd


def _made(seed: int, *, kind: str) -> Fold:
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
    if kind in ("junk", "clumps"):
        places = rng.permutation(_POOL)[: _POOL // 10]
        rows[places] = _junk(rng, places.size, in_clumps=kind == "clumps") + 0.2 * base
        labels[places] = -1
    tested = rng.integers(_CLASSES, size=_TESTED)
    return Fold(_unit(rows).astype(np.float16), labels, _unit(draw(tested)), tested)


def _junk(rng: np.random.Generator, count: int, *, in_clumps: bool) -> NDArray[np.float64]:
    """Rows of no class: each alone, or in clumps of two to five."""
    if not in_clumps:
        return np.asarray(1.8 * rng.normal(size=(count, _DIMENSION)))
    clumps = np.repeat(np.arange(count), rng.integers(2, 6, size=count))[:count]
    middles = 1.8 * rng.normal(size=(count, _DIMENSION))
    return np.asarray(middles[clumps] + 0.7 * rng.normal(size=(count, _DIMENSION)))


def _photos(seed: int, *, odd: bool) -> Fold:
    """200 photographs to choose from, and odd images among them; the others to test on."""
    rows, labels, others = photos()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    pool, rest = order[:200], order[200:]
    drawn = others[rng.permutation(len(others))[:_ODD]] if odd else others[:0]
    mixed = rng.permutation(len(pool) + len(drawn))
    return Fold(
        np.concatenate([rows[pool], drawn])[mixed].astype(np.float16),
        np.concatenate([labels[pool], np.full(len(drawn), -1)])[mixed],
        rows[rest], labels[rest],
    )  # fmt: skip


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)


def _measured(make: Callable[[int], Fold], folds: int) -> dict[str, Any]:
    return summary([one_fold(make, seed) for seed in range(folds)])


def one_fold(make: Callable[[int], Fold], seed: int) -> dict[str, list[float]]:
    """Scores by strategy and share; a choice that two strategies make is scored once."""
    fold, known = make(seed), dict[bytes, list[float]]()
    found = {}
    for strategy, share, picks in _choices(fold, seed):
        key = picks.tobytes()
        known[key] = known.get(key) or _scores(fold, picks)
        found[f"{strategy} {share}"] = known[key]
    return found


def summary(folds: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Means over folds, the error of the probe's, and the probes themselves."""
    names = ("probe", "neighbor", "classes", "junk_of_40", "rare_recall")
    found = {}
    for key in folds[0]:
        values = np.array([fold[key] for fold in folds])
        found[key] = {
            **dict(zip(names, values.mean(axis=0).round(4).tolist(), strict=True)),
            "probe_error": float(values[:, 0].std(ddof=1) / len(folds) ** 0.5),
            "probes": values[:, 0].round(4).tolist(),
        }
    return found


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


def table_of(name: str, folds: int, found: dict[str, Any]) -> str:
    """One set as text."""
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
    for share in SHARES:
        singles = [s for s in STRATEGIES if s != "auto"]
        best = max(singles, key=lambda s: float(found[f"{s} {share}"]["probe"]))
        pairs = (("auto", "random"), ("auto", best), ("balanced", "random"))
        lines.append(f"{100 * share:g} %: " + "; ".join(_beside(found, *p, share) for p in pairs))
    return "\n".join(lines)


def _beside(found: dict[str, Any], one: str, other: str, share: float) -> str:
    differences = np.subtract(
        found[f"{one} {share}"]["probes"], found[f"{other} {share}"]["probes"]
    )
    error = float(differences.std(ddof=1) / len(differences) ** 0.5)
    return f"{one} - {other} {100 * differences.mean():+.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
