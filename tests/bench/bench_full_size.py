"""Blur that DCT scaling hides: who is found, who pays for the look at full size, what it costs.

Every photograph is blurred in graded doses at full size, coded at several qualities, and decoded by
the recipe. ``blurred`` and ``motion_blurred`` look at the scaled pixels alone; ``or ..._full``: one
of them or its twin at full size. Cost: the same file with suspicion and look, and without either.

Images: the aerial photographs next to the checkout, whole and at 0.6 of their size; and the JPEGs
of a folder of your own (``PIXSIFT_BENCH_LARGE``), as they are and in doses.
"""

import io
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image, ImageFilter

from bench.bench_decode import PHOTOS, SIDE, SIZES, jpegs, pillow_all, sources
from bench.bench_quality import Dose, blur, move
from bench.report import interleaved, publish, table
from pixsift.adapters.decode import recipe
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.quality import QualityPolicy, judge

Metrics = dict[str, float]

QUALITIES = (75, 90, 95, 100)
LEAST_SIDE = 4 * SIDE
"""Shorter side from which a JPEG is scaled at all."""
LIMITS = DecodeLimits()


def main() -> dict[str, Any]:
    """Two sets of photographs, then the price."""
    figures: dict[str, Any] = {}
    texts = []
    for name, paths in photographs().items():
        found = {"as they are": [_metrics(path.read_bytes()) for path in paths], **in_doses(paths)}
        figures[name] = {dose: shares(metrics) for dose, metrics in found.items()}
        header = ["dose", "pictures", "looked at full size", "blurred", "or blurred_full",
                  "motion_blurred", "or motion_blurred_full"]  # fmt: skip
        rows = [[dose, *row.values()] for dose, row in figures[name].items()]
        texts.append(f"{name}: {len(paths)} photographs\n\n{table(header, rows)}")
    figures["cost"] = cost()
    rows = [
        [what, *(f"{value:.3g}" for value in row.values())] for what, row in figures["cost"].items()
    ]
    header = [
        "JPEG, ms for all the work",
        "with suspicion, and the look",
        "without either",
        "Pillow",
    ]
    publish("full_size", figures, "\n\n".join([*texts, table(header, rows)]))
    return figures


def photographs() -> dict[str, list[Path]]:
    """Sets of files by name; a set that is not here is left out."""
    own = os.environ.get("PIXSIFT_BENCH_LARGE")
    sets = {"aerial": sorted(PHOTOS.glob("*.jpg"))}
    if own:
        sets["own"] = sorted(
            p for p in Path(own).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
        )
    return {name: paths for name, paths in sets.items() if paths}


def in_doses(paths: list[Path]) -> dict[str, list[Metrics]]:
    """Metrics of every picture by dose; subsampling and scans vary, as cameras do."""
    found: dict[str, list[Metrics]] = {dose: [] for dose in DOSES}
    for path in paths:
        varied = random.Random(path.name)
        for image in _sizes(path):
            for dose, harm in DOSES.items():
                harmed = harm(image)
                for level in QUALITIES:
                    found[dose].append(_metrics(_jpeg(
                        harmed, quality=level, subsampling=varied.choice((0, 1, 2)),
                        progressive=varied.random() < 0.2,
                    )))  # fmt: skip
    return found


def shares(found: list[Metrics]) -> dict[str, Any]:
    """How many of the pictures are looked at and flagged."""
    policy = QualityPolicy()
    flags = [set(judge(metrics, None, policy).flags) for metrics in found]

    def share(*checks: str) -> str:
        return f"{sum(bool(some & set(checks)) for some in flags) / len(flags):.2f}"

    return {
        "pictures": len(found),
        "looked": f"{sum('sharpness_full' in metrics for metrics in found) / len(found):.2f}",
        "blurred": share("blurred"),
        "or blurred_full": share("blurred", "blurred_full"),
        "motion_blurred": share("motion_blurred"),
        "or motion_blurred_full": share("motion_blurred", "motion_blurred_full"),
    }


def cost() -> dict[str, dict[str, float]]:
    """Milliseconds per picture for all the work, with and without the look."""
    photos = sources()
    found: dict[str, dict[str, float]] = {}
    for name in ("12 MP", "2 MP"):
        sharp = jpegs(photos, SIZES[name], 4)
        soft = [_open(blob).filter(ImageFilter.GaussianBlur(3)) for blob in sharp]
        found |= {
            f"{name}, sharp": _timed(sharp),
            f"{name}, blurred": _timed([_jpeg(image, quality=90) for image in soft]),
            f"{name}, blurred, progressive": _timed(
                [_jpeg(image, quality=90, progressive=True) for image in soft]
            ),
        }
    own = photographs().get("own")
    if own:
        found["own, as they are"] = _timed([path.read_bytes() for path in own])
    return found


def _timed(blobs: list[bytes]) -> dict[str, float]:
    times = interleaved(
        {
            "with": partial(_recipe_all, blobs),
            "without": partial(_without_the_look, blobs),
            "pillow": partial(_pillow_all, blobs),
        },
        runs=5,
    )
    return {what: timing.median / len(blobs) * 1e3 for what, timing in times.items()}


def _recipe_all(blobs: list[bytes]) -> list[object]:
    return [decode_image(blob, SIDE, LIMITS) for blob in blobs]


def _without_the_look(blobs: list[bytes]) -> list[object]:
    with (
        patch.object(recipe, "hidden_detail", lambda *_: None),
        patch.object(recipe, "is_suspicious", lambda *_: False),
    ):
        return _recipe_all(blobs)


def _pillow_all(blobs: list[bytes]) -> list[object]:
    return [pillow_all(blob) for blob in blobs]


DOSES: dict[str, Dose] = {
    "coded anew": lambda image: image,
    **{f"blur sigma {sigma}": blur(sigma) for sigma in (1, 2, 3, 4, 6)},
    **{f"motion {length} px": move(length) for length in (5, 9, 15)},
}


def _sizes(path: Path) -> Iterator[Image.Image]:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for factor in (1.0, 0.6):
        size = round(image.width * factor), round(image.height * factor)
        if min(size) >= LEAST_SIDE:
            yield image if factor == 1 else image.resize(size, Image.Resampling.LANCZOS)


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _open(blob: bytes) -> Image.Image:
    with Image.open(io.BytesIO(blob)) as image:
        return image.convert("RGB")


def _metrics(blob: bytes) -> Metrics:
    result = decode_image(blob, SIDE, LIMITS)
    assert isinstance(result, DecodedImage), result
    return dict(result.quality)


if __name__ == "__main__":
    main()
