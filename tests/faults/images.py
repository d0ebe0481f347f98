"""Small images for tests: as many different ones as wanted, and ways to be broken."""

from io import BytesIO

import numpy as np
from PIL import Image


def jpeg(seed: int, *, side: int = 64, quality: int = 85) -> bytes:
    """A colorful JPEG of blocks: far from that of any other seed for the stub embedder."""
    cells = np.random.default_rng(seed).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    pixels = np.kron(cells, np.ones((side // 8, side // 8, 1), np.uint8))
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def truncated(seed: int) -> bytes:
    """A JPEG that ends in the middle."""
    whole = jpeg(seed)
    return whole[: len(whole) // 2]
