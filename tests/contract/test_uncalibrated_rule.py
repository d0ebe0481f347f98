"""The rule that a model without calibration starts with: it finds second shots of a scene, keeps
what has changed, and merges no two different photographs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench import change_world
from pixsift.adapters.calibration.calibrations import UNCALIBRATED_EPSILON, default_calibration
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.models.load import load_embedder
from pixsift.core import presets
from pixsift.core.dedup import NearRule, cosine_distance
from pixsift.core.images import DecodedImage
from pixsift.core.second_look import LookRule
from pixsift.ports import Embedder
from tiny_dinov2 import save_tiny

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the photographs of ../shared/data")
FOUND = 0.9
"""Share of second shots that a conservative rule must find."""


Seen = tuple[NDArray[np.float16], bytes]
"""Vector and signals of one file."""


@dataclass(frozen=True, slots=True, eq=False)
class Files:
    """Shots of one scene."""

    first: bytes
    again: bytes
    changed: bytes
    """With a square of 3 % of the frame, bright in the dark and dark in the bright."""


@pytest.fixture(scope="module")
def files() -> list[Files]:
    scenes = change_world.base_scenes(DATA, None)
    return [_shots(picture, number) for number, (_, picture) in enumerate(scenes[::2][:30])]


def _shots(picture: Image.Image, number: int) -> Files:
    rng = np.random.default_rng(number)
    side = round((0.03 * picture.width * picture.height) ** 0.5)
    left, top = picture.width // 4, picture.height // 3
    there = picture.crop((left, top, left + side, top + side)).convert("L")
    level = 5 if np.asarray(there).mean() > 128 else 250
    changed = picture.copy()
    changed.paste((level, level, level), (left, top, left + side, top + side))
    first, again, other = (
        change_world.shot(one, change_world.still(one, rng), rng)
        for one in (picture, picture, changed)
    )
    return Files(first, again, other)


@pytest.fixture(scope="module", params=["efficientnet-lite0", "stub", "dinov2"])
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """The DINOv2 is tiny and has random weights."""
    name: str = request.param
    if name == "dinov2":
        name = str(save_tiny(tmp_path_factory.mktemp("models") / name))
    return load_embedder(name, device="cpu")


def rule_without_calibration() -> NearRule:
    """The default of ``collection create`` for weights without a calibration."""
    look = LookRule.without_change().to_json()
    epsilon, wide = presets.apply(
        presets.DEFAULT, narrow=UNCALIBRATED_EPSILON, second_look=look, calibrated=False
    )
    return NearRule(epsilon, LookRule.from_json(wide or {}))


def seen(embedder: Embedder, blobs: list[bytes]) -> list[Seen]:
    """The files as they are stored."""
    decoded = [decode_image(blob, embedder.input_side, DecodeLimits()) for blob in blobs]
    images = [image for image in decoded if isinstance(image, DecodedImage)]
    assert len(images) == len(blobs)
    vectors = embedder.embed([image.model_input for image in images]).embeddings
    return [(v.astype(np.float16), i.look) for v, i in zip(vectors, images, strict=True)]


def test_rule__finds_second_shots_and_nothing_else(embedder: Embedder, files: list[Files]) -> None:
    rule = rule_without_calibration()
    first = seen(embedder, [scene.first for scene in files])
    again = seen(embedder, [scene.again for scene in files])
    changed = seen(embedder, [scene.changed for scene in files])

    def merged(pairs: Iterable[tuple[Seen, Seen]]) -> list[bool]:
        asked = [(cosine_distance(a[0], b[0]), a[1], b[1]) for a, b in pairs]
        return [verdict is not None for verdict in rule.verdicts(asked)]

    found = merged(zip(first, again, strict=True))
    assert sum(found) >= FOUND * len(found)
    assert not any(merged(zip(first, changed, strict=True)))
    assert not any(merged(combinations(first, 2)))


def test_rule__is_the_one_that_a_space_without_calibration_starts_with(embedder: Embedder) -> None:
    found = default_calibration(embedder.space)
    if found.calibrated:
        assert embedder.space.model == "efficientnet-lite0"
        return
    made = presets.apply(
        presets.DEFAULT, narrow=found.epsilon, second_look=found.second_look, calibrated=False
    )
    assert NearRule(made[0], LookRule.from_json(made[1] or {})) == rule_without_calibration()
