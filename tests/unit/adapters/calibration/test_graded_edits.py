"""The edits that calibration learns from: deterministic, graded, and each of its own kind."""

import io
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixsift.adapters.calibration.graded_edits import EDITS, GradedEdit, edited_jpeg, reference_jpeg
from pixsift.core.second_look import compare, look_signals


def picture(seed: int = 0) -> Image.Image:
    """Soft structure at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
                (320, 240), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for n in (5, 11, 23, 80)
    ]
    return Image.fromarray(np.clip(np.mean(layers, axis=0), 0, 255).astype(np.uint8))


def pixels(blob: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(blob)) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_edited_jpeg__same_seed_same_bytes_and_stronger_is_further(edit: GradedEdit) -> None:
    source = picture()
    blobs = [edited_jpeg(source, edit, grade, seed=5) for grade in range(3)]
    assert blobs == [edited_jpeg(source, edit, grade, seed=5) for grade in range(3)]
    reference = pixels(reference_jpeg(source)).astype(np.int32)
    errors = [float(np.abs(pixels(blob) - reference).mean()) for blob in blobs]
    assert all(mild < strong for mild, strong in pairwise(errors))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_edited_jpeg__a_mild_edit_is_still_the_same_picture(edit: GradedEdit) -> None:
    source = picture(1)
    original = look_signals(pixels(reference_jpeg(source)))
    pair = compare(original, look_signals(pixels(edited_jpeg(source, edit, 0, seed=1))))
    stranger = compare(original, look_signals(pixels(reference_jpeg(picture(2)))))
    assert pair.worst_patches > 0.5 > stranger.worst_patches


def test_edits__cover_what_happens_in_the_field() -> None:
    names = {edit.name for edit in EDITS}
    assert names >= {"recompress", "resize", "crop", "exposure", "blur", "motion", "overlay"}
    assert len(names) == len(EDITS)
