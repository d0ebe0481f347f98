"""The decode recipe ``px1``: bytes of one image to pixels, the same way every time.

Runs only in the decoder's child process, on untrusted bytes: headers are checked before pixels,
formats come from an allow-list, and every error becomes a short reason. The recipe is part of the
embedding space: what changes a pixel needs a new name (``RECIPE``).
"""

import hashlib
import io
import re
import struct
import warnings
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Final

import numpy as np
from PIL import Image

from pixsift.core import quality
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult, ImageFacts, Pixels

_look_module: ModuleType | None
try:
    _look_module = import_module("pixsift.core.second_look")
except ImportError:
    _look_module = None


RECIPE: Final = "px1"
MARGIN: Final = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 only while its shorter side stays at least this many times
the model's input: 51-53 dB to full decode, where a margin of 1 gives 41-45 (measured.md)."""
THUMBNAIL_SIDE: Final = 256
BACKGROUND: Final = (255, 255, 255)
"""What transparent pixels are composited on; a plain convert would expose hidden colors."""

SIGNATURES: Final = (
    ("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("GIF", b"GIF8"), ("BMP", b"BM"),
    ("TIFF", b"II*\x00"), ("TIFF", b"MM\x00*"), ("TIFF", b"II+\x00"), ("TIFF", b"MM\x00+"),
    ("PSD", b"8BPS"), ("EPS", b"%!PS"), ("PDF", b"%PDF"), ("JPEG2000", b"\x00\x00\x00\x0cjP"),
    ("JPEG2000", b"\xff\x4f\xff\x51"), ("DDS", b"DDS "), ("FITS", b"SIMPLE"),
    ("ICO", b"\x00\x00\x01\x00"), ("CUR", b"\x00\x00\x02\x00"), ("SVG", b"<svg"), ("SVG", b"<?xml"),
    ("PNM", b"P1"), ("PNM", b"P2"), ("PNM", b"P3"), ("PNM", b"P4"), ("PNM", b"P5"), ("PNM", b"P6"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a file may cost before it is refused."""

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    """Allow-list by content; BMP, TIFF and GIF may be added."""
    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 30_000
    max_aspect: float = 50.0
    """Longer over shorter side."""
    memory_bytes: int = 2 * 2**30
    """Address space of a child."""
    wall_seconds: float = 10.0
    """Per image; a batch of images gets as much as one."""


class _RefusedError(Exception):
    """The file is refused: ``args`` are reason and detail."""


def recipe_id(input_side: int) -> str:
    """The recipe's name in the embedding space, e.g. ``px1-224``."""
    return f"{RECIPE}-{input_side}"


def decode_image(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
    """Decode one image. Never raises for what a file can hold; memory errors are an outcome too."""
    try:
        return _decode(blob, input_side, limits)
    except _RefusedError as refusal:
        return DecodeFailure(*refusal.args)
    except MemoryError:
        return DecodeFailure("decoder_memory", f"more than {limits.memory_bytes} bytes")
    except Exception as error:  # decoders raise anything: struct, zlib, index, value, syntax, ...
        return _failure(error)


def sniff(blob: bytes) -> str | None:
    """The format by content, or None when the bytes are no image that we know of."""
    if blob[:4] == b"RIFF" and blob[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magic in SIGNATURES if blob.startswith(magic)), None)


def jpeg_factor(width: int, height: int, input_side: int) -> int:
    """1, 2, 4 or 8: how far the decoder may scale down within ``MARGIN``."""
    need = MARGIN * input_side
    return max(f for f in (1, 2, 4, 8) if f == 1 or min(width, height) // f >= need)


def _decode(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodedImage:
    image_format = _check_container(blob, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(blob), formats=[image_format])
        width, height = image.size
        _check_header(width, height, limits)
        flags: list[str] = []
        mode = image.mode
        frames = 2 if getattr(image, "is_animated", False) else 1
        if frames > 1:
            flags.append("first_frame")
        factor = _scale(image, input_side)
        exif = _exif(image, flags)
        image.load()
        upright = _upright(_to_srgb(image, flags), exif)
    if exif.get(_ORIENTATION, 1) in (5, 6, 7, 8):
        width, height = height, width
    pixels = np.asarray(upright)
    facts = ImageFacts(
        format=image_format, width=width, height=height, mode=mode, frames=frames,
        flags=tuple(flags), captured_at=_captured_at(exif),
    )  # fmt: skip
    return DecodedImage(
        facts=facts,
        pixel_sha256=_pixel_sha256(pixels, width, height),
        model_input=np.asarray(
            upright.resize((input_side, input_side), Image.Resampling.BICUBIC), np.uint8
        ),
        quality={**quality.measure(pixels), "scale": 1.0 / factor},
        look=_look(pixels),
        thumbnail_webp=_thumbnail(upright),
    )


def _check_container(blob: bytes, limits: DecodeLimits) -> str:
    if not blob:
        raise _RefusedError("empty", "no bytes")
    if len(blob) > limits.max_bytes:
        raise _RefusedError("too_many_bytes", f"{len(blob)} bytes, at most {limits.max_bytes}")
    image_format = sniff(blob)
    if image_format is None:
        raise _RefusedError("not_an_image", "no known signature")
    if image_format not in limits.formats:
        raise _RefusedError("unsupported_format", image_format)
    return image_format


def _check_header(width: int, height: int, limits: DecodeLimits) -> None:
    size = f"{width}x{height}"
    if width < 1 or height < 1:
        raise _RefusedError("corrupt", f"size {size}")
    if max(width, height) > limits.max_side:
        raise _RefusedError("side_too_long", f"{size}, at most {limits.max_side}")
    if width * height > limits.max_pixels:
        raise _RefusedError("too_many_pixels", f"{size}, at most {limits.max_pixels}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise _RefusedError("odd_aspect", f"{size}, at most {limits.max_aspect:g}:1")


def _scale(image: Image.Image, input_side: int) -> int:
    """Have a JPEG decoded at a fraction of its size; returns the factor."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    factor = jpeg_factor(image.width, image.height, input_side)
    if factor > 1:
        image.draft(None, (-(-image.width // factor), -(-image.height // factor)))
    return factor


_ORIENTATION: Final = 0x0112
_EXIF_IFD: Final = 0x8769
_DATE_ORIGINAL: Final = 0x9003


def _exif(image: Image.Image, flags: list[str]) -> dict[int, object]:
    """Orientation and capture time; unreadable EXIF is a flag, no reason to refuse."""
    try:
        exif = image.getexif()
        found: dict[int, object] = {_ORIENTATION: exif.get(_ORIENTATION, 1)}
        found[_DATE_ORIGINAL] = exif.get_ifd(_EXIF_IFD).get(_DATE_ORIGINAL)
    except Exception:
        flags.append("exif_ignored")
        return {}
    return found


def _captured_at(exif: dict[int, object]) -> str | None:
    match = re.fullmatch(
        r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)\x00*", str(exif.get(_DATE_ORIGINAL))
    )
    if match is None or match[1] == "0000":
        return None
    return f"{match[1]}-{match[2]}-{match[3]}T{match[4]}"


_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _upright(image: Image.Image, exif: dict[int, object]) -> Image.Image:
    orientation = exif.get(_ORIENTATION, 1)
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_srgb(image: Image.Image, flags: list[str]) -> Image.Image:
    """RGB of 8 bits, whatever the mode."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise _RefusedError("unsupported_mode", "F")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        flags.append("alpha")
        rgba = image.convert("RGBA")
        opaque = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, rgba).convert("RGB")
    return image.convert("RGB")


def _look(pixels: Pixels) -> bytes:
    """Signals of the second look; empty where this build has none."""
    signals: bytes = b"" if _look_module is None else _look_module.look_signals(pixels)
    return signals


def _pixel_sha256(pixels: Pixels, width: int, height: int) -> bytes:
    digest = hashlib.sha256(struct.pack("<4sII", RECIPE.encode(), width, height))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _thumbnail(image: Image.Image) -> bytes:
    """A small WebP of the pixels alone: built from an array, so no metadata can travel along."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    clean = Image.fromarray(np.asarray(small))
    out = io.BytesIO()
    clean.save(out, "WEBP", quality=75, method=0)
    return out.getvalue()


def _failure(error: Exception) -> DecodeFailure:
    text = f"{type(error).__name__}: {error}"
    detail = re.sub(r"[^\x20-\x7e]", "?", text)[:200]
    lowered = text.lower()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return DecodeFailure("too_many_pixels", detail)
    truncated = "truncated" in lowered or "unexpected end" in lowered or "incomplete" in lowered
    return DecodeFailure("truncated" if truncated else "corrupt", detail)
