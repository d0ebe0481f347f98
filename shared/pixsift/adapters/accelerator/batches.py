"""Runs a torch model over uint8 images: fixed batch shapes, one upload, and recovery from errors.

Images go to the device as uint8 (a quarter of the bytes of float32) and are normalized there.
Batches have one of a few fixed sizes: on a GPU the last one is padded, so that an incomplete batch
needs no new compilation; on a CPU, where padding would cost real work, the tail is split. Out of
memory halves the largest size; after several clean batches it doubles again. If there is no memory
for a single image, or the device fails, DeviceLostError is raised: that is not the image's fault. A
row that is not finite is computed once more alone, in float32; if it is still not finite, or has
length zero, that is an outcome of this image alone (``embed_nonfinite``, ``embed_zero``), never of
its batch. Normalization to unit length happens here and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from pixsift.adapters.accelerator.device import device_errors, is_out_of_memory
from pixsift.core.images import Pixels
from pixsift.errors import DeviceLostError
from pixsift.ports import EmbeddingResult

Forward = Callable[[torch.Tensor], torch.Tensor]
"""(B, 3, S, S) normalized floats -> (B, D)."""

ZERO_LENGTH = 1e-6
"""Below this norm a direction is rounding noise; pgvector does not index zero vectors either."""
RECOVER_AFTER = 64
"""Clean batches at a reduced size before the next larger one is tried again."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """``(pixel / 255 - mean) / std`` per channel, RGB."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(eq=False)
class TorchBatches:
    """Batched, fault-tolerant forward passes of one model on one device."""

    forward: Forward
    forward_float32: Callable[[], Forward]
    """Builds the float32 model on the CPU; called once, and only when a row is not finite."""
    normalization: Normalization
    side: int
    dimension: int
    device: torch.device
    dtype: torch.dtype
    max_batch: int
    _limit: int = field(init=False)
    _clean: int = field(init=False, default=0)
    _built_float32: Forward | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._limit = self.max_batch
        mean = torch.tensor(self.normalization.mean, dtype=torch.float32) * 255
        std = torch.tensor(self.normalization.std, dtype=torch.float32) * 255
        self._scale = (1 / std).view(1, 3, 1, 1)
        self._shift = (-mean / std).view(1, 3, 1, 1)

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        """images: each (S, S, 3) uint8. Raises ValueError for another shape or type, and
        DeviceLostError when the device fails or has no room for a single image.
        """
        for image in images:
            if image.shape != (self.side, self.side, 3) or image.dtype != np.uint8:
                raise ValueError(
                    f"expected ({self.side}, {self.side}, 3) uint8, got {image.shape} {image.dtype}"
                )
        with device_errors():  # a GPU may report a failure at any later call
            return self._finish(images, self._rows(images))

    @property
    def sizes(self) -> list[int]:
        """The batch sizes in use, ascending."""
        return sorted({self._next_size(remaining) for remaining in range(1, self._limit + 1)})

    def warm_up(self) -> None:
        """Run every batch size once, so that a lazy compiler works now and not while images wait.

        A size for which there is no memory is left out, like the larger ones. Raises what the
        forward pass raises.
        """
        black = np.zeros((self.side, self.side, 3), np.uint8)
        for size in self.sizes:
            try:
                self._run([black], size).cpu()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return

    def _rows(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """(N, D), not yet of unit length."""
        pending: list[torch.Tensor] = []  # on a GPU, fetched at the end: uploads overlap the work
        start = 0
        while start < len(images):
            size = self._next_size(len(images) - start)
            taken = images[start : start + size]
            try:
                pending.append(self._run(taken, size))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            else:
                out_of_memory = False
            # Outside the handler: the exception's traceback would keep the tensors alive.
            if out_of_memory:
                self._shrink()
                continue
            self._count_clean()
            start += len(taken)
        rows = np.empty((len(images), self.dimension), np.float32)
        if pending:
            rows[:] = torch.cat(pending).float().cpu().numpy()
        return rows

    def _next_size(self, remaining: int) -> int:
        """A power of two (or the limit): padded up on a GPU, split down on a CPU."""
        if remaining >= self._limit:
            return self._limit
        lower = 1 << (remaining.bit_length() - 1)
        if self.device.type == "cpu" or lower == remaining:
            return lower
        return min(lower * 2, self._limit)

    def _run(self, images: Sequence[Pixels], size: int) -> torch.Tensor:
        cuda = self.device.type == "cuda"
        host = torch.zeros((size, self.side, self.side, 3), dtype=torch.uint8, pin_memory=cuda)
        view = host.numpy()  # torch does not read from read-only arrays; numpy does
        for slot, image in enumerate(images):
            view[slot] = image
        batch = self._normalize(host.to(self.device, non_blocking=cuda), self.dtype)
        with torch.inference_mode():
            result = self.forward(batch)
        return result[: len(images)]

    def _normalize(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B, S, S, 3) uint8 -> (B, 3, S, S), computed in float32 and rounded once.

        The memory layout stays channels last, which is fastest for convolutions on a CPU.
        """
        channels_first = pixels.permute(0, 3, 1, 2).float()
        scale, shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        return torch.addcmul(shift, channels_first, scale).to(dtype)

    def _shrink(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._limit == 1:
            raise DeviceLostError(
                "the device has too little memory for one image; restart the process"
            )
        self._limit //= 2
        self._clean = 0

    def _count_clean(self) -> None:
        self._clean += 1
        if self._limit < self.max_batch and self._clean >= RECOVER_AFTER:
            self._limit = min(self._limit * 2, self.max_batch)
            self._clean = 0

    def _finish(self, images: Sequence[Pixels], rows: NDArray[np.float32]) -> EmbeddingResult:
        """Retry rows that are not finite, sort out rows of length zero, scale the rest to length
        one."""
        for index in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
            rows[index] = self._alone_in_float32(images[index])
        failures: dict[int, str] = {}
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        for index in np.flatnonzero(~(norms >= ZERO_LENGTH) | ~np.isfinite(norms)).tolist():
            finite = bool(np.isfinite(rows[index]).all())
            failures[index] = "embed_zero" if finite else "embed_nonfinite"
        kept = np.array([i for i in range(len(images)) if i not in failures], dtype=np.intp)
        unit = (rows[kept] / norms[kept, None]).astype(np.float32)
        return EmbeddingResult(unit, kept, failures)

    def _alone_in_float32(self, image: Pixels) -> NDArray[np.float32]:
        pixels = torch.from_numpy(image.copy())[None]
        self._built_float32 = self._built_float32 or self.forward_float32()
        with torch.inference_mode():
            row = self._built_float32(self._normalize(pixels, torch.float32))
        result: NDArray[np.float32] = row[0].float().cpu().numpy()
        return result
