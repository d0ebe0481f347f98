"""Reads from EXIF: orientation, capture time, camera, position. Nothing else is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from PIL import Image


@dataclass(frozen=True, slots=True)
class Exif:
    """All that is read from EXIF; nothing else is read, stored or logged."""

    orientation: int = 1
    """1 to 8, as the standard numbers them."""
    captured_at: str | None = None
    """DateTimeOriginal (or -Digitized) as ISO 8601, with the fraction and the offset that the file
    gives; a missing time zone is not guessed."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Camera and position, by the names in ``EXIF_ATTRIBUTES``."""


def read_exif(image: Image.Image, flags: list[str]) -> Exif:
    """Orientation, capture time, camera, position; unreadable EXIF is a flag, not a refusal."""
    try:
        exif = image.getexif()
        if not exif:
            return Exif()
        orientation = exif.get(_ORIENTATION, 1)
        inner, gps = exif.get_ifd(_EXIF_IFD), exif.get_ifd(_GPS_IFD)
        attributes = {
            "camera_make": _text(exif.get(_MAKE)), "camera_model": _text(exif.get(_MODEL)),
            **_position(gps),
        }  # fmt: skip
        captured_at = _captured_at(inner)
    except Exception:  # any error of the parser
        flags.append("exif_ignored")
        return Exif()
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    return Exif(orientation, captured_at, {n: v for n, v in attributes.items() if v is not None})


_ORIENTATION, _MAKE, _MODEL = 0x0112, 0x010F, 0x0110
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_TIMES: Final = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))
"""Date and time, fraction, offset: as taken, as digitized."""
_OFFSET: Final = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d|Z")
_LONGEST_TEXT: Final = 100


def _captured_at(exif: Mapping[int, object]) -> str | None:
    for taken, fraction, offset in _TIMES:
        try:
            text = datetime.strptime(_plain(exif.get(taken)), "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:
            continue
        digits, zone = _plain(exif.get(fraction)), _plain(exif.get(offset))
        if digits.isdecimal() and digits.isascii():
            text += f".{digits[:9]}"
        return text + (zone if _OFFSET.fullmatch(zone) else "")
    return None


def _position(gps: Mapping[int, Any]) -> dict[str, str | None]:
    """Decimal degrees, south and west negative; nothing if it is not a position on Earth."""
    latitude, longitude = _degrees(gps, 1, "S", 90.0), _degrees(gps, 3, "W", 180.0)
    if latitude is None or longitude is None or latitude == longitude == 0.0:  # 0, 0: no fix
        return {}
    return {"gps_latitude": f"{latitude:.7f}", "gps_longitude": f"{longitude:.7f}"}


def _degrees(gps: Mapping[int, Any], reference: int, negative: str, most: float) -> float | None:
    parts = gps.get(reference + 1)
    if not isinstance(parts, tuple) or not 1 <= len(parts) <= 3:
        return None
    try:
        degrees = float(sum(float(part) / 60.0**power for power, part in enumerate(parts)))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not 0.0 <= degrees <= most:  # NaN as well
        return None
    return -degrees if _plain(gps.get(reference)).upper().startswith(negative) else degrees


def _plain(value: object) -> str:
    return "" if value is None else str(value).strip("\x00 ")


def _text(value: object) -> str | None:
    """One line that can be stored and shown, or None."""
    text = "".join(c for c in _plain(value) if c.isprintable())[:_LONGEST_TEXT].strip()
    return text or None
