"""Fixed shapes, memory pressure and invalid rows, with models of a few lines."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixsift.adapters.accelerator import batches as torch_batches
from pixsift.adapters.accelerator.batches import Forward, Normalization, TorchBatches
from pixsift.errors import DeviceLostError

SIDE = 4


def colors(batch: torch.Tensor) -> torch.Tensor:
    return batch.mean(dim=(2, 3))


def make(forward: Forward, *, max_batch: int = 8, retry: Forward = colors) -> TorchBatches:
    return TorchBatches(
        forward=forward,
        forward_float32=lambda: retry,
        normalization=Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        side=SIDE,
        dimension=3,
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_batch=max_batch,
    )


def images(count: int) -> list[NDArray[np.uint8]]:
    return [
        np.full((SIDE, SIDE, 3), (10 + i, 200 - i, (37 * i) % 256), np.uint8) for i in range(count)
    ]


def expected(count: int) -> NDArray[np.float64]:
    rows = np.array([image[0, 0] for image in images(count)], np.float64)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


class Recorder:
    """Remembers batch sizes; runs out of memory above ``capacity``."""

    def __init__(self, capacity: int = 1_000) -> None:
        self.capacity = capacity
        self.sizes: list[int] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.capacity:
            raise torch.OutOfMemoryError("no room")
        return colors(batch)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (8, [8]), (13, [8, 4, 1]), (23, [8, 8, 4, 2, 1])],
)
def test_embed__a_cpu_splits_the_tail_into_fixed_sizes(count: int, sizes: list[int]) -> None:
    recorder = Recorder()
    result = make(recorder).embed(images(count))
    assert recorder.sizes == sizes
    np.testing.assert_allclose(result.embeddings, expected(count), atol=1e-6)


@pytest.mark.parametrize(
    ("remaining", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 12), (12, 12), (40, 12)]
)
def test_next_size__a_gpu_pads_up_to_few_sizes(remaining: int, size: int) -> None:
    batches = make(colors, max_batch=12)
    batches.device = torch.device("cuda")
    assert batches._next_size(remaining) == size


def test_run__padding_never_comes_back() -> None:
    rows = make(colors)._run(images(3), 4)
    assert rows.shape == (3, 3)


@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_embed__out_of_memory_halves_the_batch_and_loses_nothing(capacity: int) -> None:
    recorder = Recorder(capacity)
    result = make(recorder).embed(images(21))
    np.testing.assert_allclose(result.embeddings, expected(21), atol=1e-6)
    assert result.kept_indices.tolist() == list(range(21))
    largest = 1 << (capacity.bit_length() - 1)
    assert max(recorder.sizes[-4:]) <= largest


def test_embed__the_batch_grows_again_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_batches, "RECOVER_AFTER", 3)
    recorder = Recorder(capacity=2)
    batches = make(recorder)
    batches.embed(images(4))  # 8 -> 4 -> 2, and two clean batches
    recorder.capacity = 1_000
    recorder.sizes.clear()
    batches.embed(images(38))
    assert recorder.sizes == [2, 4, 4, 4, 8, 8, 8]


def test_embed__no_memory_for_one_image_is_the_devices_trouble_not_the_images() -> None:
    with pytest.raises(DeviceLostError, match="one image"):
        make(Recorder(capacity=0)).embed(images(2))


def _raise(error: Exception) -> Forward:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        raise error

    return forward


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: the launch timed out"),
    ],
)
def test_embed__a_failing_device_is_told_from_a_bug(error: RuntimeError) -> None:
    with pytest.raises(DeviceLostError, match=r"the device failed: (CUDA|cuDNN) error") as told:
        make(_raise(error)).embed(images(2))
    assert "\n" not in str(told.value)


def test_embed__any_other_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        make(_raise(RuntimeError("shapes do not match"))).embed(images(1))


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"]
)
def test_embed__a_library_without_memory_gets_smaller_batches(words: str) -> None:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise RuntimeError(words)
        return colors(batch)

    np.testing.assert_allclose(make(forward).embed(images(9)).embeddings, expected(9), atol=1e-6)


def _spoil(index: int, value: float) -> Forward:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        rows = colors(batch)
        if len(batch) > 1:
            rows[index] = value
        return rows

    return forward


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_embed__a_row_that_is_not_finite_is_saved_by_float32(value: float) -> None:
    result = make(_spoil(2, value)).embed(images(4))
    assert result.failures == {}
    np.testing.assert_allclose(result.embeddings, expected(4), atol=1e-6)


def test_embed__the_float32_model_is_built_once() -> None:
    built: list[Forward] = []
    batches = make(_constant(float("nan")))
    batches.forward_float32 = lambda: built.append(colors) or colors  # type: ignore[func-returns-value]
    batches.embed(images(5))
    assert len(built) == 1


def test_warm_up__runs_every_size_once_up_to_what_fits() -> None:
    recorder = Recorder()
    make(recorder, max_batch=12).warm_up()
    assert recorder.sizes == [1, 2, 4, 8, 12]
    small = Recorder(capacity=5)
    make(small, max_batch=12).warm_up()
    assert small.sizes == [1, 2, 4, 8]


def _constant(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda batch: torch.full((len(batch), 3), value)


@pytest.mark.parametrize(
    ("spoiled", "retry", "reason"),
    [
        (float("nan"), _constant(float("nan")), "embed_nonfinite"),
        (float("inf"), _constant(float("inf")), "embed_nonfinite"),
        (float("nan"), _constant(0.0), "embed_zero"),
        (0.0, colors, "embed_zero"),
        (1e-8, colors, "embed_zero"),
    ],
)
def test_embed__what_stays_bad_is_an_outcome_of_its_own_image(
    spoiled: float, retry: Forward, reason: str
) -> None:
    result = make(_spoil(1, spoiled), retry=retry).embed(images(4))
    assert result.failures == {1: reason}
    assert result.kept_indices.tolist() == [0, 2, 3]
    np.testing.assert_allclose(result.embeddings, expected(4)[[0, 2, 3]], atol=1e-6)


def test_embed__a_row_too_long_for_float32_still_has_a_direction() -> None:
    result = make(lambda batch: colors(batch) * 1e30).embed(images(3))
    np.testing.assert_allclose(result.embeddings, expected(3), atol=1e-6)
