"""An embedder's own noise: one image, other batches and places, on real photographs.

Recorded in docs/thresholds.md. Epsilon must exceed it tenfold, or the batch decides what is kept.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixsift.adapters.calibration.calibrations import UNCALIBRATED_EPSILON, default_calibration
from pixsift.adapters.calibration.labeled_pairs import measure_noise
from pixsift.adapters.models.load import load_embedder
from pixsift.core.calibration import exceeds_noise
from pixsift.core.images import Pixels
from pixsift.ports import Embedder, EmbeddingResult


def photographs(folder: Path, count: int, side: int) -> list[Pixels]:
    paths = sorted((folder / "photos").rglob("*.*g"))
    chosen = paths[:: max(1, len(paths) // count)][:count]
    images = []
    for path in chosen:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB").resize((side, side))))
    return images


@pytest.mark.parametrize(
    "count", [12, pytest.param(300, marks=pytest.mark.full)], ids=["few", "many"]
)
def test_noise__epsilon_exceeds_it_tenfold(images: Path, count: int) -> None:
    embedder = load_embedder("efficientnet-lite0", device="cpu", max_batch=32)
    noise = measure_noise(embedder, photographs(images, count, embedder.input_side))
    assert exceeds_noise(default_calibration(embedder.space).epsilon, noise)
    assert exceeds_noise(UNCALIBRATED_EPSILON, noise)
    assert noise < 1e-5


class _Drifting:
    """An embedder whose rows depend on their place in the batch."""

    def __init__(self, inner: Embedder, amount: float) -> None:
        self.space, self.input_side, self.batch_size = (
            inner.space,
            inner.input_side,
            inner.batch_size,
        )
        self._inner, self._amount = inner, amount

    def embed(self, images: list[Pixels]) -> EmbeddingResult:
        result = self._inner.embed(images)
        rows = result.embeddings.copy()
        rows[:, 0] += self._amount * np.arange(len(rows))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return EmbeddingResult(rows, result.kept_indices, result.failures)


def test_measure_noise__sees_an_embedder_that_drifts() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(9)]
    steady = load_embedder("stub", max_batch=64)
    assert measure_noise(steady, images) < 1e-6
    drifting = _Drifting(steady, 0.05)
    noise = measure_noise(drifting, images)  # type: ignore[arg-type]
    assert noise > 0.01
    assert not exceeds_noise(0.05, noise)
