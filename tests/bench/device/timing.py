"""Clocks that wait for the device."""

import statistics
import time
from collections.abc import Callable

import torch


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(
    works: dict[str, Callable[[], object]], device: torch.device, *, seconds: float, warmup: int = 2
) -> dict[str, float]:
    """Median seconds of each work; in turn, about ``seconds`` each and at least three times."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warmup):
        for work in works.values():
            work()
    synchronize(device)
    until = time.perf_counter() + seconds * len(works)
    while len(next(iter(samples.values()))) < 3 or time.perf_counter() < until:
        for name, work in works.items():
            started = time.perf_counter()
            work()
            synchronize(device)
            samples[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in samples.items()}


def median_seconds(
    work: Callable[[], object], device: torch.device, *, seconds: float = 0.5
) -> float:
    """The same for one work."""
    return seconds_each({"it": work}, device, seconds=seconds)["it"]


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Free and total memory of the device; main memory for a CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    import os

    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
