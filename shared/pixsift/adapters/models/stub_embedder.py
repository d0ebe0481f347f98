"""An embedder without a model: deterministic, numpy only, cheap.

It separates the cost of the pipeline from the cost of the model in measurements, and lets tests
run without torch. Similar images get similar vectors, but it knows nothing about content. Its space
is called ``stub``, so it cannot be mistaken for a production model.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.decode.recipe import recipe_id
from pixsift.core.images import Pixels
from pixsift.ports import EmbeddingResult, EmbeddingSpace

GRID = 8
"""Cells per side whose mean colors are the features."""


class StubEmbedder:
    """Mean colors of an 8x8 grid, mixed by a fixed matrix of signs, scaled to unit length."""

    input_side = 224

    def __init__(self, *, dimension: int = 384, max_batch: int = 64, seed: int = 7) -> None:
        self.batch_size = max_batch
        signs = np.random.Generator(np.random.PCG64(seed)).integers(
            0, 2, size=(GRID * GRID * 3 + 1, dimension)
        )
        self._mix = (2 * signs - 1).astype(np.float32)
        self.space = EmbeddingSpace(
            model="stub",
            revision="1",
            weights_sha256=hashlib.sha256(self._mix.tobytes()).hexdigest(),
            recipe_id=recipe_id(self.input_side),
            pooling="grid",
            dimension=dimension,
        )

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        """images: each (224, 224, 3) uint8. One row per image; there are no failures.

        Raises ValueError for an image of another shape or type.
        """
        features = np.empty((len(images), GRID * GRID * 3 + 1), np.float32)
        for row, image in zip(features, images, strict=True):
            row[:-1] = _grid_means(image, self.input_side) - 0.5
            row[-1] = 0.05  # mid-gray has features of all zero: this keeps its length above zero
        mixed = features @ self._mix
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        return EmbeddingResult(mixed, np.arange(len(images), dtype=np.intp), {})


def _grid_means(image: Pixels, side: int) -> NDArray[np.float32]:
    if image.shape != (side, side, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected ({side}, {side}, 3) uint8, got {image.shape} {image.dtype}")
    cell = side // GRID
    rows = image.reshape(GRID, cell, side * 3).sum(axis=1, dtype=np.uint32)
    cells = rows.reshape(GRID, GRID, cell, 3).sum(axis=2)
    means: NDArray[np.float32] = cells.ravel().astype(np.float32) / (255 * cell * cell)
    return means
