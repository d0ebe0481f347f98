"""What the device can do at most, measured: bandwidth and matrix products."""

import torch

from bench.device.options import Options
from bench.device.sheet import Sheet
from bench.device.timing import median_seconds, memory_bytes
from pixsift.adapters.accelerator.device import pick_device

COPY = "copy on the device"
PINNED = "upload from pinned memory"
PAGEABLE = "upload from pageable memory"


def product(dtype: torch.dtype) -> str:
    """The name under which the limit of a matrix product stands in the sheet."""
    return f"matrix product in {str(dtype).removeprefix('torch.')}"


def run(sheet: Sheet, options: Options) -> None:
    device = pick_device(options.device)
    free, total = memory_bytes(device)
    sheet.add("memory free at start", free / 1e9, "GB", limit=total / 1e9, limit_name="all of it")
    size = (1 << 24) if options.tiny else (1 << 30)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device)
    sheet.add(COPY, 2 * size / 1e9 / seconds, "GB/s, read and written")
    for name, pinned in ((PINNED, True), (PAGEABLE, False)):
        if pinned and not options.is_gpu:
            sheet.skip(name, "a CPU has no pinned memory")
            continue
        host = torch.randint(0, 256, (size // 8,), dtype=torch.uint8)
        host = host.pin_memory() if pinned else host
        seconds = median_seconds(
            lambda host=host: target[: size // 8].copy_(host, non_blocking=True),  # type: ignore[misc]
            device,
        )
        sheet.add(name, size / 8e9 / seconds, "GB/s")
    side = 256 if options.tiny else 8192
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        if not options.is_gpu and dtype == torch.float16:
            continue
        wide = side // 2 if dtype == torch.float64 else side
        a, b = (torch.randn((wide, wide), device=device).to(dtype) for _ in range(2))
        seconds = median_seconds(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
        sheet.add(product(dtype), 2 * wide**3 / 1e12 / seconds, "TFLOP/s")
