"""What a model would learn from a selection: a linear probe and the nearest neighbor.

Both are trained on the embeddings of what was chosen and tested on images whose groups were held
out. The probe is multinomial logistic regression with an L2 penalty, by accelerated gradient
(Nesterov 1983) to a fixed number of rounds: enough to rank selections, and the same everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float64s

Labels = NDArray[np.intp]
_ROUNDS = 300
_PENALTY = 1e-3
"""Factor on the sum of squared weights; the loss is a mean over images."""
_SCALE = 4.0
"""Unit rows are scaled by this: on unscaled rows an untuned logistic regression underfits."""


def probe(rows: Float64s, labels: Labels, tested: Float64s) -> Labels:
    """(M,) predicted labels of the tested rows, by logistic regression on (N, D) rows.

    labels: (N,) 0 or more; one class alone is predicted everywhere.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    if classes.size < 2:
        return np.full(len(tested), classes[0] if classes.size else -1, np.intp)
    middle = rows.mean(axis=0)
    x, seen = (rows - middle) * _SCALE, (tested - middle) * _SCALE
    if len(x) < x.shape[1]:
        # Weights lie in the span of the rows: the same solution in fewer dimensions.
        basis = np.linalg.qr(x.T)[0]
        x, seen = x @ basis, seen @ basis
    x = np.column_stack([x, np.ones(len(x))])
    weights = _fit(x, np.eye(classes.size)[codes])
    scores = np.column_stack([seen, np.ones(len(seen))]) @ weights
    return np.asarray(classes[np.argmax(scores, axis=1)], dtype=np.intp)


def nearest(rows: Float64s, labels: Labels, tested: Float64s) -> Labels:
    """(M,) the label of the most similar row, the first among equals."""
    found = np.empty(len(tested), np.intp)
    for start in range(0, len(tested), 1024):
        part = tested[start : start + 1024]
        found[start : start + len(part)] = labels[np.argmax(_unit(part) @ _unit(rows).T, axis=1)]
    return found


def interval(
    better: NDArray[np.bool_], worse: NDArray[np.bool_], groups: Labels, *, seed: int
) -> tuple[float, float]:
    """95 % interval of the difference in accuracy of two classifiers on the same images.

    better, worse: (M,) which images each of them got right; groups: (M,) drawn together. A paired
    bootstrap: what both got right, or both wrong, adds nothing.
    """
    rng = np.random.default_rng([seed, 0x6269])
    names, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, better.astype(float) - worse.astype(float))
    sizes = np.bincount(codes)
    drawn = rng.integers(names.size, size=(1000, names.size))
    differences = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _fit(x: Float64s, wanted: Float64s) -> Float64s:
    size = len(x)
    # The loss curves at most half as much as the largest eigenvalue of the second moments.
    largest = float(np.linalg.eigvalsh(x.T @ x / size)[-1])
    step = 1 / (largest / 2 + 2 * _PENALTY)
    weights: Float64s = np.zeros((x.shape[1], wanted.shape[1]))
    ahead = weights
    for turn in range(_ROUNDS):
        scores = x @ ahead
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        slope = x.T @ (shares - wanted) / size + 2 * _PENALTY * ahead
        fresh = ahead - step * slope
        ahead = fresh + turn / (turn + 3) * (fresh - weights)
        weights = fresh
    return weights


def _unit(rows: Float64s) -> Float64s:
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float64)
