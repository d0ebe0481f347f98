"""A DINOv2 small enough for tests: random weights, stored as transformers stores them."""

from pathlib import Path
from typing import Any

import torch


def save_tiny(folder: Path, *, registers: int = 0, seed: int = 0) -> Path:
    """A DINOv2 of two layers with random weights, as transformers stores it."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 518,
        "patch_size": 14,
        "initializer_range": 0.2,  # unlike images must not all end in one vector
    }
    model = (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **shape))
        if registers
        else Dinov2Model(Dinov2Config(**shape))
    )
    model.save_pretrained(folder)
    return folder
