"""The coded picture: the bytes of a file that decide its pixels, without its metadata."""

import re
import struct
from typing import Final


def coded_picture(blob: bytes) -> bytes:
    """The bytes that decide the pixels: a JPEG or PNG without metadata, other files whole."""
    if blob.startswith(b"\xff\xd8"):
        return b"".join(_jpeg_segments(blob))
    if blob.startswith(b"\x89PNG"):
        return b"".join(_png_critical_chunks(blob))
    return blob


_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The end of entropy-coded data: neither a stuffed zero nor a restart."""
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9


def _jpeg_segments(blob: bytes) -> list[bytes]:
    """Everything up to the end of the image but APPn and comments."""
    parts: list[bytes] = []
    at = 2
    while at + 2 <= len(blob) and blob[at] == 0xFF:
        marker = blob[at + 1]
        if marker == 0xFF:  # a filler
            at += 1
            continue
        if marker == _END_OF_IMAGE:  # what follows belongs to another file
            return [*parts, blob[at : at + 2]]
        end = at + 2 + int.from_bytes(blob[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            following = _MARKER.search(blob, end)
            end = following.start() if following else len(blob)
        is_adobe = marker == 0xEE  # says what the color channels mean
        if is_adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(blob[at:end])
        at = end
    # Cut after a scan, or an unknown layout: then only equal files count as equal.
    return parts if at == len(blob) else [blob]


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
