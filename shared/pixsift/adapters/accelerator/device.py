"""Chooses where a model runs, with how many threads, and in which precision. Half precision is used
only if the processor supports it natively, and if a test with this model shows that the embeddings
stay the same: cosine to float32 of at least ``MIN_FIDELITY`` on probe images. So precision is not
part of the embedding space: vectors of a GPU consumer and of a laptop remain comparable.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from pixsift.errors import DeviceLostError, SettingError

MIN_FIDELITY = 0.999
"""Least cosine between half and full precision, over the probe images."""
PROBES = 8
_DEVICE_ERRORS = ("cuda error", "cuda driver error", "triton error", "cublas", "cudnn")
"""How torch's messages about a failing GPU start, in lower case; torch.AcceleratorError exists only
since 2.8, and not for the libraries on top of CUDA."""
_NO_MEMORY = ("out of memory", "alloc_failed")


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` -> device. Raises UserError when absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise SettingError(
            f"device {name!r} is not available: use auto or cpu, or check the driver"
        )
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    return device


def set_threads() -> int:
    """Let torch use the processors this process may use; returns how many.

    torch counts the machine's processors, which is too many in a container with a quota. An
    OMP_NUM_THREADS in the environment is respected.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_processors())
    return torch.get_num_threads()


def usable_processors(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Processors by affinity and cgroup quota, at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = affinity or os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()[:2]
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup v2, or "max": no quota
    return max(1, count)


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn what torch raises when the device fails, or has no memory left, into DeviceLostError.

    Where a smaller batch may help, ask :func:`is_out_of_memory` first, inside.
    """
    try:
        yield
    except RuntimeError as error:
        if not (is_out_of_memory(error) or _is_device_error(error)):
            raise
        said = str(error).partition("\n")[0]
        raise DeviceLostError(f"the device failed: {said}; restart the process") from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may work: torch's own allocator says so, or CUDA's libraries."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        _is_device_error(error) and any(words in text for words in _NO_MEMORY)
    )


def _is_device_error(error: RuntimeError) -> bool:
    by_type = getattr(torch, "AcceleratorError", ())
    return isinstance(error, by_type) or str(error).lower().startswith(_DEVICE_ERRORS)


def half_precision(device: torch.device) -> Sequence[torch.dtype]:
    """The half-precision types the device computes in natively, preferred first."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return (torch.bfloat16, torch.float16) if native else (torch.float16,)
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return (torch.bfloat16,) if has_bf16() else ()


def choose_dtype(
    model: torch.nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    candidates: Sequence[torch.dtype],
    *,
    side: int,
    device: torch.device,
) -> torch.dtype:
    """The first candidate that agrees with float32; the model is left in that type.

    model: on the device, in float32. forward: normalized (B, 3, S, S) -> (B, D), through the model.
    """
    if not candidates:
        return torch.float32
    images = probe_images(side).to(device)
    full = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = forward(images).float()
        for dtype in candidates:
            model.to(dtype)
            if fidelity(expected, forward(images.to(dtype)).float()) >= MIN_FIDELITY:
                return dtype
            model.to(torch.float32).load_state_dict(full)  # the rounded weights cannot be restored
    return torch.float32


def fidelity(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """The least row-wise cosine of two (N, D) matrices; -1 where a value is not finite."""
    cosines = torch.nn.functional.cosine_similarity(expected.double(), actual.double(), dim=1)
    return float(torch.nan_to_num(cosines, nan=-1.0).min())


def probe_images(side: int) -> torch.Tensor:
    """(PROBES, 3, side, side) float32: smooth fields of growing detail, on a normalized scale."""
    generator = torch.Generator().manual_seed(7)
    fields = [
        torch.nn.functional.interpolate(
            torch.randn((1, 3, 2 + 4 * index, 2 + 4 * index), generator=generator),
            size=(side, side),
            mode="bicubic",
        )
        for index in range(PROBES)
    ]
    return torch.cat(fields)
