"""One suite for every row source: an array, a subset, a file, torch. Same rows, same picks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixsift.adapters.accelerator.rows import TorchRows
from pixsift.adapters.ledger.spill_rows import SpillRows
from pixsift.core.choosing.kcenter import k_center_greedy
from pixsift.core.choosing.rows import (
    ArrayRows,
    BlockRows,
    RowSource,
    error_bound,
    squared_distances,
    widened,
)
from pixsift.errors import UserError
from pools import unit_rows
from textbook import textbook

Make = Callable[[NDArray[np.float16]], RowSource]


@pytest.fixture(params=["array", "float32", "memory map", "subset", "spill", "spilled subset",
                        "large spilled subset", "torch", "torch subset"])  # fmt: skip
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a source of float16 rows."""

    def padded(rows: NDArray[np.float16]) -> tuple[NDArray[np.float16], NDArray[np.intp]]:
        places = np.arange(len(rows)) * 3 + 1
        wide = np.full((3 * len(rows) + 2, rows.shape[1]), np.float16(7))
        wide[places] = rows
        return wide, places

    def mapped(rows: NDArray[np.float16]) -> RowSource:
        np.save(tmp_path / "rows.npy", rows)
        return ArrayRows(np.load(tmp_path / "rows.npy", mmap_mode="r"))

    def spilled(rows: NDArray[np.float16]) -> SpillRows:
        source = SpillRows(tmp_path, rows.shape[1])
        for start in range(0, len(rows), 77):
            source.append(rows[start : start + 77])
        return source

    def unheld(rows: NDArray[np.float16]) -> RowSource:
        wide, places = padded(rows)
        return BlockRows.subset(spilled(wide), places)  # as for one too large to hold

    makers: dict[str, Make] = {
        "large spilled subset": unheld,
        "array": ArrayRows,
        "float32": lambda rows: ArrayRows(rows.astype(np.float32)),
        "memory map": mapped,
        "subset": lambda rows: ArrayRows(padded(rows)[0]).subset(padded(rows)[1]),
        "spill": spilled,
        "spilled subset": lambda rows: spilled(padded(rows)[0]).subset(padded(rows)[1]),
        "torch": lambda rows: TorchRows(rows, device="cpu"),
        "torch subset": lambda rows: TorchRows(padded(rows)[0], device="cpu").subset(
            padded(rows)[1]
        ),
    }
    return makers[request.param]


def test_rows__picks_are_the_textbooks(make: Make) -> None:
    rows = unit_rows(900, 24, seed=4, centers=30)
    rows[100:130] = rows[500:530]
    source = make(rows)
    found = k_center_greedy(source, 120, preselected=[3, 7])
    centers, radii = textbook(rows, 120, preselected=[3, 7])
    assert found.centers.tolist() == centers
    assert np.array_equal(found.radii, radii[1:])
    assert k_center_greedy(source, 40).centers.tolist() == textbook_with_our_mean(rows, 40)


def textbook_with_our_mean(rows: NDArray[np.float16], k: int) -> list[int]:
    """The first pick is the row farthest from the mean; partial sums are part of its definition."""
    points = rows.astype(np.float64)
    start = int(np.argmax(squared_distances(points, ArrayRows(rows).summary.mean)))
    return textbook(rows, k, start=start)[0]


def test_rows__take_blocks_and_summary(make: Make) -> None:
    rows = unit_rows(500, 8, seed=6)
    source = make(rows)
    exact = rows.astype(np.float64)
    assert (source.count, source.dimension) == (500, 8)
    wanted = np.array([499, 0, 0, 250, 13])
    assert np.array_equal(source.take(wanted), exact[wanted])
    assert source.take(np.arange(0)).shape == (0, 8)
    blocks = [(start, block.copy()) for start, block in source.blocks(64)]
    assert [start for start, _ in blocks] == list(range(0, 500, 64))
    assert np.array_equal(np.concatenate([b for _, b in blocks]), rows.astype(np.float32))
    assert np.array_equal(source.summary.mean, ArrayRows(rows).summary.mean)
    inner = source.subset(np.array([5, 6, 400]))
    assert np.array_equal(inner.take(np.arange(3)), exact[[5, 6, 400]])
    assert np.array_equal(inner.subset(np.array([0, 2])).take(np.arange(2)), exact[[5, 400]])


def test_rows__broken_rows_are_named(make: Make) -> None:
    rows = unit_rows(50, 4)
    rows[[8, 30], 2] = [np.nan, np.inf]
    source = make(rows)
    assert source.summary.broken.tolist() == [8, 30]
    with pytest.raises(ValueError, match="2 rows contain NaN or infinity"):
        source.lower(np.full(50, np.inf, np.float32), np.zeros((1, 4)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-20, 1e-3, 1.0, 1e4]), st.integers(1, 300))
def test_rows__passes_stay_within_the_error_bound(seed: int, scale: float, width: int) -> None:
    rng = np.random.default_rng(seed)
    rows = scale * (rng.normal(size=(40, width)) + 3 * rng.integers(2))
    for source in (ArrayRows(rows), TorchRows(rows, device="cpu")):
        nearest = np.full(40, np.inf, np.float32)
        source.lower(nearest, rows[:5])
        truth = np.min([squared_distances(rows, center) for center in rows[:5]], axis=0)
        assert np.abs(nearest - truth).max() <= error_bound(
            source.dimension, source.summary.largest_norm
        )


def test_spill_rows__reads_what_was_written_and_closes(tmp_path: Path) -> None:
    source = SpillRows(tmp_path, 3)
    source.append(np.ones((2, 3), np.float16))
    assert source.bytes_per_pass == 12
    with pytest.raises(OSError, match="ends within row"):
        source.span(1, 4)
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        source.span(0, 1)


def test_torch_rows__keeps_the_precision_of_its_source(tmp_path: Path) -> None:
    source = SpillRows(tmp_path, 4)
    source.append(unit_rows(10, 4))
    held = TorchRows.of(source, device="cpu")
    assert held.bytes_per_pass == source.bytes_per_pass
    assert np.array_equal(held.take(np.arange(10)), source.take(np.arange(10)))


def test_torch_rows__refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="unknown device 'nowhere'"):
        TorchRows(np.eye(2), device="nowhere")


@pytest.mark.gpu
def test_torch_rows__picks_on_a_gpu_are_the_same() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rows = unit_rows(20_000, 96, seed=8, centers=100)
    expected = k_center_greedy(rows, 500)
    found = k_center_greedy(TorchRows(rows, device="cuda"), 500)
    assert found.centers.tolist() == expected.centers.tolist()


def test_widened__is_exact_for_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    found = widened(halves, np.empty(halves.shape, np.int32))
    assert np.array_equal(found.view(np.int32), halves.astype(np.float32).view(np.int32))


def test_rows__many_centers_in_one_pass(make: Make) -> None:
    rows = unit_rows(300, 4, seed=9)
    source = make(rows)
    nearest = np.full(300, np.inf, np.float32)
    far = unit_rows(9000, 4, seed=10).astype(np.float64)
    source.lower(nearest, far)
    truth = [squared_distances(far, row).min() for row in rows.astype(np.float64)]
    assert np.abs(nearest - truth).max() <= 2 * error_bound(
        source.dimension, source.summary.largest_norm
    )


def test_subset__must_ascend() -> None:
    with pytest.raises(ValueError, match="must be in ascending order"):
        ArrayRows(unit_rows(5, 4)).subset(np.array([3, 3]))
