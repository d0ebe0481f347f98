"""What every embedder promises, run over each of them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.calibration.labeled_pairs import measure_noise
from pixsift.adapters.decode.pool import recipe_id
from pixsift.adapters.models.load import load_embedder
from pixsift.core.calibration import exceeds_noise
from pixsift.errors import UserError
from pixsift.ports import Embedder
from tiny_dinov2 import save_tiny

Images = list[NDArray[np.uint8]]


MODELS = ["stub", "efficientnet-lite0", "dinov2", "dinov2-registers"]


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a user would set PIXSIFT_MODEL to; the DINOv2 models are tiny and random."""
    model: str = request.param
    if not model.startswith("dinov2"):
        return model
    folder = tmp_path_factory.mktemp("models") / model
    return str(save_tiny(folder, registers=4 if "registers" in model else 0))


@pytest.fixture(scope="module")
def embedder(name: str) -> Embedder:
    return load_embedder(name, device="cpu", max_batch=8)


def make_images(count: int, side: int, seed: int = 0) -> Images:
    """Blocks of random colors: cheap, and unlike each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    index = np.arange(side) * 8 // side
    return [np.ascontiguousarray(image[index][:, index]) for image in coarse]


def test_embed__rows_are_unit_float32_in_input_order(embedder: Embedder) -> None:
    images = make_images(11, embedder.input_side)
    result = embedder.embed(images)
    assert result.embeddings.dtype == np.float32
    assert result.embeddings.shape == (11, embedder.space.dimension)
    assert result.kept_indices.tolist() == list(range(11))
    assert result.failures == {}
    np.testing.assert_allclose(np.linalg.norm(result.embeddings, axis=1), 1, atol=1e-5)
    reversed_rows = embedder.embed(images[::-1]).embeddings[::-1]
    assert (1 - (result.embeddings * reversed_rows).sum(axis=1)).max() < 1e-5


def test_embed__the_same_input_gives_the_same_bits(embedder: Embedder) -> None:
    images = make_images(5, embedder.input_side)
    assert np.array_equal(embedder.embed(images).embeddings, embedder.embed(images).embeddings)


def test_embed__nothing_in_nothing_out(embedder: Embedder) -> None:
    result = embedder.embed([])
    assert result.embeddings.shape == (0, embedder.space.dimension)
    assert result.kept_indices.shape == (0,)


def test_embed__flat_images_are_embedded(embedder: Embedder) -> None:
    side = embedder.input_side
    flat = [np.full((side, side, 3), level, np.uint8) for level in (0, 127, 128, 255)]
    assert embedder.embed(flat).kept_indices.tolist() == [0, 1, 2, 3]


def test_embed__read_only_and_strided_inputs_are_taken(embedder: Embedder) -> None:
    image = make_images(1, embedder.input_side)[0]
    mirrored = image[:, ::-1]
    mirrored.flags.writeable = False
    expected = embedder.embed([np.ascontiguousarray(mirrored)]).embeddings
    assert np.array_equal(embedder.embed([mirrored]).embeddings, expected)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: image[:-1],
        lambda image: image[..., :2],
        lambda image: image.astype(np.float32),
        lambda image: image[None],
    ],
)
def test_embed__another_shape_or_type_is_refused(
    embedder: Embedder, spoil: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    image = make_images(1, embedder.input_side)[0]
    with pytest.raises(ValueError, match="uint8"):
        embedder.embed([image, spoil(image)])


def test_space__is_stable_and_complete(embedder: Embedder) -> None:
    space = embedder.space
    assert space.space_id == embedder.space.space_id
    assert len(space.weights_sha256) == 64
    assert all((space.model, space.revision, space.pooling))
    assert space.recipe_id == recipe_id(embedder.input_side)
    assert embedder.batch_size == 8


def test_noise__epsilon_exceeds_it_tenfold(embedder: Embedder) -> None:
    """Batch size and place in the batch may not decide what is kept."""
    noise = measure_noise(embedder, make_images(33, embedder.input_side))
    assert exceeds_noise(default_calibration(embedder.space).epsilon, noise)


def test_default_calibration__only_what_was_measured_calls_itself_calibrated(
    embedder: Embedder,
) -> None:
    calibration = default_calibration(embedder.space)
    assert calibration.calibrated == (embedder.space.model == "efficientnet-lite0")
    assert calibration.second_look is not None
    assert calibration.weights_sha256 == embedder.space.weights_sha256
    other = replace(embedder.space, recipe_id="px0-224")
    assert not default_calibration(other).calibrated


def test_shipped__reaches_the_precision_and_recall_it_claims() -> None:
    calibration = default_calibration(load_embedder("efficientnet-lite0", device="cpu").space)
    assert calibration.reached
    assert calibration.reached["precision_interval"][0] >= 0.99
    assert calibration.reached["recall"] >= 0.9
    assert "curve" not in calibration.summary()


@pytest.mark.gpu
def test_embed__a_gpu_agrees_with_the_cpu(name: str, embedder: Embedder) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if name == "stub":
        pytest.skip("the stub has no device")
    images = make_images(21, embedder.input_side)
    expected = embedder.embed(images).embeddings
    on_gpu = load_embedder(name, device="cuda", max_batch=8).embed(images).embeddings
    assert (expected * on_gpu).sum(axis=1).min() >= 0.999


def test_load_embedder__unknown_names_are_a_users_mistake() -> None:
    with pytest.raises(UserError, match="efficientnet-lite0"):
        load_embedder("resnet-9000")
