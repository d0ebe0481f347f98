"""k-center (and facility location) with rows on the device: the CPU's picks, and their time."""

import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device.limits import product
from bench.device.options import Options
from bench.device.sheet import Sheet
from bench.device.timing import memory_bytes, synchronize
from pixsift.adapters.accelerator.device import pick_device
from pixsift.adapters.accelerator.rows import TorchRows
from pixsift.core.choosing.kcenter import k_center_greedy
from pixsift.core.choosing.rows import ArrayRows


def run(sheet: Sheet, options: Options) -> None:
    device = pick_device(options.device)
    small = (2_000, 64, 50) if options.tiny else (100_000, 384, 1_000)
    rows = _rows(small[0], small[1], device)
    _beside_the_cpu(sheet, rows, small[2], options.device)
    _facility(sheet, options, device)
    large = (4_000, 64, 50) if options.tiny else (1_000_000, 768, 4_000)
    needed = large[0] * large[1] * 8
    if needed > 0.8 * memory_bytes(device)[0]:
        sheet.skip(f"k-center at {large[0]:,}", f"needs {needed / 1e9:.0f} GB")
        return
    _timed(sheet, "k-center", _rows(large[0], large[1], device), large[2], options.device)


def _rows(count: int, dimension: int, device: torch.device) -> torch.Tensor:
    """(N, D) unit halves around 2,000 centers, made on the device."""
    chance = torch.Generator(device=device).manual_seed(3)
    centers = torch.randn((2_000, dimension), generator=chance, device=device)
    rows = torch.empty((count, dimension), dtype=torch.float16, device=device)
    for start in range(0, count, 65_536):
        part = rows[start : start + 65_536]
        which = torch.randint(0, 2_000, (len(part),), generator=chance, device=device)
        noise = torch.randn(part.shape, generator=chance, device=device)
        wide = centers[which] + 0.6 * noise
        part.copy_(wide / wide.norm(dim=1, keepdim=True))
    return rows


def _beside_the_cpu(sheet: Sheet, rows: torch.Tensor, k: int, device: str) -> None:
    host: NDArray[np.float16] = rows.cpu().numpy()
    started = time.perf_counter()
    expected = k_center_greedy(ArrayRows(host), k, start=0)
    on_cpu = time.perf_counter() - started
    sheet.add(f"k-center, {len(host):,} x {host.shape[1]}, k={k:,}, numpy", on_cpu, "s")
    found = _timed(sheet, "k-center", rows, k, device)
    differing = int((found.centers != expected.centers).sum())
    sheet.add(
        f"k-center, picks beside the CPU's, {len(host):,}", differing, "picks differ",
        goal="right", met=differing == 0,
    )  # fmt: skip


def _facility(sheet: Sheet, options: Options, device: torch.device) -> None:
    """Facility location reads the same row sources; reported as left out if it does not exist
    yet."""
    count, dimension, k = (400, 64, 10) if options.tiny else (50_000, 384, 500)
    name = f"facility location, {count:,} x {dimension}, k={k:,}"
    if find_spec("pixsift.core.choosing.facility") is None:
        sheet.skip(name, "pixsift has no facility location")
        return
    choose = import_module("pixsift.core.choosing.facility").facility_location
    rows = _rows(count, dimension, device)
    found = {}
    for where, source in (
        ("numpy", ArrayRows(rows.cpu().numpy())),
        ("rows on the device", TorchRows(rows, device=options.device)),
    ):
        started = time.perf_counter()
        found[where] = choose(source, k)
        seconds = time.perf_counter() - started
        rate = sheet.known(product(torch.float32))
        passes = found[where].passes
        sheet.add(
            f"{name}, {where}", seconds, "s",
            limit=passes * count**2 * dimension / (rate * 1e12) if rate and passes else None,
            limit_name="the bare products of its passes", note=f"{passes} passes",
        )  # fmt: skip
    same = np.array_equal(found["numpy"].picks, found["rows on the device"].picks)
    sheet.add(f"{name}: picks beside the CPU's", same, "the same", goal="right", met=same)


def _timed(sheet: Sheet, name: str, rows: torch.Tensor, k: int, device: str) -> Any:
    """Run it once for the clock, after a short one that loads what is loaded lazily."""
    source = TorchRows(rows, device=device)
    k_center_greedy(source, min(k, 8), start=0)
    _ = source.summary  # one pass over all rows, which a pool has already made
    synchronize(rows.device)
    started = time.perf_counter()
    found = k_center_greedy(source, k, start=0)
    seconds = time.perf_counter() - started
    count, dimension = rows.shape
    rate = sheet.known(product(torch.float32))
    sheet.add(
        f"{name}, {count:,} x {dimension}, k={k:,}, rows on the device", seconds, "s",
        limit=2 * count * k * dimension / (rate * 1e12) if rate else None,
        limit_name="the bare matrix products", note=f"{found.passes} passes",
    )  # fmt: skip
    return found
