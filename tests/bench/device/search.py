"""Exact resident search on the device: decisions per second, memory, and the oracle's answers.

Rows are made where they are searched: 4 million rows of float32 through numpy would take the whole
phase. They come in bursts of 4,096, as robots upload them. Queries lie at 0.5 to 1.5 epsilon from
a stored row; the last ones lie at epsilon itself, to the last bit of float64, which only the
settling in float64 can decide.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device.limits import COPY, product
from bench.device.options import Options
from bench.device.sheet import Sheet
from bench.device.timing import median_seconds, memory_bytes
from pixsift.adapters.accelerator.device import pick_device
from pixsift.adapters.search.mirror import BLOCK_ROWS, unit_rows
from pixsift.adapters.search.torch_resident import TorchBlocks
from pixsift.core.dedup import SCREEN_MARGIN, cosine_distance

DIMENSION, BURST, EPSILON = 768, 4096, 0.05
QUERIES = 64
GOAL_AT_MILLION = 20_000
_SPREAD = 0.33
_ULPS = 1e-9
"""Distances from the device's float64 this near epsilon are measured again by the definition."""


def run(sheet: Sheet, options: Options) -> None:
    device = pick_device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    counts = (1_000, 17_000) if options.tiny else (100_000, 1_000_000, 4_000_000)
    stored = _Stored(device)
    for count in counts:
        # float32 rows, halves, and the oracle's float64 distances
        needed = (count - stored.count) * DIMENSION * 6 + 20 * QUERIES * count
        free = memory_bytes(device)[0]
        if needed > 0.9 * free:
            sheet.skip(f"{count:,} rows", f"needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB free")
            continue
        stored.grow(count)
        _measure(sheet, options, stored, device)


class _Stored:
    """Rows in ``TorchBlocks``, and the halves they came from."""

    def __init__(self, device: torch.device) -> None:
        self.blocks = TorchBlocks(DIMENSION, str(device))
        self.halves: list[torch.Tensor] = []
        self.count = 0
        self._device = device
        self._chance = torch.Generator(device=device).manual_seed(1)

    def grow(self, count: int) -> None:
        """Up to ``count`` rows; the last block may be filled again."""
        if self.count % BLOCK_ROWS:
            self.halves.pop()
            self.blocks._blocks.pop()
        for start in range(len(self.halves) * BLOCK_ROWS, count, BLOCK_ROWS):
            halves = self._bursts()
            rows = halves.float()
            self.blocks._blocks.append(rows / rows.norm(dim=1, keepdim=True))
            self.halves.append(halves[: count - start])
        self.count = count

    def row(self, index: int) -> NDArray[np.float16]:
        block, place = divmod(index, BLOCK_ROWS)
        values: NDArray[np.float16] = self.halves[block][place].cpu().numpy()
        return values

    def distances(self, queries: NDArray[np.float16]) -> torch.Tensor:
        """(Q, count) in float64 on the device: the oracle."""
        asked = _unit64(torch.from_numpy(queries).to(self._device))
        return torch.cat([1.0 - asked @ _unit64(halves).T for halves in self.halves], dim=1)

    def _bursts(self) -> torch.Tensor:
        shape = (BLOCK_ROWS // BURST, BURST, DIMENSION)
        centers = torch.randn((shape[0], 1, DIMENSION), generator=self._chance, device=self._device)
        noise = torch.randn(shape, generator=self._chance, device=self._device)
        centers /= centers.norm(dim=2, keepdim=True)
        noise /= noise.norm(dim=2, keepdim=True)
        return (centers + _SPREAD * noise).reshape(BLOCK_ROWS, DIMENSION).half()


def _measure(sheet: Sheet, options: Options, stored: _Stored, device: torch.device) -> None:
    count, name = stored.count, f"{stored.count:,} x {DIMENSION}"
    if options.is_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    queries = _queries(stored)
    unit = unit_rows(queries)
    least = 1.0 - EPSILON - SCREEN_MARGIN
    for batch in (QUERIES, 4 * QUERIES):
        asked = np.ascontiguousarray(np.tile(unit, (batch // QUERIES, 1)))
        seconds = median_seconds(
            lambda asked=asked: stored.blocks.hits(asked, count, least),  # type: ignore[misc]
            device, seconds=0.05 if options.tiny else 0.5,
        )  # fmt: skip
        limit = _limit_seconds(sheet, count, batch)
        sheet.add(
            f"decisions, {name}, {batch} in flight", batch / seconds, "decisions/s",
            limit=batch / limit if limit else None, limit_name="reading the rows, or the products",
            note=f"{1e3 * seconds:.2f} ms a batch, upload and answer included",
        )  # fmt: skip
        if count == 1_000_000 and batch == QUERIES:
            sheet.add("decisions at a million", batch / seconds, "decisions/s",
                      at_least=GOAL_AT_MILLION)  # fmt: skip
    if options.is_gpu:
        rows = count * DIMENSION * 4
        peak = torch.cuda.max_memory_allocated(device) - sum(h.numel() * 2 for h in stored.halves)
        sheet.add(
            f"memory, {name}", peak / 1e9, "GB", limit=rows / 1e9, limit_name="the rows in float32"
        )
    _check_answers(sheet, stored, queries, name)


def _queries(stored: _Stored) -> NDArray[np.float16]:
    """(QUERIES, D): 0.5 to 1.5 epsilon from a stored row each."""
    chance = np.random.default_rng(5)
    queries = np.empty((QUERIES, DIMENSION), np.float16)
    for number in range(QUERIES):
        near = stored.row(int(chance.integers(stored.count))).astype(np.float64)
        near /= np.linalg.norm(near)
        aside = chance.standard_normal(DIMENSION)
        aside -= (aside @ near) * near
        aside /= np.linalg.norm(aside)
        cosine = 1.0 - chance.uniform(0.5, 1.5) * EPSILON
        queries[number] = cosine * near + np.sqrt(1 - cosine**2) * aside
    return queries


def _check_answers(sheet: Sheet, stored: _Stored, queries: NDArray[np.float16], name: str) -> None:
    """What the screen proposes and float64 settles must be the oracle's pairs, ties included."""
    oracle = stored.distances(queries)
    nearest = oracle[0][oracle[0] <= 2 * EPSILON]
    epsilons = [EPSILON]
    if len(nearest):  # epsilon as the very distance of a pair, by the definition
        row = int(torch.argmin((oracle[0] - nearest.median()).abs()))
        epsilons.append(cosine_distance(queries[0], stored.row(row)))
    wrong = pairs = near_ties = 0
    for epsilon in epsilons:
        asked, rows = stored.blocks.hits(
            unit_rows(queries), stored.count, 1.0 - epsilon - SCREEN_MARGIN
        )
        proposed = set(zip(asked.tolist(), rows.tolist(), strict=True))
        settled = {p for p in proposed if _is_near(oracle, stored, queries, p, epsilon)}
        band = torch.nonzero(oracle <= epsilon + _ULPS).cpu().numpy().tolist()
        true = {(q, r) for q, r in band if _is_near(oracle, stored, queries, (q, r), epsilon)}
        wrong += len(true ^ settled)
        pairs += len(true)
        near_ties += int(((oracle - epsilon).abs() <= 1e-6).sum())
    sheet.add(
        f"answers, {name}", wrong, "pairs wrong", goal="right", met=wrong == 0 and pairs > 0,
        note=f"{pairs} pairs within epsilon, {near_ties} of all pairs within 1e-6 of it",
    )  # fmt: skip


def _is_near(
    oracle: torch.Tensor,
    stored: _Stored,
    queries: NDArray[np.float16],
    pair: tuple[int, int],
    epsilon: float,
) -> bool:
    """By the definition where the device's float64, which sums in another order, is too near."""
    query, row = pair
    distance = float(oracle[query, row])
    if abs(distance - epsilon) <= _ULPS:
        distance = cosine_distance(queries[query], stored.row(row))
    return distance <= epsilon


def _limit_seconds(sheet: Sheet, count: int, batch: int) -> float | None:
    bandwidth, rate = sheet.known(COPY), sheet.known(product(torch.float32))
    if not bandwidth or not rate:
        return None
    reading = count * DIMENSION * 4 / (bandwidth * 1e9)
    return max(reading, 2 * batch * count * DIMENSION / (rate * 1e12))


def _unit64(halves: torch.Tensor) -> torch.Tensor:
    wide = halves.double()
    unit: torch.Tensor = wide / wide.norm(dim=1, keepdim=True)
    return unit
