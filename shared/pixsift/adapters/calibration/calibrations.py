"""The calibrations that ship with pixsift, one JSON file per model that was measured."""

import json
from importlib.resources import files

from pixsift.core.calibration import Calibration
from pixsift.core.second_look import LookRule
from pixsift.ports import EmbeddingSpace

UNCALIBRATED_EPSILON = 0.03
"""Public uses of DINOv2 run at cosine similarities of 0.85 to 0.98 (none of them calibrated); this
is the cautious end, because a missed duplicate costs less than a lost image."""


def default_calibration(space: EmbeddingSpace) -> Calibration:
    """The calibration of a new collection of ``space`` by default.

    A shipped calibration counts only for the weights and the recipe it was measured with. For
    others the result is marked ``calibrated=False``: run ``pixsift calibrate`` on your images.
    """
    folder = files("pixsift").joinpath("calibrations")
    for resource in folder.iterdir() if folder.is_dir() else ():
        if not resource.name.endswith(".json"):
            continue
        shipped = Calibration.from_json(json.loads(resource.read_text()))
        if (shipped.weights_sha256, shipped.recipe_id) == (space.weights_sha256, space.recipe_id):
            return shipped
    return Calibration(
        model=space.model,
        weights_sha256=space.weights_sha256,
        recipe_id=space.recipe_id,
        epsilon=UNCALIBRATED_EPSILON,
        second_look=LookRule.without_change().to_json(),
        calibrated=False,
        note="not calibrated: a conservative default, not measured with these weights",
    )
