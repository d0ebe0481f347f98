"""Converts any mode to upright 8-bit sRGB: depth, palette, alpha, CMYK, profiles, orientation."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from pixsift.adapters.decode.deep import eight_bits
from pixsift.adapters.decode.formats import RefusedError
from pixsift.adapters.decode.samples import DeepFrame

BACKGROUND: Final = (255, 255, 255)
"""The background of transparent pixels; a plain conversion would expose hidden colors."""
MAX_PROFILE_BYTES: Final = 4 * 2**20

_PROFILE_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def transposed(image: Image.Image, orientation: int) -> Image.Image:
    """Upright, for an EXIF orientation from 1 to 8."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


@dataclass(frozen=True, slots=True, eq=False)
class SrgbImage:
    """A picture in 8-bit sRGB, and what its samples showed on the way."""

    image: Image.Image
    metrics: dict[str, float] = field(default_factory=dict)
    """``range_used`` of a deep frame, and what was missing in it."""


def to_srgb(
    image: Image.Image,
    info: Mapping[Any, Any],
    bits: int,
    flags: list[str],
    deep: DeepFrame | None = None,
) -> SrgbImage:
    """RGB of 8 bits.

    info: as Pillow read it from the file: the ICC profile, and what is transparent.
    bits: per channel in the file, of which Pillow may hand us fewer.
    deep: its samples where they are more than 8 bits.
    """
    profile, key = info.get("icc_profile"), info.get("transparency")
    metrics: dict[str, float] = {}
    if deep is None:
        image = _without_key(image, key, bits, flags)
    else:
        image, metrics = _from_deep(deep, key, flags)
        key = None
    return SrgbImage(_managed_or_plain(image, profile, key, flags), metrics)


def _managed_or_plain(
    image: Image.Image, profile: bytes | None, key: object, flags: list[str]
) -> Image.Image:
    if image.mode in ("CMYK", "L") and profile:
        managed = _managed(image, profile, flags)
        if managed is not None:
            return managed
    if image.mode == "LAB":
        return _from_lab(image)
    plain = _composited(image, image.mode == "P" and key is not None, flags)
    if profile and image.mode not in ("CMYK", "L"):
        return _managed(plain, profile, flags) or plain
    return plain


def _without_key(image: Image.Image, key: object, bits: int, flags: list[str]) -> Image.Image:
    """White where a pixel has the color that means transparent (PNG's tRNS). Pillow compares its
    own 8 bits with the key as it is in the file.
    """
    if not isinstance(key, int | tuple) or image.mode not in ("1", "L", "RGB"):
        return image
    values = np.array(image.convert("L") if image.mode == "1" else image)
    most = 2**bits - 1
    sought = np.array(key) & most
    if most > 255:
        sought >>= bits - 8
    elif most < 255:
        sought = sought * 255 // most
    transparent = (values == sought).reshape(*values.shape[:2], -1).all(axis=-1)
    if not transparent.any():
        return image
    flags.append("alpha")
    values[transparent] = 255
    return Image.fromarray(values)


def _from_deep(
    deep: DeepFrame, key: object, flags: list[str]
) -> tuple[Image.Image, dict[str, float]]:
    """More than eight bits to eight, see ``pixsift.adapters.decode.deep``."""
    alpha = deep.alpha
    if isinstance(key, int | tuple) and alpha is None:
        same = deep.values == np.array(key)
        hidden = same.reshape(*deep.values.shape[:2], -1).all(axis=-1)
        alpha = np.where(hidden, np.uint8(0), np.uint8(255)) if hidden.any() else None
    values, stretch = eight_bits(
        deep.values, deep.full, nodata=deep.nodata, hidden=None if alpha is None else alpha == 0
    )
    if stretch.is_stretched:
        flags.append("stretched")
    if stretch.missing:
        flags.append("no_reading")
    picture = Image.fromarray(values)
    if alpha is not None:
        picture.putalpha(Image.fromarray(alpha))
    return picture, {"range_used": stretch.used} if stretch.is_stretched else {}


def _composited(image: Image.Image, transparent: bool, flags: list[str]) -> Image.Image:
    """RGB over ``BACKGROUND``. transparent: an entry of the palette is see-through."""
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparent
    if not has_alpha:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    flags.append("alpha")
    opaque = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
    return Image.alpha_composite(opaque, rgba).convert("RGB")


def _managed(image: Image.Image, profile: bytes, flags: list[str]) -> Image.Image | None:
    """The image through its profile to sRGB, or None (flagged) when the profile cannot be used."""
    transform = _transform(profile, image.mode) if len(profile) <= MAX_PROFILE_BYTES else None
    if transform is None:
        flags.append("icc_ignored")
        return None
    if isinstance(transform, str):
        return image.convert("RGB")
    try:
        managed = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError):
        flags.append("icc_ignored")
        return None
    flags.append("icc_applied")
    return managed


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """A transform to sRGB; ``srgb`` when there is nothing to do; None for an unsound profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if _PROFILE_MODES.get(space) != mode:
            return None
        if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return "srgb"
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return None


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    managed = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if managed is None:
        raise RefusedError("unsupported_mode", "LAB")
    return managed
