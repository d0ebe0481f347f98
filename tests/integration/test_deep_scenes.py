"""Different scenes by sensors that put few bits into sixteen are kept apart, by the shipped rule.

The field tests merged 21 of 24 thermal scenes and rejected every near depth frame as black, since
only the highest eight bits were read.
"""

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from made_images import SCENES, scene
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.ledger.decision_plan import near_rule
from pixsift.core.dedup import cosine_distance
from pixsift.core.images import DecodedImage
from pixsift.core.quality import QualityPolicy, judge
from pixsift.operations.collections import threshold
from pixsift.operations.embedder import ModelChoice, load

MODEL = ModelChoice("efficientnet-lite0")
SENSORS: dict[str, tuple[tuple[int, int], Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "14-bit thermal counts": ((160, 120), lambda gray: 7600 + 3 * gray),
    "depth up to 2.5 m in mm": ((320, 240), lambda gray: 300 + 2200 * gray / 255),
}


@pytest.mark.parametrize("sensor", SENSORS)
def test_deep__different_scenes_do_not_merge(sensor: str) -> None:
    size, reading = SENSORS[sensor]
    embedder, chosen = load(MODEL), threshold(MODEL)
    images = []
    for name in SCENES:
        gray = np.asarray(scene(name).convert("L").resize(size), np.float64)
        out = io.BytesIO()
        Image.fromarray(np.round(reading(gray)).astype(np.uint16)).save(out, "PNG")
        image = decode_image(out.getvalue(), embedder.input_side, DecodeLimits())
        assert isinstance(image, DecodedImage)
        assert judge(image.quality, image.facts, QualityPolicy()).rejected_reason is None
        assert "stretched" in image.facts.flags
        images.append(image)
    vectors = embedder.embed([image.model_input for image in images]).embeddings.astype(np.float16)
    pairs = [
        (cosine_distance(vectors[a], vectors[b]), images[a].look, images[b].look)
        for a, b in combinations(range(len(images)), 2)
    ]
    assert near_rule(chosen.epsilon, chosen.second_look).verdicts(pairs) == [None] * len(pairs)
