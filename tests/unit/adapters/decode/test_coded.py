"""The coded picture ends where the image ends, whatever a file carries before and behind it."""

import io
from typing import Any

import pytest
from PIL import Image

from pixsift.adapters.decode.coded import coded_picture
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage


def jpeg(side: int = 64, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 60).convert("RGB").save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG", dpi=(72, 72))
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"optimize": True, "progressive": True},
    ],
)
def test_coded_picture__ends_with_the_image(options: dict[str, Any]) -> None:
    blob = jpeg(**options)
    trailers = [b"x", bytes(100), b"\xff\xd9", jpeg(32), b"\xff\xfe\x00\x04ab"]
    assert {coded_picture(blob + trailer) for trailer in trailers} == {coded_picture(blob)}
    assert coded_picture(blob)[-200:] == blob[-200:], "all of the last scan, and the marker"


def test_coded_picture__leaves_metadata_out() -> None:
    blob = jpeg(comment=b"x" * 100)
    assert b"x" * 100 not in coded_picture(blob)
    first = blob.index(b"\xff\xdb")
    filled = blob[:first] + b"\xff\xff" + blob[first:]  # a marker may have fillers before it
    assert coded_picture(filled) == coded_picture(blob)
    assert b"pHYs" not in coded_picture(png()) and b"IDAT" in coded_picture(png())


def test_coded_picture__of_what_it_cannot_follow_is_the_file() -> None:
    blob = jpeg()
    assert coded_picture(blob[:30]) == blob[:30]
    assert coded_picture(b"GIF89a") == b"GIF89a"


def test_decode__a_trailer_changes_neither_hash_nor_metrics() -> None:
    blob = jpeg(1024)
    plain, longer = (decode_image(b, 32, DecodeLimits()) for b in (blob, blob + bytes(3_000_000)))
    assert isinstance(plain, DecodedImage) and isinstance(longer, DecodedImage)
    assert plain.quality["scale"] < 1
    assert (plain.pixel_sha256, plain.quality) == (longer.pixel_sha256, longer.quality)
