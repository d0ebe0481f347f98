"""Real collections of valid and broken files: each is decoded or refused, never more than that."""

import io
import random
import resource
from pathlib import Path

import pytest
from PIL import Image

from pixsift.adapters.decode import DecodeLimits, DecoderPool
from pixsift.adapters.decode_recipe import decode_image
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult

LIMITS = DecodeLimits(
    formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"), memory_bytes=1 << 30, wall_seconds=20
)
CRASHES = {"decoder_crash", "decoder_timeout"}


@pytest.fixture(scope="module")
def results(real_images: Path) -> dict[str, DecodeResult]:
    """Outcome by file, through the isolated pool."""
    paths = [
        path
        for folder in ("broken", "conformance", "copies", "orientation")
        for path in sorted((real_images / folder).rglob("*.*"))
        if path.is_file()
    ]
    found: dict[str, DecodeResult] = {}
    with DecoderPool(64, limits=LIMITS) as pool:
        for start in range(0, len(paths), 64):
            batch = paths[start : start + 64]
            answers = pool.decode([path.read_bytes() for path in batch])
            names = [str(path.relative_to(real_images)) for path in batch]
            found.update(zip(names, answers, strict=True))
    return found


def test_corpora__no_crash_and_every_refusal_has_a_reason(results: dict[str, DecodeResult]) -> None:
    failures = {n: r for n, r in results.items() if isinstance(r, DecodeFailure)}
    assert len(results) > 450
    assert not {n: r for n, r in failures.items() if r.reason in CRASHES or not r.reason}


def test_corpora__memory_stayed_bounded(results: dict[str, DecodeResult]) -> None:
    """The largest process that ended, ours included; on Linux in KiB."""
    assert results
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20


def test_corpora__png_conformance(results: dict[str, DecodeResult]) -> None:
    """PngSuite marks the corrupt files with an x; everything else is valid."""
    pngs = {Path(n).name: r for n, r in results.items() if n.startswith("conformance")}
    accepted = {name for name, result in pngs.items() if isinstance(result, DecodedImage)}
    assert not {name for name in accepted if name.startswith("x")}
    valid = {name for name in pngs if name.endswith(".png") and not name.startswith("x")}
    # two files that Pillow 13 does not open: an HDR one and one with an oversized chunk
    assert valid - accepted <= {"cicp_pq.png", "issue#430.png"}


def test_corpora__the_corrupt_and_the_svg_are_refused(results: dict[str, DecodeResult]) -> None:
    for name in ("ukbench09268_corrupt.jpg",):
        assert isinstance(results[f"copies/ukbench/{name}"], DecodeFailure)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_corpora__most_silent_corruption_is_noticed(real_images: Path, mode: str) -> None:
    """Five bytes overwritten: Pillow alone raises for about one in twenty."""
    rng = random.Random(11)
    paths = sorted((real_images / "photos" / "clothing").rglob("*.jpg"))[:40]
    blobs = [_in_mode(path, mode) for path in paths]
    refused = 0
    for number in range(120):
        data = bytearray(blobs[number % len(blobs)])
        for _ in range(5):
            data[rng.randrange(len(data))] = rng.randrange(256)
        refused += isinstance(decode_image(bytes(data), 64, LIMITS), DecodeFailure)
    assert refused >= 0.6 * 120


def _in_mode(path: Path, mode: str) -> bytes:
    with Image.open(path) as image:
        if image.mode == mode:
            return path.read_bytes()
        out = io.BytesIO()
        image.convert(mode).save(out, "JPEG", quality=90)
    return out.getvalue()
