"""What the decoder hands on: pixels and the facts about them, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB, upright."""
EXIF_ATTRIBUTES: Final = ("camera_make", "camera_model", "gps_latitude", "gps_longitude")
"""Attributes from EXIF: text as the camera wrote it; decimal degrees, south and west negative."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""What can be decoded at all; a deployment may allow less."""

FLAGS: Final = frozenset(
    {"alpha", "bad_checksum", "decoder_warning", "exif_ignored", "first_frame", "header_warning",
     "icc_applied", "icc_ignored", "missing_end", "no_reading", "padded", "stray_bytes",
     "stretched"}
)  # fmt: skip
"""Flags of a readable file. A decoder's process can report only these."""

REASONS: Final = frozenset(
    {"corrupt", "decoder_crash", "decoder_memory", "decoder_timeout", "empty", "not_an_image",
     "odd_aspect", "side_too_long", "too_many_bytes", "too_many_pixels", "truncated",
     "unsupported_format", "unsupported_mode", "unsupported_variant"}
)  # fmt: skip
"""Reasons for having no pixels. A decoder's process can report only these."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFacts:
    """Facts about an image file, as stored in ``object.image_facts``."""

    format: str
    """JPEG, PNG, WEBP, ... as sniffed from the content."""
    width: int
    """Pixels, upright (after EXIF orientation)."""
    height: int
    mode: str
    """Pillow's mode before conversion: RGB, L, CMYK, I;16, ..."""
    frames: int = 1
    """1, or 2 for "more than one": frames are never iterated to count them."""
    flags: tuple[str, ...] = ()
    """Things worth knowing that do not reject an image: ``icc_ignored``, ``first_frame``, ..."""
    captured_at: str | None = None
    """EXIF DateTimeOriginal in ISO 8601 where present and valid, with the fraction and offset that
    the file gives; a missing time zone is not guessed."""
    exif: Mapping[str, str] = field(default_factory=dict)
    """``EXIF_ATTRIBUTES`` of the file; nothing else of its metadata is read."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """One image after decoding, ready for the embedder. Only fixed-size things: no metadata."""

    facts: ImageFacts
    pixel_sha256: bytes
    """32 bytes: hash of the decoded upright sRGB pixels at the recipe's scale."""
    model_input: Pixels
    """(S, S, 3) uint8: what the embedder takes; S is the embedder's ``input_side``."""
    quality: dict[str, float] = field(default_factory=dict)
    """Metrics by name (see ``pixsift.core.quality``)."""
    look: bytes = b""
    """Signals for the second look at pairs near epsilon (see ``pixsift.core.second_look``)."""
    thumbnail_webp: bytes = b""
    """A small WebP without metadata, longest side at most 256 pixels."""


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """Why there are no pixels. ``reason`` is a short code: ``truncated``, ``not_an_image``, ..."""

    reason: str
    detail: str = ""


DecodeResult = DecodedImage | DecodeFailure
