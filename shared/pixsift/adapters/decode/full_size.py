"""Finds blur that DCT scaling hides, by decoding a JPEG at full size only where blur is suspected.

A full decode, even of luma alone, costs about as much as the rest of the recipe; the test whether
it is needed costs a fiftieth. Scenes hold about as much detail at one scale as at the next (Field
1987, doi:10.1364/JOSAA.4.002379), so a sharp file spends on a pixel at full size nearly what its
scaled picture costs per pixel when it is coded alike. A blurred file has little detail to spend
bits on.
"""

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from pixsift.core.sharpness import Luma, full_size_sharpness

SOFT: Final = 0.34
"""sqrt(sharpness) * hidden detail below this is worth a full decode: 97 of 100 pictures, at least,
whose blur only the full size shows; how many sharp ones, see docs/quality.md."""
MOVED: Final = 0.5
"""The same of sqrt(motion evenness) * hidden detail, for motion."""
STRIPE: Final = 16
"""Rows of one row of coded blocks, whatever the subsampling."""
EVERY: Final = 4
"""One stripe in so many is coded to learn what the scaled picture costs."""
PROGRESSIVE: Final = 0.92
"""Size of a progressive file, in the median of photographs, over that of the same coded in sequence
(0.85 to 0.95). The stripes are always coded in sequence: it costs a fifth, and never needs more
room than Pillow gives it."""
_START_OF_SCAN: Final = b"\xff\xda"


def hidden_detail(
    opened: JpegImageFile, scaled: Image.Image, bytes_per_pixel: float
) -> float | None:
    """Bytes per pixel of the file over those of its scaled picture, coded with the same tables.

    opened: the file, for its header. scaled: its pixels as they lie in the file.
    bytes_per_pixel: of the coded picture, at full size.
    None where it cannot be coded alike: an unusual file.
    """
    stripes, coding = _stripes(scaled), _coding(opened)
    if stripes is None or coding is None:
        return None
    out = io.BytesIO()
    try:
        stripes.save(out, "JPEG", **coding)
    except (
        OSError,
        ValueError,
        MemoryError,
    ):  # not a reason to refuse an image that could be decoded
        return None
    coded = out.getvalue()
    scan = len(coded) - coded.index(
        _START_OF_SCAN
    )  # for so little data, the header would count too much
    in_sequence = bytes_per_pixel / (PROGRESSIVE if opened.info.get("progressive") else 1.0)
    return in_sequence * (stripes.width * stripes.height) / scan


def is_suspicious(detail: float | None, metrics: Mapping[str, float]) -> bool:
    """Whether blur may hide behind the scaling.

    metrics: of the scaled pixels; without ``sharpness`` there is no texture to judge by. Where
    ``detail`` is not known, blur is possible.
    """
    if "sharpness" not in metrics:
        return False
    if detail is None:
        return True
    is_soft = math.sqrt(metrics["sharpness"]) * detail < SOFT
    return is_soft or math.sqrt(metrics.get("motion_evenness", 1.0)) * detail < MOVED


def full_size_metrics(blob: bytes) -> dict[str, float]:
    """Sharpness and motion at full size; empty where there is no texture or no second decode."""
    luma = _full_luma(blob)
    return {} if luma is None else full_size_sharpness(luma).metrics("_full")


def _coding(opened: JpegImageFile) -> dict[str, Any] | None:
    """What to code with as the file was; None if Pillow's encoder cannot."""
    layers = opened.layer  # of each component: id, horizontal and vertical sampling, table
    tables = [opened.quantization.get(layer[3]) for layer in layers]
    luma, chroma = tables[0], tables[min(1, len(tables) - 1)]
    sampling, transform = get_sampling(opened), opened.info.get("adobe_transform")
    if len(layers) == 3:
        is_rgb = transform == 0 or [layer[0] for layer in layers] == [*b"RGB"]
        is_usual = sampling >= 0 and not is_rgb
    else:
        is_usual = chroma == luma and transform != 2
    if not is_usual or any(table != chroma for table in tables[1:]):
        return None
    if luma is None or chroma is None or max(*luma, *chroma) > 255:
        return None
    return {"qtables": [luma, chroma], "subsampling": sampling}


def _stripes(image: Image.Image) -> Image.Image | None:
    """Every fourth row of coded blocks, one below the other; None of a very low image."""
    count = image.height // (STRIPE * EVERY)
    if count == 0:
        return None
    stripes = Image.new(image.mode, (image.width, count * STRIPE))
    for index in range(count):
        top = (index * EVERY + EVERY // 2) * STRIPE
        stripe = image.crop((0, top, image.width, top + STRIPE))
        stripes.paste(stripe, (0, index * STRIPE))
    return stripes


def _full_luma(blob: bytes) -> Luma | None:
    """(H, W) uint8 as it lies in the file; None where it cannot be had after all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recipe has seen these warnings already
        try:
            with Image.open(io.BytesIO(blob), formats=["JPEG"]) as image:
                if image.mode == "RGB":
                    image.draft("L", image.size)
                return np.asarray(image.convert("L"))
        except (
            OSError,
            ValueError,
            MemoryError,
        ):  # not a reason to refuse an image that could be decoded
            return None
