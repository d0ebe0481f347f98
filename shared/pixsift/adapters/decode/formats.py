"""JPEG pixels as the recipe wants them, and the decoder's warnings.

JPEG pixels come from simplejpeg, the same libjpeg-turbo as Pillow's with equal pixels (a test
compares them), because it reports what Pillow does not: the decoder's warnings. Of 600 JPEGs
with five bytes overwritten, 572 decoded without an error, and 402 of those with a warning.
"""

import re
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pixsift.core.images import Pixels

MARGIN: Final = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 only while its shorter side stays at least this many times
the model's input: 53 dB to full decode at least, where a margin of 1 gives 41 to 45."""
MOST_GRAY_BAND: Final = 1 / 16
"""A taller gray band at the bottom, with a decoder's warning, means that data are missing."""


class RefusedError(Exception):
    """The file is refused: ``args`` are reason and detail."""


class WarnedError(Exception):
    """The decoder warns of a JPEG that it could decode; the text is its warning."""


def jpeg_factor(width: int, height: int, input_side: int) -> int:
    """1, 2, 4 or 8: how far the decoder may scale down within ``MARGIN``."""
    need = MARGIN * input_side
    return max(f for f in (1, 2, 4, 8) if f == 1 or min(width, height) // f >= need)


def jpeg_pixels(image: Image.Image, blob: bytes, factor: int) -> tuple[Image.Image, Pixels | None]:
    """Decode a JPEG at 1/factor. Raises WarnedError for what the decoder warns of.

    image: the same file, opened by Pillow but not loaded; it is used where simplejpeg does not know
    the file's subsampling. Returns the picture, and its (H, W, 3) array where there is one already.
    """
    try:
        pixels = simplejpeg.decode_jpeg(
            blob, _COLOR_SPACES[image.mode], min_factor=factor, strict=True,
            min_height=-(-image.height // factor), min_width=-(-image.width // factor),
        )  # fmt: skip
    except ValueError as error:
        if _WARNING.search(str(error)):
            raise WarnedError(str(error)) from error
        image.draft(None, (image.width // factor, image.height // factor))
        image.load()
        return image, None
    if image.mode == "L":
        return Image.fromarray(pixels[..., 0].copy()), None
    if image.mode == "CMYK":  # stored inverted, as Adobe does; Pillow turns it around as well
        return Image.frombytes("CMYK", pixels.shape[1::-1], (255 - pixels).tobytes()), None
    return Image.fromarray(pixels), pixels


def gray_band(image: Image.Image) -> float:
    """Share of rows, from the bottom up, in the even mid-gray that stands for missing JPEG data.

    image: as it lies in the file, before any turning. 0 where the top is the same gray: then it is
    a frame around the picture, or a gray picture.
    """
    width, height = image.size
    first, last = image.crop((0, 0, width, 1)), image.crop((0, height - 1, width, height))
    if not _mid_gray(last)[0] or _mid_gray(first)[0]:  # nearly always, at almost no cost
        return 0.0
    return float(np.argmin(_mid_gray(image)[::-1])) / height


_COLOR_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_WARNING: Final = re.compile(
    r"(?i)corrupt jpeg|premature end|revision number|progression sequence|invalid sos"
    r"|transform code"
)
"""What libjpeg warns about and then continues, as it does with broken files."""


def _mid_gray(image: Image.Image) -> NDArray[np.bool_]:
    """Which rows hold nothing but 127 to 129."""
    above = np.asarray(image).reshape(image.height, -1) - np.uint8(127)  # wraps around below
    even: NDArray[np.bool_] = above.max(axis=1) <= 2
    return even
