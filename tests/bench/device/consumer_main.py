"""The consumer with what a benchmark changes: a decoder that costs nothing, a device that fails.

``PXD_FREE_DECODER=1``: what is fetched is not parsed; every object gets pixels of its own from a
small stock. ``PXD_LOSE_DEVICE_AFTER=N``: after N batches the GPU is made to fail for real (an index
out of range in a kernel, which ends the CUDA context); on a CPU the error is only raised.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self
from unittest.mock import patch

import numpy as np

from pixsift.core.images import DecodedImage, DecodeResult, ImageFacts
from pixsift.operations.embedder import load
from pixsift.ports import Embedder
from pixsift_consumer import main as consumer

_STOCK = 256


class FreeDecoder:
    """Stands where ``DecoderPool`` stands."""

    def __init__(self, input_side: int, **_: object) -> None:
        chance = np.random.default_rng(0)
        shape = (_STOCK, input_side, input_side, 3)
        self._stock = chance.integers(0, 256, shape, dtype=np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ping(self) -> None:
        pass

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        return [self._image(blob) for blob in blobs]

    def _image(self, blob: bytes) -> DecodedImage:
        digest = hashlib.sha256(blob).digest()
        return DecodedImage(
            ImageFacts("JPEG", 548, 365, "RGB"), digest, self._stock[digest[0] % _STOCK],
            quality={"sharpness": 0.5, "entropy_bits": 7.0, "brightness": 0.5},
            thumbnail_webp=digest,
        )  # fmt: skip


def lose_device(embedder: Embedder, after: int) -> Embedder:
    """Make the model's forward pass fail once it has run ``after`` times."""
    import torch

    batches: Any = getattr(embedder, "_batches")  # noqa: B009 - private, and a benchmark's business
    sound, runs = batches.forward, 0

    def forward(batch: torch.Tensor) -> torch.Tensor:
        nonlocal runs
        runs += 1
        if runs <= after:
            found: torch.Tensor = sound(batch)
            return found
        if batch.device.type != "cuda":
            raise RuntimeError("CUDA error: device-side assert triggered (raised on a CPU)")
        beyond = torch.full((1,), 1 << 20, device=batch.device)
        poisoned: torch.Tensor = sound(batch) + torch.zeros(4, device=batch.device)[beyond]
        return poisoned

    batches.forward = forward
    return embedder


def main() -> None:
    """``pixsift-consumer`` with the replacements that the environment asks for."""
    after = int(os.environ.get("PXD_LOSE_DEVICE_AFTER", "0"))
    with ExitStack() as stack:
        if os.environ.get("PXD_FREE_DECODER"):
            stack.enter_context(patch.object(consumer, "DecoderPool", FreeDecoder))
        if after:
            stack.enter_context(
                patch.object(consumer, "load", lambda choice: lose_device(load(choice), after))
            )
        consumer.main()


if __name__ == "__main__":
    main()
