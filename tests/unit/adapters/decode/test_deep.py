"""Deep frames: 10, 12, 14 bits or millimeters in 16, degrees and meters in floats.

Each case is a frame as a sensor writes it; what counts is that its picture shows, that different
scenes stay different, and that what shows nothing is still refused.
"""

import io
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from made_images import scene as photograph
from pixsift.adapters.decode.deep import eight_bits
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.quality import QualityPolicy, judge

SIZE = (240, 320)
Y, X = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float64)
Frame = NDArray[Any]


def scene(seed: int) -> Frame:
    """(H, W) from 0 to 1: boxes and discs on a slope, another for every seed."""
    rng = np.random.default_rng(seed)
    picture: Frame = 0.3 * X / SIZE[1] + 0.2 * Y / SIZE[0]
    for _ in range(12):
        top, left, size = rng.integers(0, 200), rng.integers(0, 280), rng.integers(10, 70)
        inside = (np.abs(Y - top) < size) & (np.abs(X - left) < size * rng.uniform(0.3, 1.0))
        picture[inside] = rng.uniform(0, 1)
    return picture


def counts(values: Frame) -> NDArray[np.uint16]:
    return np.clip(np.round(values), 0, 65535).astype(np.uint16)


def noise(sigma: float, seed: int = 1) -> Frame:
    return np.random.default_rng(seed).normal(0, sigma, SIZE)


def as_file(frame: Frame, image_format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, image_format)
    return out.getvalue()


def decoded(blob: bytes, side: int = 64) -> DecodedImage:
    result = decode_image(blob, side, DecodeLimits())
    assert isinstance(result, DecodedImage), result
    return result


def rejection(image: DecodedImage) -> str | None:
    return judge(image.quality, image.facts, QualityPolicy()).rejected_reason


def depth_with_holes(seed: int) -> Frame:
    depth = 300 + 700 * scene(seed)
    depth[np.random.default_rng(seed).random(SIZE) < 0.05] = 0
    return counts(depth)


SENSORS: dict[str, Callable[[int], Frame]] = {
    "14-bit thermal counts": lambda s: counts(7600 + 765 * scene(s) + noise(3, s)),
    "centikelvin over 10 K": lambda s: counts(29_500 + 1_000 * scene(s) + noise(5, s)),
    "mono10 in 16": lambda s: counts(1023 * scene(s)),
    "mono12 in 16": lambda s: counts(4095 * scene(s)),
    "mono14 in 16": lambda s: counts(16383 * scene(s)),
    "mono12, shifted up": lambda s: counts(4095 * scene(s)) << 4,
    "a gripper's depth in mm, with holes": depth_with_holes,
    "depth up to 4 m in mm": lambda s: counts(500 + 3500 * scene(s)),
    "degrees C in float": lambda s: (18 + 14 * scene(s)).astype(np.float32),
    "meters in float": lambda s: (0.3 + 2 * scene(s)).astype(np.float32),
    "below zero in float": lambda s: (-40 + 30 * scene(s)).astype(np.float32),
    "the full range": lambda s: counts(65535 * scene(s)),
}


@pytest.mark.parametrize("sensor", SENSORS)
def test_deep__different_scenes_stay_different_and_show(sensor: str) -> None:
    frames = [SENSORS[sensor](seed) for seed in range(5)]
    kind = "TIFF" if frames[0].dtype == np.float32 else "PNG"
    images = [decoded(as_file(frame, kind)) for frame in frames]
    for image in images:
        assert rejection(image) is None
        assert image.quality["contrast"] > 0.3, "most of the levels are used"
        assert image.quality["entropy_bits"] > 4
    for one, other in combinations(images, 2):
        apart = np.abs(one.model_input.astype(int) - other.model_input.astype(int)).mean()
        assert apart > 20, "gray levels, of 255"


@pytest.mark.parametrize("sensor", [s for s in SENSORS if s != "the full range"])
def test_deep__a_shifted_or_scaled_range_gives_the_same_picture(sensor: str) -> None:
    """A warmer room or another gain: nothing that the scene shows has changed."""
    frame = SENSORS[sensor](3).astype(np.float64)
    holes = frame == 0
    shifted = np.where(holes, 0, frame * 0.9 + 0.02 * np.ptp(frame))
    kind = "TIFF" if SENSORS[sensor](3).dtype == np.float32 else "PNG"
    one, other = (
        decoded(as_file(f.astype(np.float32) if kind == "TIFF" else counts(f), kind))
        .model_input.astype(int)
        for f in (frame, shifted)
    )  # fmt: skip
    assert np.abs(one - other).mean() < 6


def test_deep__the_flag_tells_that_it_was_stretched() -> None:
    thermal = decoded(as_file(SENSORS["14-bit thermal counts"](0)))
    assert "stretched" in thermal.facts.flags
    assert 0 < thermal.quality["range_used"] < 0.02
    full = decoded(as_file(SENSORS["the full range"](0)))
    assert "stretched" not in full.facts.flags and "range_used" not in full.quality
    strict = QualityPolicy.from_json({"stretched": "reject"})
    assert judge(thermal.quality, None, strict).rejected_reason == "stretched"
    assert judge(thermal.quality, None, QualityPolicy()).flags == ()


def test_deep__eight_bits_in_sixteen_are_the_same_picture() -> None:
    gray = counts(120 * scene(1))  # a dark one: stretching would change it
    plain = decoded(as_file(gray.astype(np.uint8)))
    for wide in (gray * 257, gray << 8):
        image = decoded(as_file(wide))
        assert np.array_equal(image.model_input, plain.model_input)
        assert "stretched" not in image.facts.flags


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.zeros(SIZE), "black"),
        (np.full(SIZE, 65535.0), "white"),
        (np.full(SIZE, 7600.0), "blank"),
        (7600 + np.round(noise(0.7)), "blank"),  # a shutter, to the last bit
        (1024 + noise(20), "black"),  # a lens cap over a pedestal
        (np.abs(noise(4)), "black"),  # a lens cap without one
        (1500 + noise(0.8), "black"),  # depth of a flat wall, straight on
    ],
)
def test_deep__what_shows_nothing_is_refused(frame: Frame, reason: str) -> None:
    values = counts(frame)
    assert rejection(decoded(as_file(values))) == reason
    if reason != "white":
        values[7, 9], values[100, 200] = 16383, 60_000  # hot pixels show nothing either
        assert rejection(decoded(as_file(values))) in (reason, "blank")


def test_deep__floats_that_show_nothing_are_refused() -> None:
    for frame in (np.full(SIZE, np.nan), np.full(SIZE, np.inf), np.full(SIZE, 21.3)):
        image = decoded(as_file(frame.astype(np.float32), "TIFF"))
        assert rejection(image) in ("black", "blank")
    still = (21.3 + noise(0.01)).astype(np.float32)
    assert rejection(decoded(as_file(still, "TIFF"))) == "blank"


def test_deep__what_is_not_finite_is_a_hole() -> None:
    frame = SENSORS["degrees C in float"](2)
    whole = decoded(as_file(frame, "TIFF"))
    frame[::7, ::5], frame[1::9, 3::8], frame[0, 0] = np.nan, np.inf, -np.inf
    frame[5, 5] = -3.4e38  # "no data" of some writers
    holed = decoded(as_file(frame, "TIFF"))
    assert "no_reading" in holed.facts.flags and "no_reading" not in whole.facts.flags
    assert rejection(holed) is None
    one, other = (np.asarray(i.model_input, int) for i in (whole, holed))
    assert np.abs(one - other).mean() < 25, "the rest is as it was"


def test_deep__hot_and_dead_pixels_take_no_levels() -> None:
    frame = SENSORS["14-bit thermal counts"](4)
    sound = decoded(as_file(frame)).model_input.astype(int)
    rng = np.random.default_rng(0)
    frame[rng.integers(0, 240, 60), rng.integers(0, 320, 60)] = 16383
    frame[rng.integers(0, 240, 60), rng.integers(0, 320, 60)] = 0
    assert np.abs(decoded(as_file(frame)).model_input.astype(int) - sound).mean() < 20


def test_deep__the_nearest_is_no_hole() -> None:
    labels = np.zeros(SIZE)
    labels[40:120, 40:120], labels[150:200, 100:250] = 1, 3
    values, _ = eight_bits(counts(labels), 65535.0)
    assert len(np.unique(values)) == 3
    assert np.unique(values)[1] > 10


def test_deep__a_small_warm_thing_in_a_cold_room_shows() -> None:
    frame = 7600 + noise(10)
    frame[100:112, 100:108] += 400  # 0.1 % of the frame
    values, stretch = eight_bits(counts(frame), 65535.0)
    assert stretch.is_stretched
    body, room = values[101:111, 101:107].astype(int), values[:90].astype(int)
    assert body.mean() - room.mean() > 80
    assert room.std() < 12, "noise is not stretched into a picture"


def test_deep__no_cliff_where_stretching_ends() -> None:
    """A camera whose exposure drifts across the limits changes its pictures gradually."""
    pictures = [
        eight_bits(counts(scale * 65535 * scene(5)), 65535.0)[0].astype(int)
        for scale in np.linspace(0.2, 0.9, 60)
    ]
    steps = [np.abs(a - b).mean() for a, b in pairwise(pictures)]
    assert max(steps) < 6


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_deep__color_of_ten_bits(image_format: str) -> None:
    """Pillow keeps the high bytes of deep color only; the low ones hold the picture here."""
    pixels = np.asarray(photograph("coffee.png").resize((320, 240)), np.uint16)
    ten_bits = pixels * 4
    blob = (_png_of_color if image_format == "PNG" else _tiff_of_color)(ten_bits)
    image = decoded(blob)
    assert rejection(image) is None and "stretched" in image.facts.flags
    plain = decoded(as_file(pixels.astype(np.uint8)))
    distance = np.abs(image.model_input.astype(int) - plain.model_input.astype(int))
    assert distance.mean() < 20, "as bright as the eight bits, up to the stretch"


def test_deep__alpha_of_sixteen_bits_hides_its_pixels() -> None:
    values = np.zeros((64, 64, 4), np.uint16)
    values[..., :3] = 500
    values[:, 32:, :3] = (900, 700, 600)
    values[:32, :, 3] = 65535
    values[32:, :, :3] = 65000  # transparent: no part of the picture, nor of its range
    image = decoded(_png_of_color(values))
    assert image.model_input[50, 10].tolist() == [255, 255, 255]
    assert image.model_input[10, 10].max() < 60 < image.model_input[10, 50].max()
    assert "alpha" in image.facts.flags


@pytest.mark.parametrize("name", ["thermal-*", "depth-mid-*", "05-depth-*", "rgb16-*"])
def test_deep__frames_of_the_field_tests(name: str, real_images: Path) -> None:
    for path in sorted((real_images / "faults").glob(f"{name}.png")):
        image = decoded(path.read_bytes(), 224)
        assert rejection(image) is None and "stretched" in image.facts.flags, path.name
        assert image.quality["contrast"] > 0.25, path.name


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (9, 7)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32])
def test_eight_bits__any_shape(shape: tuple[int, int], kind: Any) -> None:
    rng = np.random.default_rng(0)
    for values in (rng.integers(0, 4000, shape), np.zeros(shape), np.full(shape, 700)):
        full = 65535.0 if kind is np.uint16 else None
        mapped, stretch = eight_bits(values.astype(kind), full)
        assert mapped.shape == shape and mapped.dtype == np.uint8
        assert np.isfinite([stretch.low, stretch.high, stretch.used]).all()


def _png_of_color(values: NDArray[np.uint16]) -> bytes:
    import struct
    import zlib

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    rows = values.astype(">u2").tobytes()
    step = width * channels * 2
    data = b"".join(b"\x00" + rows[at : at + step] for at in range(0, len(rows), step))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _tiff_of_color(values: NDArray[np.uint16]) -> bytes:
    """Big-endian, one strip."""
    import struct

    height, width, _ = values.shape
    data = values.astype(">u2").tobytes()
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 3, 1, 1 << 16),
        (262, 3, 1, 2 << 16), (273, 4, 1, 14), (277, 3, 1, 3 << 16), (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]  # fmt: skip
    directory = struct.pack(">H", len(entries)) + b"".join(
        struct.pack(">HHII", *entry) for entry in entries
    )
    start = struct.pack(">HHH", 16, 16, 16)
    return b"MM\x00*" + struct.pack(">I", 14 + len(data)) + start + data + directory + bytes(4)
