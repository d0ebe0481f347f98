"""A flat picture of embeddings: their two directions of largest variance."""

import numpy as np

from pixsift.core.choosing.rows import Float64s, Indices, RowSource


def plane(rows: RowSource, indices: Indices) -> Float64s:
    """(M, 2) principal components of some rows, scaled into 0..1; the sign is fixed.

    M is meant to be a few thousand: a sample shows as much as everything.
    """
    points = rows.take(indices)
    points -= points.mean(axis=0)
    values, vectors = np.linalg.eigh(points.T @ points)
    axes = vectors[:, np.argsort(values)[::-1][:2]]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    flat = np.zeros((len(points), 2))
    flat[:, : axes.shape[1]] = points @ axes
    low, high = flat.min(axis=0), flat.max(axis=0)
    return np.asarray((flat - low) / np.where(high > low, high - low, 1), dtype=np.float64)
