"""What a file is, by content: what is not decoded is named, so that a refusal helps."""

import io
import struct

import pytest
from PIL import Image

from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.decode.signatures import sniff
from pixsift.core.images import DecodedImage, DecodeFailure


def boxed(brand: bytes, *compatible: bytes) -> bytes:
    """An ISO base media file's first box."""
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


def tiff_with(*tags: tuple[int, int], order: str = "<") -> bytes:
    """A TIFF's first directory with LONG tags, in ascending order."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    return mark + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(100)


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        (boxed(b"heic", b"mif1"), "HEIC"),
        (boxed(b"mif1", b"heic"), "HEIC"),
        (boxed(b"mif1", b"miaf", b"avif"), "AVIF"),
        (boxed(b"avif", b"mif1"), "AVIF"),
        (boxed(b"crx "), "camera raw"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (b"Pf\n4 4\n-1.0\n" + bytes(64), "PFM"),
        (b"PF\n4 4\n-1.0\n" + bytes(192), "PFM"),
        (b"P7\nWIDTH 4\n", "PAM"),
        (b"\x76\x2f\x31\x01" + bytes(50), "OpenEXR"),
        (b"\x93NUMPY\x01\x00" + bytes(50), "NumPy array"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(50), "camera raw"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(50), "camera raw"),
        (tiff_with((50706, 0x01040000)), "camera raw"),
        (tiff_with((254, 1), (330, 500), order=">"), "camera raw"),
        (tiff_with((262, 32803)), "camera raw"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"\x00\x00\x02" + bytes(9) + struct.pack("<HH", 8, 8) + b"\x18\x00" + bytes(192), "TGA"),
        (b"\x00\x00\x0a" + bytes(9) + struct.pack("<HH", 8, 8) + b"\x20\x08" + bytes(192), "TGA"),
        (b"\x00\x00\x02\x00\x01\x00" + bytes(60), "CUR"),
    ],
)
def test_decode__what_is_not_decoded_is_named(blob: bytes, name: str) -> None:
    result = decode_image(blob, 32, DecodeLimits())
    assert isinstance(result, DecodeFailure)
    assert (result.reason, result.detail) == ("unsupported_format", name)


@pytest.mark.parametrize(
    ("blob", "word"),
    [
        (boxed(b"isom", b"mp42"), "MP4"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
        (b"#ROSBAG V2.0\n", "bag"),
        (b"\x89MCAP0\r\n" + bytes(20), "MCAP"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00", "AppleDouble"),
        (b"hello world", "no known signature"),
        (bytes(40), "no known signature"),
    ],
)
def test_decode__what_is_no_image_is_named_too(blob: bytes, word: str) -> None:
    result = decode_image(blob, 32, DecodeLimits())
    assert isinstance(result, DecodeFailure)
    assert result.reason == "not_an_image" and word in result.detail


def test_sniff__a_plain_tiff_is_no_raw_file() -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "TIFF")
    assert sniff(out.getvalue()) == "TIFF"
    assert sniff(tiff_with((254, 1))) == "TIFF", "a reduced picture of nothing else"
    assert sniff(b"II*\x00") == "TIFF", "cut: the decoder says so"


def test_decode__a_tiff_of_another_layout_is_not_called_corrupt() -> None:
    result = decode_image(tiff_of_float_colors(), 32, DecodeLimits())
    assert isinstance(result, DecodeFailure) and result.reason == "unsupported_variant"


def tiff_of_float_colors(side: int = 40) -> bytes:
    """RGB in 32-bit floats, one strip: sound, and not known to Pillow."""
    strip = 8 + 12
    data = bytes(side * side * 12)
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, strip), (277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, len(data)),
        (339, 3, 3, 14),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", *entry) for entry in entries
    )
    head = b"II*\x00" + struct.pack("<I", strip + len(data))
    return head + struct.pack("<6H", 32, 32, 32, 3, 3, 3) + data + directory + bytes(4)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_sniff__a_tga_of_any_kind(mode: str, compression: str | None) -> None:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert(mode).save(out, "TGA", compression=compression)
    assert sniff(out.getvalue()) == "TGA"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_decode__a_bmp_of_any_kind(mode: str) -> None:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert(mode).save(out, "BMP")
    assert isinstance(decode_image(out.getvalue(), 32, DecodeLimits()), DecodedImage)
