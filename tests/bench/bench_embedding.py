"""Pixels to vectors: our batches compared with transformers, used as its model card shows.

Both take the same squares of real photographs and must give the same vectors (cosine >= 0.9999)
before any clock starts. The weights of DINOv2-small are random, of the true shape: speed does not
depend on their values. On a busy machine the CPU time says more than the clock.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.report import Timing, interleaved, publish, table
from pixsift.adapters.models import efficientnet_lite
from pixsift.adapters.models.dinov2 import NORMALIZATION, Dinov2Embedder
from pixsift.adapters.models.load import load_embedder
from pixsift.core.images import Pixels

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"
IMAGES, BATCH = 16, 8


def main() -> dict[str, Any]:
    """Measure, print and store."""
    if not PHOTOS.is_dir():
        sys.exit(f"no real images: {PHOTOS} is absent")
    images = _images()
    rows: list[tuple[str, Timing]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = _dinov2_small(Path(scratch) / "dinov2-small")
        ours = Dinov2Embedder(str(folder), device="cpu", max_batch=BATCH)
        card = _ModelCard(folder)
        _check_equal(ours.embed(images).embeddings, card.embed(images))
        timings = interleaved(
            {
                f"pixsift DINOv2-S/14, {ours.dtype}, batch {BATCH}": lambda: ours.embed(images),
                f"transformers as on the model card, batch {BATCH}": lambda: card.embed(images),
                "transformers, one image at a time": lambda: [card.embed([i]) for i in images],
            },
            runs=3,
        )
        rows += timings.items()
    lite, plain = load_embedder("efficientnet-lite0", device="cpu"), _PlainLite()
    _check_equal(lite.embed(images).embeddings, plain.embed(images))
    rows += interleaved(
        {
            "pixsift EfficientNet-Lite0": lambda: lite.embed(images),
            f"the network as its package builds it, batch {BATCH}": lambda: plain.embed(images),
        },
        runs=3,
    ).items()
    figures = {name: {"images_per_second": IMAGES / t.median, "timing": t} for name, t in rows}
    text = table(
        ("embedder", "images/s", "slowest - fastest run", "CPU ms per image"),
        [(n, IMAGES / t.median, f"{IMAGES / t.slowest:.3g} - {IMAGES / t.fastest:.3g}",
          1e3 * t.cpu / IMAGES)
         for n, t in rows],
    )  # fmt: skip
    publish("embedding", figures, f"{torch.get_num_threads()} threads\n\n{text}")
    return figures


class _ModelCard:
    """``AutoImageProcessor`` and ``Dinov2Model`` as their documentation shows them."""

    def __init__(self, folder: Path) -> None:
        from transformers import Dinov2Model
        from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

        self._processor = BitImageProcessorPil(
            size={"height": 224, "width": 224},
            do_center_crop=False,
            resample=Image.Resampling.BICUBIC,
            image_mean=list(NORMALIZATION.mean),
            image_std=list(NORMALIZATION.std),
        )
        self._model: Any = Dinov2Model.from_pretrained(folder)
        self._model.eval()  # type: ignore[no-untyped-call]

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        rows = []
        for start in range(0, len(images), BATCH):
            batch = [Image.fromarray(image) for image in images[start : start + BATCH]]
            with torch.no_grad():
                outputs = self._model(**self._processor(batch, return_tensors="pt"))
            rows.append(outputs.last_hidden_state[:, 0])
        unit: NDArray[np.float32] = torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()
        return unit


class _PlainLite:
    """EfficientNet-Lite0 as its package builds it."""

    def __init__(self) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        self._network: Any = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(efficientnet_lite._weights_path(), weights_only=True)
        self._network.load_state_dict(weights)
        self._network.eval()

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        rows = []
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(np.stack(images[start : start + BATCH]))
            batch = (pixels.permute(0, 3, 1, 2).contiguous().float() - 127) / 128
            with torch.no_grad():
                rows.append(self._network.extract_features(batch).mean((2, 3)))
        unit: NDArray[np.float32] = torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()
        return unit


def _images() -> list[Pixels]:
    images = []
    for path in sorted((PHOTOS / "kodak").glob("*.png"))[:IMAGES]:
        with Image.open(path) as image:
            square = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        images.append(np.asarray(square))
    return images


def _dinov2_small(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def _check_equal(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    worst = float((ours * theirs).sum(axis=1).min())
    if worst < 0.9999:
        sys.exit(f"the embedders disagree: cosine {worst}")


if __name__ == "__main__":
    main()
