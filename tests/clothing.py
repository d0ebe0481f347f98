"""The clothing photographs as a pool: real images, real embeddings, real classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.models.load import load_embedder
from pixsift.core.choosing.pool import Pool
from pixsift.core.images import DecodedImage
from pools import make_pool


def clothing_pool(photos: Path) -> Pool:
    """Every photograph of ``photos``/<class>/, embedded by EfficientNet-Lite0; attribute class."""
    files = sorted(path for path in photos.glob("*/*") if path.is_file())
    rows, sound = embedded([path.read_bytes() for path in files])
    return make_pool(rows, {"class": [files[i].parent.name for i in sound]})


def embedded(images: Sequence[bytes]) -> tuple[NDArray[np.float16], list[int]]:
    """(M, D) embeddings of the images that can be decoded, and which these are."""
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    rows: list[NDArray[np.float16]] = []
    places: list[int] = []
    with DecoderPool(embedder.input_side, workers=2) as decoder:
        for start in range(0, len(images), 32):
            decoded = decoder.decode(list(images[start : start + 32]))
            sound = [(start + i, d) for i, d in enumerate(decoded) if isinstance(d, DecodedImage)]
            found = embedder.embed([d.model_input for _, d in sound])
            rows.append(found.embeddings.astype(np.float16))
            places += [sound[int(i)][0] for i in found.kept_indices]
    return np.concatenate(rows), places
