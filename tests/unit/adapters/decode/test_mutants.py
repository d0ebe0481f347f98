"""Mutated images: whatever the bytes, the answer is an image or a reason, never a lost child."""

import io
import random
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pixsift.adapters.decode.pool import DecodeLimits, DecoderPool
from pixsift.core.images import DecodedImage

LIMITS = DecodeLimits(
    formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"), memory_bytes=1 << 30,
    max_pixels=4_000_000,
)  # fmt: skip
SEED = 20261122


def originals() -> list[bytes]:
    """Small files of every format and several modes."""
    y, x = np.mgrid[0:48, 0:64]
    picture = Image.fromarray(np.stack([x * 4, y * 5, (x * y) % 256], axis=-1).astype(np.uint8))
    blobs = []
    for image_format in LIMITS.formats:
        for mode in ("RGB", "L", "P", "CMYK", "RGBA", "I;16"):
            try:
                out = io.BytesIO()
                picture.convert("L" if mode == "I;16" else mode).convert(mode).save(
                    out, image_format
                )
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            blobs.append(out.getvalue())
    out = io.BytesIO()
    picture.save(out, "JPEG", progressive=True)
    return [*blobs, out.getvalue()]


def mutated(blob: bytes, rng: random.Random) -> bytes:
    """A few bytes overwritten, cut, doubled or removed, headers more often than not."""
    data = bytearray(blob)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data))
        kind = rng.randrange(5)
        if kind <= 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            data[at : at + 4] = rng.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"])
        elif kind == 3 and len(data) > 16:
            del data[at : at + rng.randint(1, 16)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        if len(data) < 2:
            return bytes(data)
    return bytes(data)


def with_checksums(blob: bytes) -> bytes:
    """A PNG whose chunks check out again, so that a mutant reaches the decoder itself."""
    if not blob.startswith(b"\x89PNG"):
        return blob
    parts = [blob[:8]]
    at = 8
    while at + 12 <= len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        body = blob[at + 4 : at + 8 + size]
        parts.append(blob[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + size
    return b"".join(parts)


def run(count: int, seed: int) -> Counter[str]:
    rng = random.Random(seed)
    bases = originals()
    outcomes: Counter[str] = Counter()
    with DecoderPool(32, limits=LIMITS) as pool:
        for start in range(0, count, 200):
            blobs = [
                with_checksums(mutated(rng.choice(bases), rng))
                for _ in range(min(200, count - start))
            ]
            for result in pool.decode(blobs):
                outcomes["ok" if isinstance(result, DecodedImage) else result.reason] += 1
    return outcomes


def test_mutants__a_thousand() -> None:
    outcomes = run(1_000, SEED)
    assert outcomes.total() == 1_000
    assert outcomes["ok"] > 20 and outcomes["corrupt"] > 100, outcomes
    assert not {"decoder_crash", "decoder_timeout"} & set(outcomes), (SEED, outcomes)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_mutants__ten_thousand(seed: int) -> None:
    outcomes = run(1_000, SEED + 1 + seed)
    assert not {"decoder_crash", "decoder_timeout"} & set(outcomes), (seed, outcomes)
