"""Decoding compared with Pillow: the recipe alone, the whole decoder, and the transfer between
processes.

Peer: Pillow in this process, full decode and bicubic resize (and, for "all", the same thumbnail,
hash, metrics and look from the full pixels). Fidelity first: pixels close to the full decode, and
with EfficientNet-Lite0 equal embeddings within the stated cosine, and the pairs that change sides:
at several epsilons by the embedding alone, and by the rule that ships, which decides.
Each figure says whether its target is met.

Images: real aerial photographs where the folder next to the checkout exists (resized to the three
sizes, JPEG quality 90), otherwise generated scenes.
"""

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.report import Timing, interleaved, publish, table
from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.decode.formats import jpeg_factor, jpeg_pixels
from pixsift.adapters.decode.pool import DecodeLimits, DecoderPool
from pixsift.adapters.decode.recipe import decode_image
from pixsift.core import quality
from pixsift.core.calibration import Calibration
from pixsift.core.images import DecodedImage
from pixsift.core.second_look import LookRule, look_signals

SIDE = 224
SIZES = {"12 MP": (4000, 3000), "2 MP": (1920, 1080), "0.2 MP": (500, 375)}
TARGETS = {"12 MP": 2.8, "2 MP": 1.8, "0.2 MP": 1.0}
IMAGES = {"12 MP": 4, "2 MP": 8, "0.2 MP": 32}
PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "sequences" / "drone"
LIMITS = DecodeLimits()
EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.115, 0.15)
LEAST_PSNR = 50.0
LEAST_COSINE_P1 = 0.999


def main() -> dict[str, Any]:
    """Check fidelity, then time."""
    photos = sources()
    figures: dict[str, Any] = {"fidelity": fidelity(photos), "sizes": {}}
    rows = []
    for name, size in SIZES.items():
        blobs = jpegs(photos, size, IMAGES[name])
        times = measure(blobs)
        per_image = {what: timing.median / len(blobs) * 1e3 for what, timing in times.items()}
        ratio = per_image["pillow"] / per_image["recipe"]
        cpu_ratio = times["pillow"].cpu / times["recipe"].cpu  # steadier on busy cores
        ratio_all = per_image["pillow all"] / per_image["inline all"]
        border = per_image["pool, 1 child"] - per_image["inline all"]
        figures["sizes"][name] = {
            "milliseconds": per_image, "ratio": ratio, "cpu_ratio": cpu_ratio,
            "target": TARGETS[name],
            "ratio_all": ratio_all, "border_milliseconds": border,
            "ratio_all_through_border": per_image["pillow all"] / per_image["pool, 1 child"],
            "timings": times,
        }  # fmt: skip
        rows.append([
            name, f"{per_image['pillow']:.2f}", f"{per_image['recipe']:.2f}",
            f"{ratio:.2f}x wall, {cpu_ratio:.2f}x CPU (target {TARGETS[name]}x: "
            f"{_met(cpu_ratio >= TARGETS[name])} in CPU)",
            f"{per_image['pillow all']:.2f}",
            f"{per_image['inline all']:.2f}", f"{per_image['pool, 1 child']:.2f}",
            f"{per_image['pool, 2 children']:.2f}", f"{border:+.2f}", _spread(times["recipe"]),
        ])  # fmt: skip
    header = [
        "JPEG", "Pillow full + bicubic, ms", "recipe, ms", "ratio", "Pillow, all the work, ms",
        "recipe, all, inline", "all, isolated, 1 child", "2 children", "border, ms",
        "recipe min..max",
    ]  # fmt: skip
    told = table(["fidelity", "found", "target"], fidelity_rows(figures["fidelity"]))
    publish("decode", figures, f"{table(header, rows)}\n\n{told}")
    return figures


def sources() -> list[Image.Image]:
    """Large pictures to make the sizes from."""
    paths = sorted(PHOTOS.glob("*.jpg")) + sorted(PHOTOS.glob("*.JPG"))
    if paths:
        return [Image.open(path).convert("RGB") for path in paths]
    rng = np.random.default_rng(7)
    return [
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).resize((4000, 3000))
        for _ in range(4)
    ]


def jpegs(photos: Sequence[Image.Image], size: tuple[int, int], count: int) -> list[bytes]:
    """``count`` JPEGs of quality 90, cut from different places."""
    blobs = []
    for index in range(count):
        photo = photos[index % len(photos)]
        margin = 40 * (index // len(photos))
        box = (margin, margin, photo.width, photo.height)
        blobs.append(_jpeg(photo.resize(size, Image.Resampling.LANCZOS, box), 90))
    return blobs


def measure(blobs: Sequence[bytes]) -> dict[str, Timing]:
    """Every way, in turn."""
    with DecoderPool(SIDE, workers=1) as one, DecoderPool(SIDE, workers=2) as two:
        for pool in (one, two):
            assert all(isinstance(r, DecodedImage) for r in pool.decode(blobs))
        return interleaved(
            {
                "pillow": lambda: [pillow(blob) for blob in blobs],
                "recipe": lambda: [recipe(blob) for blob in blobs],
                "pillow all": lambda: [pillow_all(blob) for blob in blobs],
                "inline all": lambda: [decode_image(blob, SIDE, LIMITS) for blob in blobs],
                "pool, 1 child": lambda: one.decode(blobs),
                "pool, 2 children": lambda: two.decode(blobs),
            },
            runs=7,
        )


def pillow(blob: bytes) -> NDArray[np.uint8]:
    """The peer: decode everything, then resize."""
    with Image.open(io.BytesIO(blob)) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def recipe(blob: bytes) -> NDArray[np.uint8]:
    """The recipe's way to the same array."""
    with Image.open(io.BytesIO(blob), formats=["JPEG"]) as image:
        factor = jpeg_factor(image.width, image.height, SIDE)
        small, _ = jpeg_pixels(image, blob, factor)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def pillow_all(blob: bytes) -> tuple[object, ...]:
    """All that the decoder hands on, from the full pixels."""
    with Image.open(io.BytesIO(blob)) as image:
        full = image.convert("RGB")
    pixels = np.asarray(full)
    out = io.BytesIO()
    small = full.resize((256, max(1, 256 * full.height // full.width)), Image.Resampling.BILINEAR)
    small.save(out, "WEBP", quality=75, method=0)
    return (
        full.resize((SIDE, SIDE), Image.Resampling.BICUBIC),
        hashlib.sha256(full.tobytes()).digest(),
        quality.measure(pixels, luma=np.asarray(full.convert("L"))), look_signals(pixels),
        out.getvalue(),
    )  # fmt: skip


def fidelity(photos: Sequence[Image.Image]) -> dict[str, Any]:
    """Scaled decode against full decode on crops of the photographs, and on a smaller copy of each
    crop, so that there are pairs on either side; all of them get scaled."""
    crops = [
        photo.crop((x, y, x + 1800, y + 1350))
        for photo in photos
        for x in range(0, photo.width - 1799, 600)
        for y in range(0, photo.height - 1349, 450)
    ]
    blobs = [_jpeg(crop, 92) for crop in crops]
    blobs += [_jpeg(crop.resize((1440, 1080)), 75) for crop in crops]
    full = [pillow(blob) for blob in blobs]
    scaled = [recipe(blob) for blob in blobs]
    psnr = [_psnr(a, b) for a, b in zip(full, scaled, strict=True)]
    found: dict[str, Any] = {"images": len(blobs), "psnr_min": min(psnr),
                             "psnr_median": float(np.median(psnr))}  # fmt: skip
    return found | _embedding_fidelity(full, scaled)


def fidelity_rows(found: dict[str, Any]) -> list[list[object]]:
    """Each figure with its target."""
    pairs, shipped = found["pairs"], found["changed_by_the_shipped_rule"]
    return [
        [f"least PSNR of {found['images']}, dB", f"{found['psnr_min']:.1f}",
         f"{LEAST_PSNR:g}: {_met(found['psnr_min'] >= LEAST_PSNR)}"],
        ["cosine, first percentile", f"{found['cosine_p1']:.5f}",
         f"{LEAST_COSINE_P1}: {_met(found['cosine_p1'] >= LEAST_COSINE_P1)}"],
        [f"of {pairs} pairs changed by the shipped rule ({found['shipped_rule']}, which calls "
         f"{found['same_by_the_shipped_rule']} pairs the same picture)", shipped,
         f"0: {_met(shipped == 0)}"],
        *([f"of {pairs} pairs changed at {epsilon}, embedding alone", changed,
           f"0: {_met(changed == 0)}"]
          for epsilon, changed in found["changed_pair_decisions"].items()),
    ]  # fmt: skip


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def _embedding_fidelity(
    full: Sequence[NDArray[np.uint8]], scaled: Sequence[NDArray[np.uint8]]
) -> dict[str, Any]:
    from pixsift.adapters.models.load import load_embedder

    embedder = load_embedder("efficientnet-lite0", device="cpu")
    vectors = [
        np.concatenate([
            embedder.embed(images[i : i + 16]).embeddings for i in range(0, len(images), 16)
        ])
        for images in (full, scaled)
    ]  # fmt: skip
    cosine = np.sum(vectors[0] * vectors[1], axis=1)
    upper = np.triu_indices(len(full), 1)
    distances = [1 - (v @ v.T)[upper] for v in vectors]
    changed = {
        str(epsilon): int(np.sum((distances[0] <= epsilon) != (distances[1] <= epsilon)))
        for epsilon in EPSILONS
    }
    shipped = default_calibration(embedder.space)
    sides = [
        _same_picture(found, images, shipped)
        for found, images in zip(distances, (full, scaled), strict=True)
    ]
    return {
        "cosine_p1": float(np.percentile(cosine, 1)), "cosine_min": float(cosine.min()),
        "pairs": len(upper[0]), "changed_pair_decisions": changed,
        "shipped_rule": f"epsilon {shipped.epsilon} and the second look",
        "changed_by_the_shipped_rule": int(np.sum(sides[0] != sides[1])),
        "same_by_the_shipped_rule": int(np.sum(sides[0])),
    }  # fmt: skip


def _same_picture(
    distances: NDArray[np.float32], images: Sequence[NDArray[np.uint8]], shipped: Calibration
) -> NDArray[np.bool_]:
    """What the shipped rule says of each pair, as dedup does."""
    rule = LookRule.from_json(shipped.second_look or {})
    looks = [look_signals(image) for image in images]
    first, second = np.triu_indices(len(images), 1)
    return np.array([
        bool(distance <= shipped.epsilon) and rule.agrees(float(distance), looks[a], looks[b])
        for distance, a, b in zip(distances, first, second, strict=True)
    ])  # fmt: skip


def _jpeg(image: Image.Image, level: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=level)
    return out.getvalue()


def _psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


def _spread(timing: Timing) -> str:
    return f"{timing.fastest / timing.median:.2f}..{timing.slowest / timing.median:.2f}"


if __name__ == "__main__":
    main()
