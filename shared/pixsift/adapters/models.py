"""From a model's name to an embedder. Model libraries are imported only when asked for."""

from pixsift.errors import UserError
from pixsift.ports import Embedder

EFFICIENTNET_LITE0 = "efficientnet-lite0"
STUB = "stub"


def load_embedder(
    name: str, *, revision: str = "", device: str = "auto", max_batch: int = 16
) -> Embedder:
    """The embedder called ``name``.

    name: ``efficientnet-lite0``, ``stub``, a DINOv2 repository such as ``facebook/dinov2-base``,
    or a local folder with safetensors. revision: the hub commit to pin. device: ``auto``,
    ``cpu``, ``cuda`` or ``cuda:1``. max_batch: most images per forward pass.
    Raises UserError with the remedy when the name is unknown or the weights are not at hand.
    """
    if name == STUB:
        from pixsift.adapters.stub_embedder import StubEmbedder

        return StubEmbedder(max_batch=max_batch)
    if name == EFFICIENTNET_LITE0:
        from pixsift.adapters.efficientnet_lite import EfficientNetLiteEmbedder

        return EfficientNetLiteEmbedder(device=device, max_batch=max_batch)
    raise UserError(f"unknown model {name!r}: use efficientnet-lite0, stub or a DINOv2 model")
