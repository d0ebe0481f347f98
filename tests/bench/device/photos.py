"""Pictures to decode. No torch here: many processes make them."""

import io
import multiprocessing
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIZES = {"0.2 MP": (548, 365), "2 MP": (1920, 1080), "12 MP": (4000, 3000)}
TINY = {"tiny": (160, 120)}


def photo(size: tuple[int, int], seed: int) -> bytes:
    """Soft shapes and grain, quality 85: about as many bytes a pixel as a photograph."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (12, 18, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = chance.normal(0, 6, (*soft.shape[:2], 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def photos(size: tuple[int, int], seeds: Sequence[int], *, processes: int) -> list[bytes]:
    """A picture for each seed, all different."""
    if processes == 1 or len(seeds) < 100:
        return [photo(size, seed) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.starmap(photo, [(size, seed) for seed in seeds], chunksize=16)
