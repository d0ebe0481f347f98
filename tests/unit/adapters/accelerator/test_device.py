"""Device, threads and precision."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pixsift.adapters.accelerator.device import (
    choose_dtype,
    fidelity,
    pick_device,
    probe_images,
    usable_processors,
)
from pixsift.adapters.search.torch_resident import TorchBlocks
from pixsift.errors import DeviceLostError, UserError


@pytest.mark.parametrize("name", ["tpu-ish", "mps", "cuda:99"])
def test_pick_device__what_is_not_there_is_a_users_mistake(name: str) -> None:
    with pytest.raises(UserError, match="auto"):
        pick_device(name)


def test_pick_device__auto_always_finds_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("text", "count"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None), ("1 0", None)],
)
def test_usable_processors__honors_the_quota(tmp_path: Path, text: str, count: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert usable_processors(file) == (count or len(os.sched_getaffinity(0)))
    assert usable_processors(tmp_path / "absent") == len(os.sched_getaffinity(0))


class _Scaled(torch.nn.Module):
    """Faithful in bf16, or not when ``fragile``: a difference of nearly equal numbers."""

    def __init__(self, fragile: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn((16, 3), generator=generator))
        self.fragile = fragile

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        rows = batch.mean(dim=(2, 3)) @ self.weight.T
        return (rows + 1000) - 1000 if self.fragile else rows


@pytest.mark.parametrize(("fragile", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_choose_dtype__half_only_when_faithful(fragile: bool, dtype: torch.dtype) -> None:
    model = _Scaled(fragile)
    before = model.weight.detach().clone()
    cpu = torch.device("cpu")
    assert choose_dtype(model, model, (torch.bfloat16,), side=32, device=cpu) == dtype
    assert model.weight.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(model.weight, before)  # not rounded on the way


def test_fidelity__nothing_that_is_not_a_number_counts_as_faithful() -> None:
    rows = torch.randn((4, 8))
    assert fidelity(rows, rows) == pytest.approx(1)
    spoiled = rows.clone()
    spoiled[2, 1] = float("nan")
    assert fidelity(rows, spoiled) == -1


def test_probe_images__differ_and_do_not_change() -> None:
    assert torch.equal(probe_images(56), probe_images(56))
    assert len({float(image.std()) for image in probe_images(56)}) == 8


def test_device_errors__guard_the_search_on_the_device_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    blocks = TorchBlocks(2, "cpu")
    monkeypatch.setattr(torch, "from_numpy", fail)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        blocks.hits(np.ones((1, 2), np.float32), 0, 0.5)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        blocks.put(0, np.ones((1, 2), np.float32))
