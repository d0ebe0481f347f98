"""The decode recipe ``px2``: bytes of one image to pixels, the same way every time.

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
from PIL.TiffImagePlugin import TiffImageFile

from pixsift.adapters.decode.coded import coded_picture
from pixsift.adapters.decode.color import to_srgb, transposed
from pixsift.adapters.decode.exif import read_exif
from pixsift.adapters.decode.formats import (
    MOST_GRAY_BAND,
    RefusedError,
    WarnedError,
    gray_band,
    jpeg_factor,
    jpeg_pixels,
)
from pixsift.adapters.decode.full_size import full_size_metrics, hidden_detail, is_suspicious
from pixsift.adapters.decode.samples import bits_per_channel, deep_frame
from pixsift.adapters.decode.signatures import sniff, what_else
from pixsift.adapters.decode.sound_jpeg import sound_copy
from pixsift.adapters.decode.sound_png import checked_png
from pixsift.core import quality
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult, ImageFacts, Pixels
from pixsift.core.second_look import look_signals

RECIPE: Final = "px2"
HASHED_AS: Final = "px1"
"""The name in pixel hashes stays the same as long as the pixels of ordinary images do: ``px2``
changed those of deep frames alone, whose hash covers their file's samples as well."""
THUMBNAIL_SIDE: Final = 256
"""Longest side at most: reduced by a whole number, which is four times as fast as a resize."""
FIRST_LOOK_SHARE: Final = 0.25
"""Of the time an image may take: used up before a look at full size, there is none."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a file may cost before it is refused."""

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
    """Allow-list by content; GIF may be added."""
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
    except Exception as error:  # decoders raise many kinds: struct, zlib, index, value, syntax, ...
        return _failure(error)


def _decode(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodedImage:
    started = monotonic()
    image_format = _check_container(blob, limits)
    flags: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = _open(blob, image_format, input_side, limits)
        image, raw, blob = opened.image, opened.raw, opened.blob
        width, height = image.size
        mode, frames = image.mode, 2 if getattr(image, "is_animated", False) else 1
        exif = read_exif(image, flags)  # after the pixels: a PNG may carry it behind them
        bits = bits_per_channel(raw, blob)
        deep = deep_frame(raw, blob, bits)
        srgb = to_srgb(raw, image.info, bits, flags, deep)
        upright = transposed(srgb.image, exif.orientation)
    if frames > 1:
        flags.append("first_frame")
    if caught:
        flags.append("decoder_warning")
    if exif.orientation >= 5:
        width, height = height, width
    pixels = np.asarray(upright) if opened.pixels is None or upright is not raw else opened.pixels
    metrics = quality.measure(
        pixels, luma=np.asarray(upright.convert("L")), scale=1.0 / opened.factor
    )
    is_partial = opened.factor > 1 or deep is not None or bits > 8
    coded = coded_picture(blob) if image_format == "JPEG" or is_partial else b""
    if image_format == "JPEG":
        metrics["gray_band"] = gray_band(raw)
        metrics["bits_per_pixel"] = 8 * len(coded) / (width * height)
    if opened.factor > 1 and isinstance(image, JpegImageFile):
        look_until = started + limits.wall_seconds * FIRST_LOOK_SHARE
        metrics |= _behind_the_scaling(blob, image, raw, metrics, look_until)
    model_input = np.asarray(
        upright.resize((input_side, input_side), Image.Resampling.BICUBIC), np.uint8
    )
    metrics |= {name: n for name, n in opened.found.items() if name != "padded"} | srgb.metrics
    return DecodedImage(
        facts=ImageFacts(
            format=image_format, width=width, height=height, mode=mode, frames=frames,
            flags=tuple(dict.fromkeys([*flags, *opened.found])), captured_at=exif.captured_at,
            exif=exif.attributes,
        ),
        pixel_sha256=_pixel_sha256(pixels, (width, height), coded if is_partial else b""),
        model_input=model_input,
        quality=metrics | quality.size_metrics(width, height),
        look=look_signals(model_input),
        thumbnail_webp=_thumbnail(upright),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A file whose picture is loaded."""

    image: Image.Image
    """The file as Pillow opened it, for its header and metadata."""
    raw: Image.Image
    """The picture in its own mode."""
    pixels: Pixels | None
    """Its (H, W, 3) array where there is one already."""
    factor: int
    """How far a JPEG was scaled down."""
    blob: bytes
    """The file, with its faults repaired."""
    found: dict[str, float]
    """What was wrong around a valid picture: flags, and how often each."""


def _open(blob: bytes, image_format: str, input_side: int, limits: DecodeLimits) -> _Opened:
    found: dict[str, float] = {}
    if image_format == "PNG":
        checked = checked_png(blob)
        blob, found = checked.blob, checked.found
    try:
        image = Image.open(io.BytesIO(blob), formats=[image_format])
    except UnidentifiedImageError:
        _explain_tiff(blob, image_format)
        raise
    _check_header(*image.size, limits)
    if image_format != "JPEG":
        image.load()
        return _Opened(image, image, None, 1, blob, found)
    factor = jpeg_factor(image.width, image.height, input_side)
    try:
        raw, pixels = jpeg_pixels(image, blob, factor)
    except WarnedError as warning:
        return _open_warned(blob, image, factor, str(warning))
    return _Opened(image, raw, pixels, factor, blob, found)


def _explain_tiff(blob: bytes, image_format: str) -> None:
    """Raise RefusedError for a TIFF that is sound, but of a layout that Pillow does not know."""
    if image_format == "TIFF":
        try:
            TiffImageFile(io.BytesIO(blob))
        except SyntaxError as error:
            if "unknown pixel mode" in str(error):
                raise RefusedError("unsupported_variant", "TIFF: an unusual layout") from error


def _open_warned(blob: bytes, image: Image.Image, factor: int, warning: str) -> _Opened:
    """A JPEG that the decoder warns of: by a copy that it does not warn of, or not at all."""
    try:
        sound = sound_copy(blob, warning)
    except RefusedError:
        if "corrupt" in warning.lower() or "premature" in warning.lower():
            raise
        image.draft(None, (image.width // factor, image.height // factor))
        image.load()  # an oddity of its header, which Pillow's decoder passes over
        opened = _Opened(image, image, None, factor, blob, {"header_warning": 1.0})
    else:
        image = Image.open(io.BytesIO(sound.blob), formats=["JPEG"])
        raw, pixels = jpeg_pixels(image, sound.blob, factor)
        opened = _Opened(image, raw, pixels, factor, sound.blob, sound.found)
    if gray_band(opened.raw) > MOST_GRAY_BAND:
        raise RefusedError("corrupt", f"gray at the bottom, and: {warning}")
    return opened


def _check_container(blob: bytes, limits: DecodeLimits) -> str:
    if not blob:
        raise RefusedError("empty", "no bytes")
    if len(blob) > limits.max_bytes:
        raise RefusedError("too_many_bytes", f"{len(blob)} bytes, at most {limits.max_bytes}")
    image_format = sniff(blob)
    if image_format is None:
        raise RefusedError("not_an_image", what_else(blob))
    if image_format not in limits.formats:
        raise RefusedError("unsupported_format", image_format)
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


def _behind_the_scaling(
    blob: bytes, image: JpegImageFile, raw: Image.Image, metrics: dict[str, float], until: float
) -> dict[str, float]:
    """Metrics of a scaled JPEG's full size. metrics: those known so far; until: on the clock."""
    detail = hidden_detail(image, raw, metrics["bits_per_pixel"] / 8)
    found = {} if detail is None else {"hidden_detail": detail}
    # A picture that took long must not take longer still, or it would be refused.
    if monotonic() < until and is_suspicious(detail, metrics):
        found |= full_size_metrics(blob)
    return found


def _pixel_sha256(pixels: Pixels, size: tuple[int, int], coded: bytes) -> bytes:
    """coded: the coded picture (without metadata), where the pixels are not the whole picture.
    Pixels decoded at full size and depth are enough, in any container. Of a scaled JPEG or a deeper
    PNG or TIFF we have seen less than the file holds, so equal pixels do not prove equal pictures.
    """
    digest = hashlib.sha256(struct.pack("<4sII", HASHED_AS.encode(), *size))
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
    if isinstance(error, UnidentifiedImageError):  # its text contains a memory address
        return DecodeFailure("corrupt", "the header cannot be read")
    if "truncated" in lowered or "unexpected end" in lowered or "not enough image data" in lowered:
        return DecodeFailure("truncated", detail)
    return DecodeFailure("unsupported_variant" if "unsupported" in lowered else "corrupt", detail)
