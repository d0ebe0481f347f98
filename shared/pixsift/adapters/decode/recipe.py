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
from time import monotonic
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pixsift.adapters.decode.coded import coded_picture
from pixsift.adapters.decode.color import to_srgb, transposed
from pixsift.adapters.decode.formats import (
    RefusedError,
    check_png,
    gray_band,
    jpeg_factor,
    jpeg_pixels,
    read_exif,
    sniff,
)
from pixsift.adapters.decode.full_size import full_size_metrics, hidden_detail, is_suspicious
from pixsift.core import quality
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult, ImageFacts, Pixels
from pixsift.core.second_look import look_signals

RECIPE: Final = "px1"
THUMBNAIL_SIDE: Final = 256
"""Longest side at most: reduced by a whole number, which is four times as fast as a resize."""
FIRST_LOOK_SHARE: Final = 0.25
"""Of the time an image may take: used up before a look at full size, there is none."""


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


def recipe_id(input_side: int) -> str:
    """The recipe's name in the embedding space, e.g. ``px1-224``."""
    return f"{RECIPE}-{input_side}"


def decode_image(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
    """Decode one image. Never raises for what a file can hold; memory errors are an outcome too."""
    try:
        return _decode(blob, input_side, limits)
    except RefusedError as refusal:
        return DecodeFailure(*refusal.args)
    except MemoryError:
        return DecodeFailure("decoder_memory", f"more than {limits.memory_bytes} bytes")
    except Exception as error:  # decoders raise anything: struct, zlib, index, value, syntax, ...
        return _failure(error)


def _decode(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodedImage:
    image_format = _check_container(blob, limits)
    flags: list[str] = []
    started = monotonic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        image = Image.open(io.BytesIO(blob), formats=[image_format])
        width, height = image.size
        _check_header(width, height, limits)
        mode, frames = image.mode, 2 if getattr(image, "is_animated", False) else 1
        raw, at_hand, factor = _load(image, blob, image_format, input_side, flags)
        exif = read_exif(image, flags)  # after the pixels: a PNG may carry it behind them
        bits = bits_per_channel(raw, blob)
        upright = transposed(to_srgb(raw, image.info, bits, flags), exif.orientation)
    if frames > 1:
        flags.append("first_frame")
    if told:
        flags.append("decoder_warning")
    if exif.orientation >= 5:
        width, height = height, width
    pixels = np.asarray(upright) if at_hand is None or upright is not raw else at_hand
    metrics = quality.measure(pixels, luma=np.asarray(upright.convert("L")), scale=1.0 / factor)
    deep = raw.mode.startswith(("I", "F")) or bits > 8
    coded = coded_picture(blob) if image_format == "JPEG" or deep else b""
    if image_format == "JPEG":
        metrics["gray_band"] = gray_band(raw)
        metrics["bits_per_pixel"] = 8 * _coded_bytes(coded, flags) / (width * height)
    if factor > 1 and isinstance(image, JpegImageFile):
        look_until = started + limits.wall_seconds * FIRST_LOOK_SHARE
        metrics |= _behind_the_scaling(blob, image, raw, metrics, look_until)
    model_input = np.asarray(
        upright.resize((input_side, input_side), Image.Resampling.BICUBIC), np.uint8
    )
    return DecodedImage(
        facts=ImageFacts(
            format=image_format, width=width, height=height, mode=mode, frames=frames,
            flags=tuple(dict.fromkeys(flags)), captured_at=exif.captured_at,
        ),
        pixel_sha256=_pixel_sha256(pixels, (width, height), coded if factor > 1 or deep else b""),
        model_input=model_input,
        quality=metrics | quality.size_metrics(width, height),
        look=look_signals(model_input),
        thumbnail_webp=_thumbnail(upright),
    )  # fmt: skip


def _check_container(blob: bytes, limits: DecodeLimits) -> str:
    if not blob:
        raise RefusedError("empty", "no bytes")
    if len(blob) > limits.max_bytes:
        raise RefusedError("too_many_bytes", f"{len(blob)} bytes, at most {limits.max_bytes}")
    image_format = sniff(blob)
    if image_format is None:
        raise RefusedError("not_an_image", "no known signature")
    if image_format not in limits.formats:
        raise RefusedError("unsupported_format", image_format)
    if image_format == "PNG":
        check_png(blob)
    return image_format


def _check_header(width: int, height: int, limits: DecodeLimits) -> None:
    size = f"{width}x{height}"
    if width < 1 or height < 1:
        raise RefusedError("corrupt", f"size {size}")
    if max(width, height) > limits.max_side:
        raise RefusedError("side_too_long", f"{size}, at most {limits.max_side}")
    if width * height > limits.max_pixels:
        raise RefusedError("too_many_pixels", f"{size}, at most {limits.max_pixels}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise RefusedError("odd_aspect", f"{size}, at most {limits.max_aspect:g}:1")


def _load(
    image: Image.Image, blob: bytes, image_format: str, input_side: int, flags: list[str]
) -> tuple[Image.Image, Pixels | None, int]:
    """The picture in its own mode, its array where there is one already, and the factor by which
    a JPEG was scaled down."""
    if image_format != "JPEG":
        image.load()
        return image, None, 1
    factor = jpeg_factor(image.width, image.height, input_side)
    return *jpeg_pixels(image, blob, factor, flags), factor


def _behind_the_scaling(
    blob: bytes, image: JpegImageFile, raw: Image.Image, metrics: dict[str, float], until: float
) -> dict[str, float]:
    """Metrics of a scaled JPEG's full size. metrics: those known so far; until: on the clock."""
    detail = hidden_detail(image, raw, metrics["bits_per_pixel"] / 8)
    found = {} if detail is None else {"hidden_detail": detail}
    # A picture that took long is not made to take longer still, until it would be refused.
    if monotonic() < until and is_suspicious(detail, metrics):
        found |= full_size_metrics(blob)
    return found


def _coded_bytes(coded: bytes, flags: list[str]) -> int:
    """Length of a coded JPEG without the zeros that some cameras put before its end."""
    return len(coded[:-2].rstrip(b"\0")) + 2 if "padded" in flags else len(coded)


def bits_per_channel(raw: Image.Image, blob: bytes) -> int:
    """In the file; of more than 8 Pillow often hands us 8."""
    if raw.format == "PNG":
        return blob[24]  # bit depth in IHDR
    return int(max(getattr(raw, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))))


_BITS_PER_SAMPLE: Final = 258


def _pixel_sha256(pixels: Pixels, size: tuple[int, int], coded: bytes) -> bytes:
    """coded: the coded picture (without metadata) where the pixels do not tell all.

    Pixels decoded at full size and depth speak for themselves, in any container. Of a scaled JPEG
    or a deeper PNG or TIFF we have seen less than the file holds, and two pictures must not merge
    on that.
    """
    digest = hashlib.sha256(struct.pack("<4sII", RECIPE.encode(), *size))
    digest.update(np.ascontiguousarray(pixels).data)
    if coded:
        digest.update(hashlib.sha256(coded).digest())
    return digest.digest()


def _thumbnail(image: Image.Image) -> bytes:
    """A small WebP of the pixels alone: built from an array, so no metadata can travel along."""
    small = image.reduce(-(-max(image.size) // THUMBNAIL_SIDE))
    clean = Image.fromarray(np.asarray(small))
    out = io.BytesIO()
    clean.save(out, "WEBP", quality=75, method=0)
    return out.getvalue()


def _failure(error: Exception) -> DecodeFailure:
    text = f"{type(error).__name__}: {error}"
    detail = re.sub(r"[^\x20-\x7e]", "?", text)[:200]
    lowered = text.lower()
    if isinstance(error, Image.DecompressionBombError):
        return DecodeFailure("too_many_pixels", detail)
    if isinstance(error, UnidentifiedImageError):  # its text holds an address
        return DecodeFailure("corrupt", "the header cannot be read")
    if "truncated" in lowered or "unexpected end" in lowered or "not enough image data" in lowered:
        return DecodeFailure("truncated", detail)
    return DecodeFailure("unsupported_variant" if "unsupported" in lowered else "corrupt", detail)
