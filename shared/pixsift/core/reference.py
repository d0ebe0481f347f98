"""Compares a reference set with a collection: what each of them lacks.

A *gap* is a reference without an image of the collection within a cosine distance. An image is
*covered* when a reference lies within that distance of it. Both come from one pass over the
collection, block by block, in float32; whatever lies within a margin of the limit, and each
reference's nearest image, is measured in float64.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float64s, Indices
from pixsift.core.retrieval import unit

_MARGIN: Final = 1e-5
"""Float32 products of unit rows err by 1e-6."""
_AT_ONCE: Final = 4096
"""Rows whose products with all references are held at a time: 64 MB for 4,096 references."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What a scan found."""

    nearest: Float64s
    """(R,) cosine distance of each reference to its nearest image; infinite: there is none."""
    nearest_ids: NDArray[np.int64]
    """(R,) that image; -1: there is none."""
    object_ids: NDArray[np.int64]
    """(N,) every image."""
    distances: Float64s
    """(N,) its cosine distance to the nearest reference."""


class ReferenceScan:
    """Takes the collection block by block."""

    def __init__(self, references: Float64s, *, limit: float) -> None:
        """references: (R, D), R of at least 1; limit: the cosine distance that covers."""
        self._units = unit(references)
        self._columns = np.ascontiguousarray(self._units.T, np.float32)
        self._limit = limit
        self._nearest = np.full(len(references), np.inf)
        self._nearest_ids = np.full(len(references), -1, np.int64)
        self._ids: list[NDArray[np.int64]] = []
        self._distances: list[Float64s] = []

    def add(self, object_ids: NDArray[np.int64], halves: NDArray[np.float16]) -> None:
        """Some more images. halves: (N, D) as stored."""
        for start in range(0, len(object_ids), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._add(object_ids[part], unit(halves[part].astype(np.float64)))

    def result(self) -> Sides:
        """Of everything that was added."""
        ids = self._ids or [np.empty(0, np.int64)]
        distances = self._distances or [np.empty(0)]
        return Sides(
            self._nearest, self._nearest_ids, np.concatenate(ids), np.concatenate(distances)
        )

    def _add(self, object_ids: NDArray[np.int64], units: Float64s) -> None:
        products = units.astype(np.float32) @ self._columns
        distances = 1.0 - products.max(axis=1).astype(np.float64)
        near = np.flatnonzero(np.abs(distances - self._limit) < _MARGIN)
        if len(near):
            distances[near] = 1.0 - (units[near] @ self._units.T).max(axis=1)
        self._ids.append(object_ids)
        self._distances.append(np.maximum(0.0, distances))
        best = products.argmax(axis=0)
        exact = np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", units[best], self._units))
        better = exact < self._nearest
        self._nearest[better] = exact[better]
        self._nearest_ids[better] = object_ids[best[better]]


class Regions:
    """Assigns images to centroids, block by block, with the nearest images of each."""

    def __init__(self, centroids: Float64s) -> None:
        """centroids: (K, D)."""
        self._centroids = unit(centroids)
        self.counts = np.zeros(len(centroids), np.int64)
        self._best: list[list[tuple[float, int]]] = [[] for _ in centroids]

    def add(self, object_ids: NDArray[np.int64], halves: NDArray[np.float16], keep: int) -> None:
        """Some more; of each region the ``keep`` nearest to its centroid are remembered."""
        products = unit(halves.astype(np.float64)) @ self._centroids.T
        labels = products.argmax(axis=1)
        self.counts += np.bincount(labels, minlength=len(self.counts))
        for label in np.unique(labels).tolist():
            mine = np.flatnonzero(labels == label)
            order = mine[np.argsort(-products[mine, label], kind="stable")[:keep]]
            more = [(float(-products[row, label]), int(object_ids[row])) for row in order]
            self._best[label] = sorted(self._best[label] + more)[:keep]

    def order(self) -> Indices:
        """Regions with images, the largest first."""
        found = np.argsort(-self.counts, kind="stable")
        return found[self.counts[found] > 0].astype(np.intp)

    def examples(self, region: int) -> list[int]:
        """The images nearest to its centroid, the nearest first."""
        return [object_id for _, object_id in self._best[region]]
