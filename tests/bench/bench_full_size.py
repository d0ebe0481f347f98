"""Blur that DCT scaling hides: who is found, who pays for the look at full size, what it costs.

Every photograph is blurred in graded doses at full size, coded at several qualities, and decoded by
the recipe. ``at scale``: the check that looks at the scaled pixels alone (``blurred``). ``either``:
it or the check at full size (``blurred_full``). AUROC: either score for telling a dose from the
sharp ones, whatever the threshold; a picture without a look counts as sharp.

Images: the aerial photographs beside the checkout, whole and at 0.6 of their size; and the JPEGs of
a folder of your own (``PIXSIFT_BENCH_LARGE``), as they are and in doses.
"""

import io
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from bench.bench_decode import PHOTOS, SIDE, SIZES, jpegs, pillow_all, sources
from bench.bench_quality import auroc
from bench.report import interleaved, publish, table
from pixsift.adapters.decode_recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.quality import QualityPolicy, judge

DOSES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
QUALITIES = (75, 90, 95)
LEAST_SIDE = 4 * SIDE
"""Shorter side from which a JPEG is scaled at all."""
MISSING = 1e9
LIMITS = DecodeLimits()

Metrics = dict[str, float]


def main() -> dict[str, Any]:
    """Two sets of photographs, then the price."""
    figures: dict[str, Any] = {}
    texts = []
    for name, paths in photographs().items():
        doses = in_doses(paths)
        as_they_are = [_metrics(path.read_bytes()) for path in paths]
        figures[name] = {"photographs": len(paths), "as they are": shares(as_they_are, []),
                         **{f"sigma {dose:g}": shares(found, doses[0.0])
                            for dose, found in doses.items()}}  # fmt: skip
        header = ["dose", "pictures", "looked at full size", "flagged at scale", "flagged at full "
                  "size", "either", "AUROC at scale", "AUROC at full size"]  # fmt: skip
        rows = [
            [dose, *found.values()]
            for dose, found in figures[name].items()
            if dose != "photographs"
        ]
        texts.append(f"{name}: {len(paths)} photographs\n\n{table(header, rows)}")
    figures["cost"] = cost()
    rows = [[size, *(f"{value:.3g}" for value in row.values())]
            for size, row in figures["cost"].items()]  # fmt: skip
    header = ["JPEG, ms for all the work", "recipe, sharp", "recipe, blurred, with the look",
              "Pillow from full pixels, sharp", "blurred"]  # fmt: skip
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


def in_doses(paths: list[Path]) -> dict[float, list[Metrics]]:
    """Metrics of every picture by dose; subsampling and scans vary, as cameras do."""
    found: dict[float, list[Metrics]] = {dose: [] for dose in DOSES}
    for path in paths:
        varied = random.Random(path.name)
        for image in _sizes(path):
            for dose in DOSES:
                soft = image.filter(ImageFilter.GaussianBlur(dose)) if dose else image
                for level in QUALITIES:
                    out = io.BytesIO()
                    soft.save(
                        out, "JPEG", quality=level, subsampling=varied.choice((0, 1, 2)),
                        progressive=varied.random() < 0.2,
                    )  # fmt: skip
                    found[dose].append(_metrics(out.getvalue()))
    return found


def shares(found: list[Metrics], sharp: list[Metrics]) -> dict[str, Any]:
    """How many of the pictures are looked at and flagged."""
    policy = QualityPolicy()
    flags = [judge(metrics, None, policy).flags for metrics in found]

    def share(holds: list[bool]) -> str:
        return f"{sum(holds) / len(holds):.2f}"

    def separation(metric: str) -> str:
        if not sharp:
            return "-"
        bad, good = ([-m.get(metric, MISSING) for m in some] for some in (found, sharp))
        return f"{auroc(bad, good):.3f}"

    return {
        "pictures": len(found),
        "looked": share(["sharpness_full" in metrics for metrics in found]),
        "at scale": share(["blurred" in some for some in flags]),
        "at full size": share(["blurred_full" in some for some in flags]),
        "either": share(["blurred" in some or "blurred_full" in some for some in flags]),
        "auroc at scale": separation("sharpness"),
        "auroc at full size": separation("sharpness_full"),
    }


def cost() -> dict[str, dict[str, float]]:
    """Milliseconds per picture of sharp and of blurred ones, all the work."""
    photos = sources()
    found = {}
    for name in ("12 MP", "2 MP"):
        width, height = SIZES[name]
        sharp = jpegs(photos, (width, height), 4)
        soft = [_blurred(blob, 3) for blob in sharp]
        assert not any("sharpness_full" in _metrics(blob) for blob in sharp)
        assert all("sharpness_full" in _metrics(blob) for blob in soft)
        times = interleaved(
            {
                "recipe, sharp": partial(_recipe_all, sharp),
                "recipe, blurred": partial(_recipe_all, soft),
                "pillow, sharp": partial(_pillow_all, sharp),
                "pillow, blurred": partial(_pillow_all, soft),
            },
            runs=7,
        )
        found[name] = {what: timing.median / len(sharp) * 1e3 for what, timing in times.items()}
    return found


def _recipe_all(blobs: list[bytes]) -> list[object]:
    return [decode_image(blob, SIDE, LIMITS) for blob in blobs]


def _pillow_all(blobs: list[bytes]) -> list[object]:
    return [pillow_all(blob) for blob in blobs]


def _sizes(path: Path) -> Iterator[Image.Image]:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for factor in (1.0, 0.6):
        size = round(image.width * factor), round(image.height * factor)
        if min(size) >= LEAST_SIDE:
            yield image if factor == 1 else image.resize(size, Image.Resampling.LANCZOS)


def _blurred(blob: bytes, sigma: float) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(blob)) as image:
        image.filter(ImageFilter.GaussianBlur(sigma)).save(out, "JPEG", quality=90)
    return out.getvalue()


def _metrics(blob: bytes) -> Metrics:
    result = decode_image(blob, SIDE, LIMITS)
    assert isinstance(result, DecodedImage), result
    return dict(result.quality)


if __name__ == "__main__":
    main()
