"""Rows held by torch, on a GPU or the CPU: the same passes, the same picks.

Products run in float32 proper: TF32 would leave the error bound that exactness rests on.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixsift.adapters.accelerator.device import pick_device
from pixsift.core.choosing.rows import BlockRows, Float32s, Float64s, Indices, RowSource
from pixsift.errors import SettingError

_TILE = 1 << 26
"""Floats in one tile of products: 256 MB on the device."""
_COPY_ROWS = 65_536


class TorchRows(BlockRows):
    """(N, D) rows in one tensor of float16, float32 or float64."""

    def __init__(self, values: "NDArray[np.floating] | torch.Tensor", *, device: str) -> None:
        """Raises UserError for a device that is not there, or that rounds products to TF32."""
        self._device = pick_device(device)
        self._values = torch.as_tensor(values).to(self._device)
        if torch.get_float32_matmul_precision() != "highest":
            raise SettingError(
                "torch rounds matrix products: set_float32_matmul_precision('highest')"
            )

    @classmethod
    def of(cls, source: RowSource, *, device: str) -> "TorchRows":
        """The rows of another source, in their own precision if it is float16 or float32."""
        first = source.gather(np.arange(0)) if isinstance(source, BlockRows) else np.empty(0, "f8")
        kept = np.empty((source.count, source.dimension), first.dtype)
        for start in range(0, source.count, _COPY_ROWS):
            stop = min(start + _COPY_ROWS, source.count)
            kept[start:stop] = source.take(np.arange(start, stop))
        return cls(kept, device=device)

    @property
    def count(self) -> int:
        return int(self._values.shape[0])

    @property
    def dimension(self) -> int:
        return int(self._values.shape[1])

    @property
    def bytes_per_pass(self) -> int:
        return self._values.numel() * self._values.element_size()

    def gather(self, indices: Indices) -> NDArray[np.floating]:
        """(M, D) rows as stored, back in main memory."""
        chosen = self._values[torch.as_tensor(np.asarray(indices, np.int64), device=self._device)]
        return _array(chosen)

    def span(self, start: int, stop: int) -> NDArray[np.floating]:
        """Consecutive rows, back in main memory."""
        return _array(self._values[start:stop])

    def lower(self, nearest: Float32s, centers: Float64s) -> None:
        """One pass on the device; only the (N,) distances travel."""
        self.check_finite()
        columns = self._tensor(centers.astype(np.float32))
        halves = self._tensor((np.square(centers).sum(axis=1) / 2).astype(np.float32))
        norms = self._tensor(self._squares)
        found = self._tensor(nearest)
        size = int(np.clip(_TILE // max(1, len(columns)), 1024, 1 << 20))
        for start in range(0, self.count, size):
            rows = self._values[start : start + size].to(torch.float32)
            best = (rows @ columns.T - halves).amax(dim=1)
            fresh = (norms[start : start + size] - 2 * best).clamp_(min=0)
            torch.minimum(found[start : start + size], fresh, out=found[start : start + size])
        nearest[:] = _array(found)

    def subset(self, indices: Indices) -> RowSource:
        """Some of the rows, copied on the device: a gather per pass would cost more."""
        places = torch.as_tensor(np.asarray(indices, np.int64), device=self._device)
        return TorchRows(self._values[places], device=str(self._device))

    def _tensor(self, values: NDArray[np.floating]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.cpu().numpy()
    return found
