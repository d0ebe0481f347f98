"""Quality checks compared with CleanVision on the same images: AUROC per check and dose, false
alarms.

Clean images: the Kodak suite and a sample of clothing photographs, at about 0.15 megapixels (or
generated scenes where the folder next to the checkout is absent). Each is degraded in graded doses;
AUROC tells how well a score separates a dose from the clean ones, whatever the threshold.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bench.report import publish, table
from pixsift.core.quality import QualityPolicy, judge, measure

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"
PEER = Path(__file__).with_name("cleanvision_peer.py")
MOST_CLOTHING = 26
MISSING = 1e9
"""A score that is absent counts as the best: such an image is never flagged."""

Dose = Callable[[Image.Image], Image.Image]


def main() -> dict[str, Any]:
    """Build the doses, score them twice, compare."""
    clean = clean_images()
    with tempfile.TemporaryDirectory() as folder:
        names = _write(Path(folder), clean)
        ours, our_seconds = _ours(Path(folder), names)
        theirs = _theirs(Path(folder))
    figures: dict[str, Any] = {
        "images": len(clean), "doses": {}, "milliseconds_per_image": our_seconds * 1e3,
        "peer": "cleanvision 0.3.7" if theirs else "left out: PIXSIFT_BENCH_PEERS is unset",
        "peer_milliseconds_per_image": theirs and theirs["seconds"] / len(theirs["images"]) * 1e3,
    }  # fmt: skip
    rows = []
    for dose, (check, sign, peer_check, _) in DOSES.items():
        bad, good = _names(dose, len(clean)), _names("clean", len(clean))
        figure = _mine(bad, good, ours, check, sign) | _peers(bad, good, theirs, peer_check)
        figures["doses"][dose] = figure
        rows.append([dose, check, *figure.values()])
    alarms = _false_alarms(len(clean), ours, theirs)
    figures["false_alarms"] = alarms
    header = ["dose", "check", "AUROC", "flagged", "CleanVision AUROC", "flagged by it"]
    text = (
        f"{len(clean)} clean images; measured in {our_seconds * 1e3:.1f} ms per image with reading,"
        f" CleanVision {figures['peer_milliseconds_per_image'] or 0:.1f} ms\n\n"
        f"{table(header, rows)}\n\nFalse alarms on the clean images: {alarms}"
    )
    publish("quality", figures, text)
    return figures


def clean_images() -> list[Image.Image]:
    """About 0.15 megapixels each."""
    paths = sorted((DATA / "kodak").glob("*.png"))
    clothing = sorted((DATA / "clothing").rglob("*.jpg"))
    paths += clothing[:: max(1, len(clothing) // MOST_CLOTHING)][:MOST_CLOTHING]
    if not paths:
        return [_generated(seed) for seed in range(40)]
    images = []
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scale = (150_000 / (image.width * image.height)) ** 0.5
        images.append(
            image if scale >= 1 else image.resize(
                (round(image.width * scale), round(image.height * scale)),
                Image.Resampling.BICUBIC,
            )
        )  # fmt: skip
    return images


def blur(sigma: float) -> Dose:
    """Gaussian, in pixels."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(sigma))


def move(length: int) -> Dose:
    """Horizontal motion, in pixels; an odd number."""

    def moved(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image)
        total = np.zeros(pixels.shape, np.uint16)
        for shift in range(length):
            total += np.roll(pixels, shift, axis=1)
        return Image.fromarray(((total + length // 2) // length).astype(np.uint8))

    return moved


def move_down(length: int) -> Dose:
    """Motion along a diagonal: one pixel to the right and one down at each of ``length`` steps."""

    def moved(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image)
        total = np.zeros(pixels.shape, np.uint16)
        for shift in range(length):
            total += np.roll(pixels, (shift, shift), axis=(0, 1))
        return Image.fromarray(((total + length // 2) // length).astype(np.uint8))

    return moved


def _scale(factor: float) -> Dose:
    return lambda image: Image.fromarray(
        np.clip(np.asarray(image) * float(factor), 0, 255).astype(np.uint8)
    )


def _noise(sigma: float) -> Dose:
    def noisy(image: Image.Image) -> Image.Image:
        noise = np.random.default_rng(1).normal(0, sigma, np.asarray(image).shape)
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))

    return noisy


def _flatten(share: float) -> Dose:
    return lambda image: Image.blend(image, Image.new("RGB", image.size, (128,) * 3), share)


def _jpeg(quality: int) -> Dose:
    def squeezed(image: Image.Image) -> Image.Image:
        import io

        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(io.BytesIO(out.getvalue())).convert("RGB")

    return squeezed


DOSES: dict[str, tuple[str, int, str, Dose]] = {
    # dose: our check's metric, its bad direction, CleanVision's check, how
    **{f"blur sigma {s:g}": ("blurred", -1, "blurry", blur(s)) for s in (1, 2, 3, 5)},
    **{f"motion {n} px": ("motion_blurred", -1, "blurry", move(n)) for n in (5, 9, 15)},
    **{f"diagonal motion {n} px": ("motion_blurred", -1, "blurry", move_down(n))
       for n in (5, 9, 15)},
    **{f"darker x{f:g}": ("dark", -1, "dark", _scale(f)) for f in (0.5, 0.25, 0.1, 0.05)},
    **{f"brighter x{f:g}": ("bright", +1, "light", _scale(f)) for f in (1.5, 2.5, 4)},
    **{f"flat {s:g}": ("low_information", -1, "low_information", _flatten(s))
       for s in (0.8, 0.95, 0.99)},
    **{f"noise sigma {s:g}": ("noisy", +1, "", _noise(s)) for s in (5, 10, 20)},
    **{f"JPEG quality {q}": ("blocky", +1, "", _jpeg(q)) for q in (30, 10, 5)},
}  # fmt: skip


def _write(folder: Path, clean: list[Image.Image]) -> list[str]:
    doses: dict[str, Dose] = {"clean": lambda image: image}
    doses |= {dose: how for dose, (_, _, _, how) in DOSES.items()}
    names = []
    for dose, how in doses.items():
        for index, image in enumerate(clean):
            name = f"{dose.replace(' ', '_')}-{index:03}.png"
            how(image).save(folder / name, compress_level=1)
            names.append(name)
    return names


def _ours(folder: Path, names: list[str]) -> tuple[dict[str, dict[str, float]], float]:
    start = time.perf_counter()
    metrics = {}
    for name in names:
        with Image.open(folder / name) as image:
            pixels = np.asarray(image.convert("RGB"))
            metrics[name] = measure(pixels, luma=np.asarray(image.convert("L")))
    return metrics, (time.perf_counter() - start) / len(names)


def _theirs(folder: Path) -> dict[str, Any] | None:
    python = os.environ.get("PIXSIFT_BENCH_PEERS")
    if not python:
        return None
    out = folder / "peer.json"
    subprocess.run(
        [python, str(PEER), str(folder), str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads(out.read_text())
    result["images"] = {Path(name).name: row for name, row in result["images"].items()}
    return result


def _mine(
    bad: list[str], good: list[str], ours: dict[str, dict[str, float]], check: str, sign: int
) -> dict[str, Any]:
    policy = QualityPolicy.from_json({check: "flag"})
    metric = policy.checks[check].metric

    def score(name: str) -> float:
        value = ours[name].get(metric)
        return -MISSING if value is None else sign * value

    flagged = sum(check in judge(ours[name], None, policy).flags for name in bad)
    return {
        "auroc": auroc([score(n) for n in bad], [score(n) for n in good]),
        "flagged": f"{flagged}/{len(bad)}",
    }


def _peers(
    bad: list[str], good: list[str], theirs: dict[str, Any] | None, check: str
) -> dict[str, Any]:
    if not theirs or not check:
        return {"peer_auroc": "-", "peer_flagged": "-"}
    rows = theirs["images"]
    flagged = sum(rows[name][check][1] for name in bad)
    return {
        "peer_auroc": auroc([-rows[n][check][0] for n in bad], [-rows[n][check][0] for n in good]),
        "peer_flagged": f"{flagged}/{len(bad)}",
    }


def _false_alarms(
    count: int, ours: dict[str, dict[str, float]], theirs: dict[str, Any] | None
) -> dict[str, int]:
    clean = _names("clean", count)
    policy = QualityPolicy()
    checks = sorted({check for check, _, _, _ in DOSES.values()})
    alarms = {
        check: sum(check in judge(ours[n], None, policy).flags for n in clean) for check in checks
    }
    if theirs:
        for check in ("blurry", "dark", "light", "low_information"):
            alarms[f"CleanVision {check}"] = sum(theirs["images"][n][check][1] for n in clean)
    return alarms


def _names(dose: str, count: int) -> list[str]:
    return [f"{dose.replace(' ', '_')}-{index:03}.png" for index in range(count)]


def auroc(bad: list[float], good: list[float]) -> float:
    """Probability that a bad image scores higher than a good one; ties count half."""
    a, b = np.array(bad)[:, None], np.array(good)[None, :]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def _generated(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse: NDArray[np.uint8] = rng.integers(0, 256, (30, 40, 3), np.uint8)
    return Image.fromarray(coarse).resize((480, 320), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
