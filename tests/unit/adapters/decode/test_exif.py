"""Capture time with zone and fraction, camera, position; nothing else, and nothing broken."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.sources import parse_timestamp


def facts(
    tags: dict[int, Any] | None = None,
    inner: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    image_format: str = "JPEG",
) -> Any:
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        exif[tag] = value
    exif.get_ifd(0x8769).update(inner or {})
    exif.get_ifd(0x8825).update(gps or {})
    out = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(out, image_format, exif=exif)
    result = decode_image(out.getvalue(), 32, DecodeLimits())
    assert isinstance(result, DecodedImage), result
    again = wire.unpack_result(wire.pack_result(result), 32)
    assert isinstance(again, DecodedImage) and again.facts.exif == result.facts.exif
    assert again.facts.captured_at == result.facts.captured_at
    return result.facts


TAKEN = {0x9003: "2026:11:22 08:00:00"}


@pytest.mark.parametrize(
    ("inner", "told", "moment"),
    [
        (TAKEN, "2026-11-22T08:00:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (TAKEN | {0x9011: "+09:00"}, "2026-11-22T08:00:00+09:00",
         datetime(2026, 11, 21, 23, tzinfo=UTC)),
        (TAKEN | {0x9011: "-03:30", 0x9291: "25"}, "2026-11-22T08:00:00.25-03:30",
         datetime(2026, 11, 22, 11, 30, 0, 250_000, tzinfo=UTC)),
        (TAKEN | {0x9011: "Z", 0x9291: "123456"}, "2026-11-22T08:00:00.123456Z",
         datetime(2026, 11, 22, 8, 0, 0, 123_456, tzinfo=UTC)),
        (TAKEN | {0x9011: "   :  ", 0x9291: "ab"}, "2026-11-22T08:00:00",
         datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ({0x9004: "2026:11:22 08:00:00", 0x9012: "+01:00"}, "2026-11-22T08:00:00+01:00",
         datetime(2026, 11, 22, 7, tzinfo=UTC)),
        ({0x9003: "0000:00:00 00:00:00"}, None, None),
        ({0x9003: "    :  :     :  :  "}, None, None),
    ],
)  # fmt: skip
def test_read_exif__capture_time(
    inner: dict[int, Any], told: str | None, moment: datetime | None
) -> None:
    found = facts(inner=inner)
    assert found.captured_at == told
    assert parse_timestamp(found.captured_at or "") == moment


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_read_exif__the_camera_in_every_container(image_format: str) -> None:
    found = facts({0x010F: "Logitech\x00", 0x0110: " C920 "}, image_format=image_format)
    assert dict(found.exif) == {"camera_make": "Logitech", "camera_model": "C920"}


def degrees(*parts: float) -> tuple[TiffImagePlugin.IFDRational, ...]:
    return tuple(TiffImagePlugin.IFDRational(round(part * 10_000), 10_000) for part in parts)


def test_read_exif__the_position() -> None:
    south_west = {1: "S", 2: degrees(33, 51, 35.9), 3: "W", 4: degrees(70, 30, 0)}
    found = dict(facts(gps=south_west).exif)
    assert float(found["gps_latitude"]) == pytest.approx(-33.859972, abs=1e-6)
    assert float(found["gps_longitude"]) == pytest.approx(-70.5, abs=1e-6)


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: degrees(0, 0, 0), 3: "E", 4: degrees(0, 0, 0)},  # no fix
        {1: "N", 2: degrees(91, 0, 0), 3: "E", 4: degrees(7, 0, 0)},
        {1: "N", 2: degrees(50, 0, 0)},
        {1: "N", 2: (TiffImagePlugin.IFDRational(1, 0),) * 3, 3: "E", 4: degrees(7, 0, 0)},
    ],
)
def test_read_exif__no_position_is_made_up(gps: dict[int, Any]) -> None:
    assert not {"gps_latitude", "gps_longitude"} & set(facts(gps=gps).exif)


def test_read_exif__text_is_one_printable_line() -> None:
    found = facts({0x0110: "\x1b[2Jcam\nera" + "x" * 300})
    assert found.exif["camera_model"].startswith("[2Jcamera")
    assert len(found.exif["camera_model"]) <= 100


def test_unpack_result__takes_no_other_exif() -> None:
    """The far side may have been taken over."""
    result = decode_image(_plain(), 32, DecodeLimits())
    assert isinstance(result, DecodedImage)
    for hostile in ({"camera_model": "a\x1b[2J"}, {"camera_model": "x" * 101},
                    {"camera_model": 7}, {"camera_model": ""}):  # fmt: skip
        packed = wire.pack_result(_with(result, hostile))
        with pytest.raises(wire.WireError):
            wire.unpack_result(packed, 32)
    unknown = wire.unpack_result(wire.pack_result(_with(result, {"owner": "me"})), 32)
    assert isinstance(unknown, DecodedImage) and dict(unknown.facts.exif) == {}


def _plain() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()


def _with(image: DecodedImage, exif: dict[str, Any]) -> DecodedImage:
    from dataclasses import replace

    return replace(image, facts=replace(image.facts, exif=exif))
