"""File formats as the recipe sees them: signatures, JPEG pixels, PNG checksums, EXIF.

JPEG pixels come from simplejpeg, the same libjpeg-turbo as Pillow's with equal pixels (a test
compares them), because it tells what Pillow keeps to itself: the decoder's warnings. Of 600 JPEGs
with five bytes overwritten, 572 decoded without an error, and 402 of those with a warning.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from datetime import datetime
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
"""A taller gray band at the bottom, beside a decoder's warning, says that data are missing."""

SIGNATURES: Final = (
    ("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("GIF", b"GIF8"), ("BMP", b"BM"),
    ("TIFF", b"II*\x00"), ("TIFF", b"MM\x00*"), ("TIFF", b"II+\x00"), ("TIFF", b"MM\x00+"),
    ("PSD", b"8BPS"), ("EPS", b"%!PS"), ("PDF", b"%PDF"), ("JPEG2000", b"\x00\x00\x00\x0cjP"),
    ("JPEG2000", b"\xff\x4f\xff\x51"), ("DDS", b"DDS "), ("FITS", b"SIMPLE"),
    ("ICO", b"\x00\x00\x01\x00"), ("CUR", b"\x00\x00\x02\x00"), ("SVG", b"<svg"), ("SVG", b"<?xml"),
    ("PNM", b"P1"), ("PNM", b"P2"), ("PNM", b"P3"), ("PNM", b"P4"), ("PNM", b"P5"), ("PNM", b"P6"),
)  # fmt: skip


class RefusedError(Exception):
    """The file is refused: ``args`` are reason and detail."""


@dataclass(frozen=True, slots=True)
class Exif:
    """All that we take from EXIF; the rest is never read, stored or logged."""

    orientation: int = 1
    """1 to 8, as the standard numbers them."""
    captured_at: str | None = None
    """DateTimeOriginal as ISO 8601 without a zone."""


def sniff(blob: bytes) -> str | None:
    """The format by content, or None when the bytes are no image that we know of."""
    if blob[:4] == b"RIFF" and blob[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magic in SIGNATURES if blob.startswith(magic)), None)


def jpeg_factor(width: int, height: int, input_side: int) -> int:
    """1, 2, 4 or 8: how far the decoder may scale down within ``MARGIN``."""
    need = MARGIN * input_side
    return max(f for f in (1, 2, 4, 8) if f == 1 or min(width, height) // f >= need)


def jpeg_pixels(
    image: Image.Image, blob: bytes, factor: int, flags: list[str]
) -> tuple[Image.Image, Pixels | None]:
    """Decode a JPEG at 1/factor. Raises RefusedError for what warns of corruption.

    image: the same file, opened by Pillow but not loaded; it steps in where simplejpeg does not
    know the file's subsampling, and where the warning is only about padding.
    Returns the picture, and its (H, W, 3) array where there is one already.
    """
    try:
        pixels = simplejpeg.decode_jpeg(
            blob, _COLOR_SPACES[image.mode], min_factor=factor, strict=True,
            min_height=-(-image.height // factor), min_width=-(-image.width // factor),
        )  # fmt: skip
    except ValueError as error:
        _judge_warning(str(error), blob, flags)
        image.draft(None, (image.width // factor, image.height // factor))
        image.load()
        if gray_band(image) > MOST_GRAY_BAND:
            raise RefusedError("corrupt", f"gray at the bottom, and: {error}") from error
        return image, None
    if image.mode == "L":
        return Image.fromarray(pixels[..., 0].copy()), None
    if image.mode == "CMYK":  # stored inverted, as Adobe does; Pillow turns it around as well
        return Image.frombytes("CMYK", pixels.shape[1::-1], (255 - pixels).tobytes()), None
    return Image.fromarray(pixels), pixels


def gray_band(image: Image.Image) -> float:
    """Share of rows, from the bottom up, in the even mid-gray that stands for missing JPEG data.

    image: as it lies in the file, before any turning. 0 where the top is the same gray: that is a
    frame around the picture, or a picture of nothing else.
    """
    width, height = image.size
    first, last = image.crop((0, 0, width, 1)), image.crop((0, height - 1, width, height))
    if not _mid_gray(last)[0] or _mid_gray(first)[0]:  # nearly always, and for next to nothing
        return 0.0
    return float(np.argmin(_mid_gray(image)[::-1])) / height


def check_png(blob: bytes) -> None:
    """Every chunk's checksum, which Pillow skips for pixel data. Raises RefusedError."""
    at = 8
    while at + 12 <= len(blob):
        (size,) = struct.unpack_from(">I", blob, at)
        end = at + 8 + size
        kind = blob[at + 4 : at + 8]
        if end + 4 > len(blob):
            raise RefusedError("truncated", f"chunk {kind!r} runs past the end")
        if zlib.crc32(blob[at + 4 : end]) != int.from_bytes(blob[end : end + 4], "big"):
            raise RefusedError("corrupt", f"checksum of chunk {kind!r}")
        if kind == b"IEND":
            return
        at = end + 4
    raise RefusedError("truncated", "no IEND chunk")


def read_exif(image: Image.Image, flags: list[str]) -> Exif:
    """Orientation and capture time; unreadable EXIF is a flag, no reason to refuse."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        taken = exif.get_ifd(_EXIF_IFD).get(_DATE_ORIGINAL) if exif else None
    except Exception:  # whatever the parser stumbles over
        flags.append("exif_ignored")
        return Exif()
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    return Exif(orientation, _iso(taken))


_COLOR_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_ORIENTATION: Final = 0x0112
_EXIF_IFD: Final = 0x8769
_DATE_ORIGINAL: Final = 0x9003
_PADDING: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def _iso(taken: object) -> str | None:
    try:
        return datetime.strptime(str(taken).rstrip("\x00 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _mid_gray(image: Image.Image) -> NDArray[np.bool_]:
    """Which rows hold nothing but 127 to 129."""
    above = np.asarray(image).reshape(image.height, -1) - np.uint8(127)  # wraps around below
    even: NDArray[np.bool_] = above.max(axis=1) <= 2
    return even


def _judge_warning(message: str, blob: bytes, flags: list[str]) -> None:
    """Return if Pillow may try; raise RefusedError if the data are broken."""
    padding = _PADDING.search(message)
    if padding is not None and _padded(blob, int(padding[1])):
        flags.append("padded")
    elif "premature end of jpeg" in message.lower():
        raise RefusedError("truncated", message)
    elif "corrupt" in message.lower():
        raise RefusedError("corrupt", message)


def _padded(blob: bytes, length: int) -> bool:
    """Whether nothing but zeros lies before the last end-of-image marker, as some cameras do."""
    end = blob.rfind(b"\xff\xd9")
    return not blob[max(0, end - length) : end].strip(b"\x00")
