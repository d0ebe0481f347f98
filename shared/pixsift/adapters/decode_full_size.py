"""Blur that DCT scaling hides: a look at a JPEG's full size, paid for only where it is suspected.

A full decode, even of luma alone, costs as much as all the rest of the recipe; to suspect what it
would find costs a fiftieth. Scenes hold about as much detail at one scale as at the next (Field
1987, doi:10.1364/JOSAA.4.002379), so a sharp file spends on a pixel at full size nearly what its
scaled picture costs per pixel when it is coded alike, whatever the encoder's settings. Blur leaves
nothing to spend bits on.
"""

import io
import math
import warnings
from typing import Final

import numpy as np
from PIL import Image, JpegImagePlugin

from pixsift.core.sharpness import Luma, full_size_sharpness

SUSPICIOUS: Final = 0.34
"""sqrt(sharpness) * hidden detail below this is worth a full decode: 97 of 100 pictures, at least,
whose blur only the full size shows; how many sharp ones, see docs/quality.md."""
STRIPE: Final = 16
"""Rows of one row of coded blocks, whatever the subsampling."""
EVERY: Final = 4
"""One stripe in so many is coded to learn what the scaled picture costs."""
_START_OF_SCAN: Final = b"\xff\xda"


def full_size_metrics(
    blob: bytes,
    opened: Image.Image,
    scaled: Image.Image,
    bytes_per_pixel: float,
    sharpness: float | None,
) -> dict[str, float]:
    """``hidden_detail`` of a scaled JPEG, and ``sharpness_full`` where blur is suspected.

    opened: the file, for its header. scaled: its pixels as they lie in the file.
    bytes_per_pixel: of the coded picture, at full size.
    sharpness: at scale; where it is absent there is no texture to judge by.
    """
    detail = _hidden_detail(opened, scaled, bytes_per_pixel)
    if detail is None:
        return {}
    if sharpness is None or math.sqrt(sharpness) * detail >= SUSPICIOUS:
        return {"hidden_detail": detail}
    luma = _full_luma(blob)
    full = None if luma is None else full_size_sharpness(luma)
    return {"hidden_detail": detail} | ({} if full is None else {"sharpness_full": full})


def _hidden_detail(
    opened: Image.Image, scaled: Image.Image, bytes_per_pixel: float
) -> float | None:
    """Bytes per pixel of the file over those of its scaled picture, coded with the same tables."""
    stripes = _stripes(scaled)
    if stripes is None:
        return None
    out = io.BytesIO()
    try:
        stripes.save(
            out, "JPEG", qtables=getattr(opened, "quantization", None),
            subsampling=JpegImagePlugin.get_sampling(opened),
        )  # fmt: skip
    except (OSError, ValueError):  # odd tables: no reason to refuse what could be decoded
        return None
    coded = out.getvalue()
    scan = len(coded) - coded.rindex(
        _START_OF_SCAN
    )  # of so little, the header would weigh too much
    return bytes_per_pixel * (stripes.width * stripes.height) / scan


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
        warnings.simplefilter("ignore")  # the recipe has heard them
        try:
            with Image.open(io.BytesIO(blob), formats=["JPEG"]) as image:
                if image.mode == "RGB":
                    image.draft("L", image.size)
                return np.asarray(image.convert("L"))
        except (OSError, ValueError, MemoryError):  # no reason to refuse what could be decoded
            return None
