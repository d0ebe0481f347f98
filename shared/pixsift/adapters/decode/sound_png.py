"""PNGs whose picture is complete although another chunk is damaged."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from pixsift.adapters.decode.formats import RefusedError

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_DECIDES_PIXELS: Final = frozenset({b"tRNS"})
"""Ancillary by its letters, yet a wrong one shows another picture."""
_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"


@dataclass(slots=True)
class CheckedPng:
    """A PNG whose checksums are all right, and what was left out or added for that."""

    blob: bytes
    found: dict[str, float] = field(default_factory=dict)
    """``bad_checksum``: chunks left out; ``missing_end``: 1 where the end was added."""


def checked_png(blob: bytes) -> CheckedPng:
    """Check every chunk's checksum, which Pillow skips for pixel data.

    Chunks that do not decide pixels are left out where theirs is wrong, an end that is missing
    behind the pixel data is added. Raises RefusedError for everything else.
    """
    sound: list[bytes] = []
    wrong = 0
    has_pixels = False
    at = len(_SIGNATURE)
    while at + 12 <= len(blob):
        (size,) = struct.unpack_from(">I", blob, at)
        end = at + 8 + size
        kind = blob[at + 4 : at + 8]
        matters = kind[:1].isupper() or kind in _DECIDES_PIXELS
        if end + 4 > len(blob):
            if (matters and kind != b"IEND") or not has_pixels:
                raise RefusedError("truncated", f"chunk {kind!r} runs past the end")
            break
        checks = zlib.crc32(blob[at + 4 : end]) == int.from_bytes(blob[end : end + 4], "big")
        if kind == b"IEND":
            if checks and not wrong:
                return CheckedPng(blob)
            return _completed(sound, {"bad_checksum": float(wrong + (not checks))})
        if checks:
            sound.append(blob[at : end + 4])
            has_pixels = has_pixels or kind == b"IDAT"
        elif matters:
            raise RefusedError("corrupt", f"checksum of chunk {kind!r}")
        else:
            wrong += 1
        at = end + 4
    if not has_pixels:
        raise RefusedError("truncated", "no IEND chunk")
    found = {"missing_end": 1.0} | ({"bad_checksum": float(wrong)} if wrong else {})
    return _completed(sound, found)


def _completed(chunks: list[bytes], found: dict[str, float]) -> CheckedPng:
    return CheckedPng(b"".join([_SIGNATURE, *chunks, _END]), found)
