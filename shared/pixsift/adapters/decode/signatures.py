"""Which format the bytes are, by content: extensions lie. Also names what is not decoded."""

import struct
from typing import Final

SIGNATURES: Final = (
    ("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("GIF", b"GIF8"), ("BMP", b"BM"),
    ("camera raw", b"II*\x00\x10\x00\x00\x00CR"), ("camera raw", b"IIRO"), ("camera raw", b"IIRS"),
    ("camera raw", b"MMOR"), ("camera raw", b"IIU\x00"), ("camera raw", b"FUJIFILMCCD-RAW"),
    ("camera raw", b"FOVb"), ("camera raw", b"\x00MRM"),
    ("camera raw", b"II\x1a\x00\x00\x00HEAPCCDR"),
    ("TIFF", b"II*\x00"), ("TIFF", b"MM\x00*"), ("TIFF", b"II+\x00"), ("TIFF", b"MM\x00+"),
    ("PSD", b"8BPS"), ("EPS", b"%!PS"), ("PDF", b"%PDF"), ("JPEG 2000", b"\x00\x00\x00\x0cjP"),
    ("JPEG 2000", b"\xff\x4f\xff\x51"), ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\x00\x00\x00\x0cJXL \r\n\x87\n"), ("JPEG XR", b"II\xbc"),
    ("DDS", b"DDS "), ("FITS", b"SIMPLE"), ("OpenEXR", b"\x76\x2f\x31\x01"),
    ("Radiance HDR", b"#?RADIANCE"), ("Radiance HDR", b"#?RGBE"), ("NumPy array", b"\x93NUMPY"),
    ("QOI", b"qoif"), ("DPX", b"SDPX"), ("DPX", b"XPDS"), ("BPG", b"BPG\xfb"), ("FLIF", b"FLIF"),
    ("farbfeld", b"farbfeld"),
    ("ICO", b"\x00\x00\x01\x00"), ("CUR", b"\x00\x00\x02\x00"), ("SVG", b"<svg"), ("SVG", b"<?xml"),
    ("PFM", b"PF\n"), ("PFM", b"Pf\n"), ("PFM", b"PF\r"), ("PFM", b"Pf\r"),
    ("PAM", b"P7\n"), ("PAM", b"P7\r"),
    ("PNM", b"P1"), ("PNM", b"P2"), ("PNM", b"P3"), ("PNM", b"P4"), ("PNM", b"P5"), ("PNM", b"P6"),
)  # fmt: skip
"""What a file begins with; earlier lines win."""
OTHER_SIGNATURES: Final = (
    ("a ROS bag", b"#ROSBAG"), ("an MCAP recording", b"\x89MCAP0\r\n"),
    ("SQLite", b"SQLite format 3"),
    ("Matroska or WebM video", b"\x1aE\xdf\xa3"), ("MPEG video", b"\x00\x00\x01\xba"),
    ("MPEG video", b"\x00\x00\x01\xb3"), ("a ZIP archive", b"PK\x03\x04"), ("gzip", b"\x1f\x8b"),
    ("HDF5", b"\x89HDF\r\n"), ("a point cloud", b"# .PCD"), ("a point cloud", b"ply\n"),
    ("AppleDouble, a Mac's file about a file", b"\x00\x05\x16\x07"), ("HTML", b"<!DOCTYPE html"),
    ("HTML", b"<html"),
)  # fmt: skip
"""Formats that are not images, for a helpful refusal."""
_BRANDS: Final = {
    b"avif": "AVIF", b"avis": "AVIF", b"crx ": "camera raw", b"jxl ": "JPEG XL",
    b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC", b"heim": "HEIC",
    b"heis": "HEIC", b"hevm": "HEIC", b"hevs": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC",
    b"mif2": "HEIC",
}  # fmt: skip


def sniff(blob: bytes) -> str | None:
    """The format by content, or None when the bytes are not an image format that we know."""
    if blob[:4] == b"RIFF" and blob[8:12] == b"WEBP":
        return "WEBP"
    if blob[4:8] == b"ftyp":
        return _brand(blob)
    found = next((name for name, magic in SIGNATURES if blob.startswith(magic)), None)
    if found == "TIFF" and is_camera_raw(blob):
        return "camera raw"
    return "TGA" if found in (None, "CUR") and _looks_like_tga(blob) else found


def what_else(blob: bytes) -> str:
    """A description for people of bytes that are not an image."""
    if blob[4:8] == b"ftyp":
        return "MP4 or QuickTime video"
    if blob[:4] == b"RIFF":
        return "AVI video" if blob[8:12] == b"AVI " else "a RIFF file"
    named = next((name for name, magic in OTHER_SIGNATURES if blob.startswith(magic)), None)
    return named or "no known signature"


def is_camera_raw(blob: bytes) -> bool:
    """Whether a TIFF is a camera's raw file: what Pillow would show of it is a small preview.

    Recognized by a DNG version tag, a color filter array, or a first picture that is a reduced copy
    of others below it (NEF, ARW, PEF).
    """
    try:
        order = "<" if blob[:2] == b"II" else ">"
        if blob[2:4] not in (b"*\x00", b"\x00*"):
            return False
        (at,) = struct.unpack_from(order + "I", blob, 4)
        (count,) = struct.unpack_from(order + "H", blob, at)
        tags = {}
        for index in range(min(count, 512)):
            tag, kind, number = struct.unpack_from(order + "HHI", blob, at + 2 + 12 * index)
            form = "H" if kind == 3 and number == 1 else "I"
            (tags[tag],) = struct.unpack_from(order + form, blob, at + 10 + 12 * index)
    except struct.error:
        return False
    is_reduced = bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1) and _SUB_IFDS in tags
    return _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _FILTER_ARRAYS or is_reduced


_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 262, 330, 50706
_FILTER_ARRAYS: Final = (32803, 34892)
"""Photometric interpretations: color filter array, linear raw."""


def _brand(blob: bytes) -> str | None:
    """The image format of an ISO base media file, by its major brand, then the compatible ones."""
    size = min(int.from_bytes(blob[:4], "big"), 256)
    brands = [blob[8:12], *(blob[at : at + 4] for at in range(16, size - 3, 4))]
    named = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return next((name for name in named if name != "HEIC"), named[0]) if named else None


def _looks_like_tga(blob: bytes) -> bool:
    """A TGA begins with no signature: its 18 header bytes must make sense together."""
    if blob.endswith(b"TRUEVISION-XFILE.\x00"):
        return True
    if len(blob) < 18 or blob[1] > 1 or blob[2] not in (1, 2, 3, 9, 10, 11):
        return False
    has_map, depth = blob[1] == 1, blob[16]
    sound = blob[7] in (15, 16, 24, 32) if has_map else not any(blob[3:8])
    sound = sound and depth in (8, 15, 16, 24, 32)
    return sound and any(blob[12:14]) and any(blob[14:16]) and blob[17] & 0xC0 == 0
