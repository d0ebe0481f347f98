"""The coded picture: the bytes of a file that decide its pixels, without its metadata."""

import struct


def coded_picture(blob: bytes) -> bytes:
    """The bytes that decide the pixels: a JPEG or PNG without metadata, other files whole."""
    if blob.startswith(b"\xff\xd8"):
        return b"".join(_jpeg_segments(blob))
    if blob.startswith(b"\x89PNG"):
        return b"".join(_png_critical_chunks(blob))
    return blob


def _jpeg_segments(blob: bytes) -> list[bytes]:
    """Everything but APPn and comments; from the first scan on, all of it."""
    parts: list[bytes] = []
    at = 2
    while at + 4 <= len(blob) and blob[at] == 0xFF:
        marker = blob[at + 1]
        if marker == 0xDA:  # start of scan
            return [*parts, blob[at:]]
        size = 2 + int.from_bytes(blob[at + 2 : at + 4], "big")
        is_adobe = marker == 0xEE  # says how the color channels are meant
        if is_adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(blob[at : at + size])
        at += size
    return [blob]  # a layout we do not follow: only equal files are equal


def _png_critical_chunks(blob: bytes) -> list[bytes]:
    """Critical chunks and transparency, with their types."""
    parts: list[bytes] = []
    at = 8
    while at + 12 <= len(blob):
        (size,) = struct.unpack_from(">I", blob, at)
        kind = blob[at + 4 : at + 8]
        if kind[:1].isupper() or kind == b"tRNS":
            parts.append(blob[at : at + 8 + size])
        at += 12 + size
    return parts
