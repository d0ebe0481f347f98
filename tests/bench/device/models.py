"""DINOv2 of the real architecture with random weights: speed does not depend on them."""

from pathlib import Path
from typing import Any

from bench.device.options import Options
from tiny_dinov2 import save_tiny

SIZES: dict[str, dict[str, int]] = {
    "S": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "B": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "L": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
TINY: dict[str, int] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
TOKENS = 257
"""224 px in patches of 14, and the CLS token."""


def names(options: Options) -> list[str]:
    """Which models this run measures."""
    return ["tiny"] if options.tiny else list(SIZES)


def folder_of(name: str, options: Options) -> Path:
    """The model's folder, written on first use."""
    folder = options.work / f"dinov2-{name}"
    if (folder / "model.safetensors").exists():
        return folder
    if name == "tiny":
        return save_tiny(folder)
    import torch
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    shape: dict[str, Any] = {"image_size": 518, "patch_size": 14, **SIZES[name]}
    Dinov2Model(Dinov2Config(**shape)).save_pretrained(folder)
    return folder


def gflop(name: str) -> float:
    """Of one image. Per layer and token: 24 d² for the products, 4 T d for attention."""
    shape = TINY if name == "tiny" else SIZES[name]
    d, layers = shape["hidden_size"], shape["num_hidden_layers"]
    return (layers * TOKENS * (24 * d * d + 4 * TOKENS * d) + 2 * 256 * 588 * d) / 1e9
