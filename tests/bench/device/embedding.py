"""Images per second of DINOv2: the bare loop, the same from host arrays, our ``Embedder``.

All three run the same model, in the precision that our embedder chose, compiled or not; the bare
loop finds its batch on the device, normalized. The hand-written loop from host arrays does what one
would: stack, pin, upload, normalize, and fetch all rows at the end.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.device import models
from bench.device.limits import product
from bench.device.options import Options
from bench.device.sheet import Sheet
from bench.device.timing import seconds_each
from pixsift.adapters.accelerator.device import fidelity, pick_device, probe_images
from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.calibration.labeled_pairs import measure_noise
from pixsift.adapters.models.dinov2 import SIDE, Dinov2Embedder, _pooled, load_model
from pixsift.core.calibration import NOISE_MARGIN
from pixsift.core.images import Pixels

ROUNDS = 4
"""Batches per measured call."""


def run(sheet: Sheet, options: Options) -> None:
    # What costs no compiler first, for all models.
    embedders = {name: _uncompiled(sheet, options, name) for name in models.names(options)}
    if not options.compiles:
        sheet.skip("compiled models", "--no-compile")
        return
    for name, embedder in embedders.items():
        batches = embedder._batches
        batches.forward = torch.compile(batches.forward, dynamic=False)
        _three_loops(sheet, options, name, embedder, "compiled")


def batch_of(options: Options) -> int:
    """The batch size of the reported figures."""
    return 4 if options.tiny else 128


def _uncompiled(sheet: Sheet, options: Options, name: str) -> Dinov2Embedder:
    embedder = Dinov2Embedder(
        str(models.folder_of(name, options)), device=options.device, max_batch=batch_of(options)
    )
    sheet.add(f"{name}: precision", str(embedder.dtype), note="chosen at start")
    _three_loops(sheet, options, name, embedder, "eager")
    _precision(sheet, options, name)
    images = pictures(9 if options.tiny else 64)
    noise = measure_noise(embedder, images)
    epsilon = default_calibration(embedder.space).epsilon
    sheet.add(
        f"{name}: noise across batch positions", noise, "cosine distance", limit=epsilon,
        limit_name="epsilon", at_most=1 / NOISE_MARGIN,
    )  # fmt: skip
    if name in ("B", "tiny"):
        _batch_and_fill(sheet, options, name, embedder)
    return embedder


def pictures(count: int, *, side: int = SIDE) -> list[Pixels]:
    """Unlike each other, with structure at several scales."""
    chance = np.random.default_rng(11)
    found = []
    for number in range(count):
        cells = 4 + number % 29
        coarse = chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        index = np.arange(side) * cells // side
        found.append(np.ascontiguousarray(coarse[index][:, index]))
    return found


def _three_loops(
    sheet: Sheet, options: Options, name: str, embedder: Dinov2Embedder, how: str
) -> None:
    batch, device = batch_of(options), pick_device(options.device)
    rounds = 1 if options.tiny else ROUNDS
    images = pictures(batch) * rounds
    bare = _bare(embedder, images[:batch], device)
    rates = {
        loop: len(images) / seconds
        for loop, seconds in seconds_each(
            {
                "bare": lambda: [bare() for _ in range(rounds)],
                "host": lambda: _from_host(embedder, images, batch, device),
                "ours": lambda: embedder.embed(images),
            },
            device, seconds=0.05 if options.tiny else 1.5,
        ).items()
    }  # fmt: skip
    peak = sheet.known(product(embedder.dtype))
    sheet.add(
        f"{name}: bare loop, {how}", rates["bare"], "images/s",
        limit=1e3 * peak / models.gflop(name) if peak else None,
        limit_name=f"{models.gflop(name):.1f} GFLOP an image", note=f"batch {batch}",
    )  # fmt: skip
    sheet.add(f"{name}: from host arrays, {how}", rates["host"], "images/s", limit=rates["bare"],
              limit_name="the bare loop")  # fmt: skip
    sheet.add(f"{name}: our Embedder, {how}", rates["ours"], "images/s", limit=rates["host"],
              limit_name="the hand-written loop from host arrays",
              at_least=None if options.tiny else 0.95)  # fmt: skip


def _bare(
    embedder: Dinov2Embedder, images: Sequence[Pixels], device: torch.device
) -> Callable[[], torch.Tensor]:
    batches = embedder._batches
    pixels = torch.from_numpy(np.stack(images)).to(device)
    batch = batches._normalize(pixels, batches.dtype)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return batches.forward(batch)

    return forward


def _from_host(
    embedder: Dinov2Embedder, images: Sequence[Pixels], batch: int, device: torch.device
) -> torch.Tensor:
    batches, rows = embedder._batches, []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            host = torch.from_numpy(np.stack(images[start : start + batch]))
            if device.type == "cuda":
                host = host.pin_memory()
            pixels = batches._normalize(host.to(device, non_blocking=True), batches.dtype)
            rows.append(batches.forward(pixels))
        return torch.cat(rows).float().cpu()


def _precision(sheet: Sheet, options: Options, name: str) -> None:
    """Least cosine of half precision to float32, over probes and pictures alike."""
    device = pick_device(options.device)
    model = load_model(models.folder_of(name, options), "dinov2").to(device)
    forward = _pooled(model, "cls")
    count = 2 if options.tiny else 24
    plain = torch.from_numpy(np.stack(pictures(count))).to(device).permute(0, 3, 1, 2)
    images = torch.cat([probe_images(SIDE).to(device), plain.float() / 64 - 2])
    with torch.inference_mode():
        expected = forward(images).float()
        for dtype in (torch.bfloat16, torch.float16):
            half = load_model(models.folder_of(name, options), "dinov2").to(device, dtype)
            found = _pooled(half, "cls")(images.to(dtype)).float()
            sheet.add(
                f"{name}: {str(dtype).removeprefix('torch.')} beside float32",
                fidelity(expected, found), "least cosine", at_least=0.999,
            )  # fmt: skip


def _batch_and_fill(sheet: Sheet, options: Options, name: str, embedder: Dinov2Embedder) -> None:
    """What a batch of another size gives, and what a ragged tail costs."""
    device = pick_device(options.device)
    sizes = (1, 4) if options.tiny else (1, 8, 32, 64, 128, 256)
    works = {size: _bare(embedder, pictures(size), device) for size in sizes}
    seconds = {size: seconds_each({"it": work}, device, seconds=0.02 if options.tiny else 0.4)["it"]
               for size, work in works.items()}  # fmt: skip
    best = max(size / taken for size, taken in seconds.items())
    for size, taken in seconds.items():
        sheet.add(f"{name}: bare loop, eager, batch {size}", size / taken, "images/s", limit=best,
                  limit_name="the best batch")  # fmt: skip
    batch = batch_of(options)
    ragged = pictures(batch // 2 + max(1, batch // 8))
    full = pictures(batch)
    both = seconds_each(
        {"full": lambda: embedder.embed(full), "ragged": lambda: embedder.embed(ragged)},
        device, seconds=0.05 if options.tiny else 0.5,
    )  # fmt: skip
    sheet.add(
        f"{name}: images/s of a batch filled to {len(ragged) / batch:.0%}",
        len(ragged) / both["ragged"], "images/s", limit=batch / both["full"],
        limit_name="a full batch",
    )  # fmt: skip
