"""JPEG to model input: the sandboxed children on all cores, compared with the GPU's own decoder.

The second is an experiment (docs/adr/0100): it parses untrusted bytes in a process that holds the
GPU, and its pixels are not the recipe's. Its figures help to decide whether to use it.
"""

import ctypes
import io
import math
import os
import queue
import resource
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.device import models
from bench.device.embedding import batch_of, pictures
from bench.device.options import Options
from bench.device.photos import SIZES, TINY, photo
from bench.device.sheet import Sheet
from bench.device.timing import median_seconds
from pixsift.adapters.accelerator.device import pick_device, usable_processors
from pixsift.adapters.decode.pool import DecodeLimits, DecoderPool
from pixsift.adapters.decode.recipe import decode_image
from pixsift.adapters.models.dinov2 import SIDE, Dinov2Embedder
from pixsift.core.images import DecodedImage


def run(sheet: Sheet, options: Options) -> None:
    cores = usable_processors()
    sizes = TINY if options.tiny else SIZES
    blobs = {
        name: [photo(size, seed) for seed in range(2 if options.tiny else 4)]
        for name, size in sizes.items()
    }
    with DecoderPool(SIDE, workers=1) as child, DecoderPool(SIDE, workers=cores) as children:
        for name, some in blobs.items():
            sheet.add(f"{name}: bytes of a JPEG", sum(map(len, some)) / len(some) / 1e3, "kB")
            alone = _rate(child, some, 1, options)
            sheet.add(f"{name}: decoded by one child", alone, "images/s")
            together = _rate(children, some, cores, options)
            sheet.add(f"{name}: decoded by {cores} children", together, "images/s",
                      limit=cores * alone, limit_name=f"{cores} times one child")  # fmt: skip
            for model in models.names(options):
                _cores_to_fill(sheet, name, model, together / cores)
            if options.is_gpu:
                _on_the_gpu(sheet, options, name, some, cores / together)
            else:
                sheet.skip(f"{name}: JPEG on the GPU", "no GPU")
        model = models.names(options)[0]
        embedder = Dinov2Embedder(
            str(models.folder_of(model, options)), device=options.device,
            max_batch=batch_of(options),
        )  # fmt: skip
        for name, some in blobs.items():
            rate, busy = _to_vectors(children, embedder, some, options)
            sheet.add(f"{name}: JPEG to {model}'s vectors, {cores} cores", rate, "images/s",
                      note=f"the model worked {busy:.0%} of the time")  # fmt: skip


def _cores_to_fill(sheet: Sheet, size: str, model: str, per_core: float) -> None:
    for how in ("compiled", "eager"):
        if rate := sheet.known(f"{model}: our Embedder, {how}"):
            sheet.add(f"{size}: cores at which {model} ({how}) is full", rate / per_core, "cores",
                      note="calculated: the embedder's rate / a core's rate")  # fmt: skip
            return


def _rate(pool: DecoderPool, blobs: Sequence[bytes], workers: int, options: Options) -> float:
    """Images per second of the pool, fed as the consumer feeds it: two requests at a time."""
    _check(pool.decode(list(blobs) * workers))  # every child has started
    done, seconds = 0, 0.05 if options.tiny else 1.5
    request = list(blobs) * max(1, 2 * workers // len(blobs))
    lock = threading.Lock()
    started = time.perf_counter()

    def ask() -> None:
        nonlocal done
        more = True
        while more:
            _check(pool.decode(request))
            with lock:
                done += len(request)
            more = time.perf_counter() < started + seconds

    _together(ask)
    return done / (time.perf_counter() - started)


def _to_vectors(
    pool: DecoderPool, embedder: Dinov2Embedder, blobs: Sequence[bytes], options: Options
) -> tuple[float, float]:
    """Decoded by all cores and embedded, side by side: images/s, and how much the model worked."""
    batch, seconds = batch_of(options), 0.1 if options.tiny else 2.0
    hand_over: queue.Queue[list[NDArray[np.uint8]]] = queue.Queue(maxsize=4)
    request = (list(blobs) * batch)[:batch]
    embedder.embed(pictures(batch))
    started = time.perf_counter()

    def decode() -> None:
        more = True
        while more:
            hand_over.put([image.model_input for image in _check(pool.decode(request))])
            more = time.perf_counter() < started + seconds

    def decode_all() -> None:
        _together(decode)
        hand_over.put([])

    decoders = threading.Thread(target=decode_all)
    decoders.start()
    done, busy = 0, 0.0
    while images := hand_over.get():
        begun = time.perf_counter()
        embedder.embed(images)
        busy += time.perf_counter() - begun
        done += len(images)
    decoders.join()
    took = time.perf_counter() - started
    return done / took, busy / took


def _together(work: Callable[[], None]) -> None:
    """In two threads, as the consumer's decode stage runs."""
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _check(results: Sequence[object]) -> list[DecodedImage]:
    images = [result for result in results if isinstance(result, DecodedImage)]
    if len(images) < len(results):
        raise AssertionError(f"not decoded: {results[0]}")
    return images


def _on_the_gpu(
    sheet: Sheet, options: Options, name: str, blobs: Sequence[bytes], cpu_seconds: float
) -> None:
    """nvImageCodec: decode in full, resize on the device. cpu_seconds: of the pool per image."""
    try:
        decode = _gpu_decoder()
        first = decode(blobs[:1])[0]
    except Exception as error:  # an experiment: no library, no driver, another interface
        sheet.skip(f"{name}: JPEG on the GPU", f"nvImageCodec: {type(error).__name__}: {error}")
        return
    device = pick_device(options.device)
    request = list(blobs) * max(1, 64 // len(blobs))
    cpu, runs, began = _cpu_seconds(), 0, time.perf_counter()

    def work() -> None:
        nonlocal runs
        runs += 1
        for image in decode(request):
            resized(image)

    seconds = median_seconds(work, device, seconds=1.5)
    wall = time.perf_counter() - began
    spent = (_cpu_seconds() - cpu) / (runs * len(request))
    rate = len(request) / seconds
    sheet.add(f"{name}: JPEG on the GPU, resized", rate, "images/s", limit=1 / cpu_seconds,
              limit_name="one core of the sandboxed children",
              note=f"{1e3 * spent:.2f} ms of CPU an image, "
                   f"{spent * runs * len(request) / wall:.1f} cores in use")  # fmt: skip
    sheet.add(f"{name}: cores saved by the GPU's decoder", rate * (cpu_seconds - spent), "cores")
    sheet.add(f"{name}: GPU's pixels beside libjpeg-turbo's", _psnr(first, _full(blobs[0])), "dB",
              note=_difference(first, _full(blobs[0])))  # fmt: skip
    ours = decode_image(blobs[0], SIDE, DecodeLimits())
    (image,) = _check([ours])
    theirs = resized(first).permute(1, 2, 0).cpu().numpy()
    sheet.add(f"{name}: GPU's model input beside the recipe's", _psnr(theirs, image.model_input),
              "dB", note=_difference(theirs, image.model_input))  # fmt: skip


def _gpu_decoder() -> Any:
    """A function from blobs to (H, W, 3) uint8 tensors on the GPU. Never its CPU fall-backs."""
    for path in _site_folders():
        if (library := path / "nvidia" / "cu13" / "lib" / "libnvjpeg.so.13").exists():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            break
    nvimgcodec: Any = import_module("nvidia.nvimgcodec")

    kinds = (nvimgcodec.HW_GPU_ONLY, nvimgcodec.GPU_ONLY, nvimgcodec.HYBRID_CPU_GPU)
    decoder = nvimgcodec.Decoder(backends=[nvimgcodec.Backend(kind) for kind in kinds])

    def decode(blobs: Sequence[bytes]) -> list[torch.Tensor]:
        images = decoder.decode([nvimgcodec.CodeStream(blob) for blob in blobs])
        if any(image is None for image in images):
            raise RuntimeError("an image was not decoded")
        return [torch.utils.dlpack.from_dlpack(image) for image in images]

    return decode


def resized(image: torch.Tensor) -> torch.Tensor:
    """(3, S, S) uint8: bicubic with the support of the scale, as Pillow's."""
    wide = image.permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(wide, (SIDE, SIDE), mode="bicubic", antialias=True)
    return small[0].round_().clamp_(0, 255).to(torch.uint8)


def _site_folders() -> list[Path]:
    return [Path(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p] + [
        Path(sysconfig.get_paths()["purelib"])
    ]


def _full(blob: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(blob)) as image:
        return np.asarray(image.convert("RGB"))


def _psnr(a: "torch.Tensor | NDArray[np.uint8]", b: NDArray[np.uint8]) -> float:
    error = float(np.mean((_host(a).astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


def _difference(a: "torch.Tensor | NDArray[np.uint8]", b: NDArray[np.uint8]) -> str:
    apart = np.abs(_host(a).astype(np.int16) - b)
    return f"mean difference {apart.mean():.2f}, largest {apart.max()} of 255"


def _host(values: "torch.Tensor | NDArray[np.uint8]") -> NDArray[np.uint8]:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
