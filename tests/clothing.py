"""The clothing photographs as a pool: real images, real embeddings, real classes."""

from pathlib import Path

import numpy as np

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.models.load import load_embedder
from pixsift.core.choosing.pool import Pool
from pixsift.core.images import DecodedImage
from pools import make_pool


def clothing_pool(photos: Path) -> Pool:
    """Every photograph of ``photos``/<class>/, embedded by EfficientNet-Lite0; attribute class."""
    files = sorted(path for path in photos.glob("*/*") if path.is_file())
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    rows, labels = [], []
    with DecoderPool(embedder.input_side, workers=2) as decoder:
        for start in range(0, len(files), 32):
            part = files[start : start + 32]
            decoded = decoder.decode([path.read_bytes() for path in part])
            sound = [(p, d) for p, d in zip(part, decoded, strict=True)
                     if isinstance(d, DecodedImage)]  # fmt: skip
            found = embedder.embed([d.model_input for _, d in sound])
            rows.append(found.embeddings.astype(np.float16))
            labels += [sound[int(i)][0].parent.name for i in found.kept_indices]
    return make_pool(np.concatenate(rows), {"class": labels})
