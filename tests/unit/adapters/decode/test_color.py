"""Depth and transparency, on hand-made PNG and TIFF that no library of ours writes."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage

LIMITS = DecodeLimits(formats=("PNG", "TIFF"))
WHITE = [255, 255, 255]


def decoded(blob: bytes) -> DecodedImage:
    result = decode_image(blob, 32, LIMITS)
    assert isinstance(result, DecodedImage), result
    return result


def png(values: NDArray[np.uint16], bits: int, *, key: tuple[int, ...]) -> bytes:
    """Gray (H, W) or color (H, W, 3) of ``bits``; pixels of the color ``key`` are transparent."""
    rows = values.reshape(len(values), -1)
    if bits < 8:
        digits = (rows[..., np.newaxis] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
        packed = np.packbits(digits.reshape(len(rows), -1), axis=1)
    else:
        packed = rows.astype(np.uint8 if bits == 8 else ">u2").view(np.uint8)
    color = 0 if values.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, color, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(f">{len(key)}H", *key)),
        (b"IDAT", zlib.compress(b"".join(b"\x00" + row.tobytes() for row in packed))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(width: int, height: int, bits: int, data: bytes) -> bytes:
    """An uncompressed gray TIFF of one strip."""
    shorts = {256: width, 257: height, 258: bits, 259: 1, 262: 1}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    entries.append(struct.pack("<HHII", 273, 4, 1, 8))  # where the strip begins
    entries.append(struct.pack("<HHIHH", 278, 3, 1, height, 0))
    entries.append(struct.pack("<HHII", 279, 4, 1, len(data)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\x00" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_to_srgb__the_gray_that_stands_for_transparent_is_white(bits: int) -> None:
    """Compared as it is in the file: at 16 bits both halves have the same high byte."""
    key = 300 if bits == 16 else 1
    values = np.full((40, 40), key, np.uint16)
    values[:, 20:] = key - 1
    result = decoded(png(values, bits, key=(key,)))
    assert result.model_input[5, 5].tolist() == WHITE
    assert result.model_input[5, 26].max() <= 1
    assert "alpha" in result.facts.flags


@pytest.mark.parametrize("bits", [8, 16])
def test_to_srgb__the_color_that_stands_for_transparent_is_white(bits: int) -> None:
    step = 1 << bits - 8
    values = np.full((40, 40, 3), (10 * step, 20 * step, 30 * step), np.uint16)
    values[:, 20:] = (10 * step, 20 * step, 31 * step)
    result = decoded(png(values, bits, key=(10 * step, 20 * step, 30 * step)))
    assert result.model_input[5, 5].tolist() == WHITE
    assert result.model_input[5, 26].tolist() == [10, 20, 31]
    assert "alpha" in result.facts.flags


def test_to_srgb__a_key_that_no_pixel_has_changes_nothing() -> None:
    result = decoded(png(np.full((40, 40), 5, np.uint16), 8, key=(6,)))
    assert set(result.model_input.reshape(-1).tolist()) == {5}
    assert "alpha" not in result.facts.flags


@pytest.mark.parametrize(
    "name", ["tbbn0g04", "tbwn0g16", "tbbn2c16", "tbgn2c16", "tbrn2c08", "tbwn3p08", "tm3n3p02"]
)
def test_to_srgb__transparency_in_the_png_suite(images: Path, name: str) -> None:
    (path,) = (images / "conformance" / "png").rglob(f"{name}.png")
    result = decoded(path.read_bytes())
    assert result.model_input[0, 0].tolist() == WHITE
    assert "alpha" in result.facts.flags


def test_to_srgb__a_profile_of_sixteen_bit_gray_is_not_passed_over() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    flags = []
    for kind in (np.uint8, np.uint16):
        out = io.BytesIO()
        Image.fromarray(np.full((40, 40), 30, kind)).save(out, "PNG", icc_profile=profile)
        flags.append(decoded(out.getvalue()).facts.flags)
    assert flags == [("icc_ignored",), ("icc_ignored",)], "it is meant for three channels"


def test_to_srgb__twelve_bits_are_as_bright_as_they_say() -> None:
    two_pixels = b"\x7f\xf7\xff"
    result = decoded(tiff(40, 40, 12, two_pixels * 20 * 40))
    assert set(result.model_input.reshape(-1).tolist()) == {127}
