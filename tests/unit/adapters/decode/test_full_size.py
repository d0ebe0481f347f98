"""Blur that scaling hides is found at full size, and only who is suspected pays for the look."""

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile, ImageFilter
from PIL.JpegImagePlugin import JpegImageFile

from counts import examples
from pixsift.adapters.decode import full_size, recipe
from pixsift.adapters.decode.full_size import hidden_detail, is_suspicious
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.quality import DEFAULT_CHECKS, METRICS, QualityPolicy, judge

SIDE = 32
"""Of the model: a picture of 1024 x 768 is decoded at 1/8."""
FULL = {"sharpness_full", "motion_evenness_full"}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every picture that was looked at in full size."""
    seen: list[int] = []
    look = full_size._full_luma

    def counted(blob: bytes) -> Any:
        seen.append(len(blob))
        return look(blob)

    monkeypatch.setattr(full_size, "_full_luma", counted)
    return seen


@lru_cache
def fractal(seed: int = 0, width: int = 1024, height: int = 768) -> Image.Image:
    """As much detail at one scale as at the next, as scenes have: amplitude is 1 / frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        noise = np.fft.fft2(rng.normal(size=(height, width)))
        channel = np.fft.ifft2(noise / frequency).real
        channels.append(128 + 45 * (channel - channel.mean()) / channel.std())
    pixels = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma)) if sigma else image


def moved(image: Image.Image, length: int) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    total = np.sum([np.roll(pixels, shift, axis=1) for shift in range(length)], axis=0)
    return Image.fromarray((total / length).round().astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def metrics_of(
    blob: bytes, side: int = SIDE, limits: DecodeLimits | None = None
) -> Mapping[str, float]:
    result = decode_image(blob, side, limits or DecodeLimits())
    assert isinstance(result, DecodedImage), result
    assert set(result.quality) <= set(METRICS)
    return result.quality


def flags_of(metrics: Mapping[str, float]) -> set[str]:
    return set(judge(metrics, None, QualityPolicy()).flags)


def opened(blob: bytes) -> JpegImageFile:
    image = Image.open(io.BytesIO(blob))
    assert isinstance(image, JpegImageFile)
    return image


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("quality", [60, 90, 97, 100])
def test_full_size__hidden_blur_is_found_at_every_factor(
    side: int, quality: int, looks: list[int]
) -> None:
    sharp = metrics_of(jpeg(fractal(), quality), side)
    assert not looks, "a sharp picture pays for nothing"
    soft = metrics_of(jpeg(blurred(fractal(), 2.5), quality), side)
    assert sharp["scale"] == soft["scale"] == side / 256
    assert soft["hidden_detail"] < sharp["hidden_detail"]
    assert "blurred_full" in flags_of(soft) - flags_of(sharp)


def test_full_size__scaling_hides_what_is_found() -> None:
    assert "blurred_full" in flags_of(metrics_of(jpeg(blurred(fractal(), 2.5))))
    assert "motion_blurred_full" in flags_of(metrics_of(jpeg(moved(fractal(), 9)), side=64))
    for picture, side in ((blurred(fractal(), 2.5), 32), (moved(fractal(), 9), 64)):
        assert not {"blurred", "motion_blurred"} & flags_of(metrics_of(jpeg(picture), side))


@pytest.mark.parametrize("quality", [75, 95, 100])
def test_full_size__dose_response(quality: int) -> None:
    doses = (0, 1, 1.5, 2, 3, 4)
    found = [metrics_of(jpeg(blurred(fractal(), sigma), quality)) for sigma in doses]
    full = [metrics["sharpness_full"] for metrics in found if "sharpness_full" in metrics]
    assert len(full) >= 3
    limit = DEFAULT_CHECKS["blurred_full"].minimum
    assert limit is not None
    assert full[-1] < limit
    assert all(np.diff(np.maximum(full, limit)) <= 0), f"{full}: below it only rounding is left"
    looked = ["sharpness_full" in metrics for metrics in found]
    assert looked == sorted(looked), "more blur never loses the suspicion"


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"subsampling": 1},
     {"restart_marker_rows": 1}, {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03"
      b"\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"}],
)  # fmt: skip
def test_full_size__whatever_the_encoder(options: dict[str, Any], looks: list[int]) -> None:
    sharp = metrics_of(jpeg(fractal(), **options), side=128)
    assert not looks
    assert sharp["hidden_detail"] == pytest.approx(
        metrics_of(jpeg(fractal()), side=128)["hidden_detail"], rel=0.1
    )
    soft = metrics_of(jpeg(blurred(fractal(), 2.5), **options))
    assert "blurred_full" in flags_of(soft)
    plain = metrics_of(jpeg(blurred(fractal(), 2.5)))
    assert soft["sharpness_full"] == pytest.approx(plain["sharpness_full"], rel=0.1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_full_size__other_modes(mode: str, looks: list[int]) -> None:
    metrics_of(jpeg(fractal().convert(mode)))
    assert not looks
    assert "blurred_full" in flags_of(metrics_of(jpeg(blurred(fractal(), 2.5).convert(mode))))


def test_full_size__only_luma_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    draft = JpegImageFile.draft

    def drafted(image: JpegImageFile, mode: str | None, size: tuple[int, int] | None) -> Any:
        asked.append((mode, size))
        return draft(image, mode, size)

    monkeypatch.setattr(JpegImageFile, "draft", drafted)
    assert metrics_of(jpeg(blurred(fractal(), 2.5))).keys() >= FULL
    assert asked == [("L", (1024, 768))]


@pytest.mark.parametrize("zeros", [20, 1_000_000])
def test_full_size__zeros_before_the_end_do_not_matter(zeros: int) -> None:
    blob = jpeg(blurred(fractal(), 2.5))
    padded = dict(metrics_of(blob[:-2] + bytes(zeros) + b"\xff\xd9"))
    plain = dict(metrics_of(blob))
    assert padded["sharpness_full"] == plain["sharpness_full"]
    assert padded["hidden_detail"] == pytest.approx(plain["hidden_detail"], rel=1e-3)


def test_full_size__trailers_do_not_matter() -> None:
    blob = jpeg(blurred(fractal(), 2.5))
    assert metrics_of(blob + bytes(10_000)) == metrics_of(blob)


def test_full_size__what_was_not_scaled_is_measured_as_it_is(looks: list[int]) -> None:
    metrics = metrics_of(jpeg(blurred(fractal(), 2.5)), side=512)
    assert metrics["scale"] == 1.0
    assert not {"hidden_detail", *FULL} & set(metrics)
    assert not looks
    assert "blurred" in flags_of(metrics)


@pytest.mark.parametrize("sigma", [3, 6, 12])
def test_full_size__no_blur_is_too_strong(sigma: float) -> None:
    metrics = metrics_of(jpeg(blurred(fractal(), sigma), 95))
    assert "sharpness_full" in metrics
    assert "blurred_full" in flags_of(metrics)


def test_full_size__without_texture_there_is_nothing_to_look_for(looks: list[int]) -> None:
    metrics_of(jpeg(Image.new("RGB", (1024, 768), (90, 120, 60))))
    assert not looks


@pytest.mark.parametrize("turned", [False, True])
def test_hidden_detail__sees_the_whole_picture(turned: bool) -> None:
    """Detail in a third of the picture, at its top or at its bottom: robots see the sky too."""
    picture = blurred(fractal(), 8)
    picture.paste(fractal().crop((0, 512, 1024, 768)), (0, 512))
    upside_down = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    found = metrics_of(jpeg(upside_down if turned else picture), side=128)["hidden_detail"]
    assert found == pytest.approx(metrics_of(jpeg(fractal()), side=128)["hidden_detail"], rel=0.15)


def test_hidden_detail__a_stripe_in_four_stands_for_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob, density = jpeg(fractal()), 0.3
    scaled = fractal().resize((512, 384))
    found = hidden_detail(opened(blob), scaled, density)
    stripes = full_size._stripes(scaled)
    assert stripes is not None and stripes.size == (512, 384 // 4)
    rows = np.asarray(stripes).reshape(6, 16, 512, 3)
    blocks = np.asarray(scaled).reshape(24, 16, 512, 3)
    assert np.array_equal(rows, blocks[2::4]), "whole rows of coded blocks, from top to bottom"
    monkeypatch.setattr(full_size, "_stripes", lambda image: image)
    assert found == pytest.approx(hidden_detail(opened(blob), scaled, density), rel=0.1)


@pytest.mark.parametrize(
    ("detail", "sharpness", "evenness", "expected"),
    [
        (0.80, 0.49, 0.81, False),
        (0.60, 0.49, 0.81, False),  # 0.42, 0.54
        (0.60, 0.34, 0.81, False),  # 0.35
        (0.60, 0.31, 0.81, True),  # 0.334
        (0.60, 0.49, 0.70, False),  # 0.502
        (0.60, 0.49, 0.68, True),  # 0.495
        (None, 0.49, 0.81, True),
    ],
)
def test_is_suspicious__limits(
    detail: float | None, sharpness: float, evenness: float, expected: bool
) -> None:
    metrics = {"sharpness": sharpness, "motion_evenness": evenness}
    assert is_suspicious(detail, metrics) == expected
    assert not is_suspicious(detail, {"brightness": 0.5}), "no texture, nothing to judge by"


def renumbered(blob: bytes, tables: dict[int, int]) -> bytes:
    """The same picture with its quantization tables numbered otherwise."""
    parts = bytearray(blob)
    at = 2
    while parts[at + 1] != 0xDA:
        size = int.from_bytes(parts[at + 2 : at + 4], "big")
        if parts[at + 1] == 0xDB:
            for place in range(at + 4, at + 2 + size, 65):
                parts[place] = tables[parts[place]]
        elif parts[at + 1] in (0xC0, 0xC2):
            for place in range(at + 12, at + 2 + size, 3):
                parts[place] = tables[parts[place]]
        at += 2 + size
    return bytes(parts)


@pytest.mark.parametrize("tables", [{0: 2, 1: 3}, {0: 1, 1: 0}, {0: 0, 1: 3}])
def test_hidden_detail__tables_are_known_by_the_component_that_uses_them(
    tables: dict[int, int],
) -> None:
    blob = jpeg(fractal())
    other = metrics_of(renumbered(blob, tables))
    assert other["hidden_detail"] == pytest.approx(metrics_of(blob)["hidden_detail"])


def adobe(blob: bytes, transform: int) -> bytes:
    """The same file with another word on what its components mean."""
    marker = blob.index(b"Adobe\x00") if b"Adobe\x00" in blob else None
    if marker is not None:
        return blob[: marker + 11] + bytes([transform]) + blob[marker + 12 :]
    jfif_end = 4 + int.from_bytes(blob[4:6], "big")
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return blob[:2] + segment + blob[jfif_end:]


def in_16_bits(blob: bytes, factor: int) -> bytes:
    """Quantization tables of two bytes per value, times ``factor``."""
    at, parts = 2, [blob[:2]]
    while blob[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(blob[at + 2 : at + 4], "big")
        if blob[at + 1] == 0xDB:
            for table in range(at + 4, end, 65):
                values = b"".join(
                    (value * factor).to_bytes(2, "big") for value in blob[table + 1 : table + 65]
                )
                head = (3 + len(values)).to_bytes(2, "big") + bytes([0x10 | blob[table]])
                parts.append(b"\xff\xdb" + head + values)
        else:
            parts.append(blob[at:end])
        at = end
    return b"".join([*parts, blob[at:]])


def unusual(kind: str) -> bytes:
    if kind == "RGB by its components":
        return jpeg(fractal(), keep_rgb=True)
    if kind == "RGB by Adobe's word":
        return adobe(jpeg(fractal(), subsampling=0), 0)
    if kind == "YCCK":
        return adobe(jpeg(fractal().convert("CMYK")), 2)
    if kind in ("411", "440"):
        return bytes(simplejpeg.encode_jpeg(np.asarray(fractal()), 90, colorsubsampling=kind))
    if kind == "16 bits":
        return in_16_bits(jpeg(fractal(), 60), 20)
    tables = [[n] * 64 for n in (20, 30, 40)]
    blob = bytearray(jpeg(fractal(), qtables=tables))
    blob[blob.index(b"\xff\xc0") + 18] = 2  # the third component's table
    return bytes(blob)


@pytest.mark.parametrize(
    "kind",
    ["RGB by its components", "RGB by Adobe's word", "YCCK", "411", "440", "16 bits", "3 tables"],
)
def test_full_size__what_cannot_be_coded_alike_is_looked_at(kind: str, looks: list[int]) -> None:
    metrics = metrics_of(unusual(kind))
    assert metrics["scale"] == 0.125
    assert "hidden_detail" not in metrics
    assert looks


def test_hidden_detail__of_what_has_no_tables_or_no_stripe_is_unknown() -> None:
    with opened(jpeg(fractal())) as image:
        image.quantization = {}
        assert hidden_detail(image, fractal(), 1.0) is None
        assert hidden_detail(opened(jpeg(fractal())), fractal(0, 500, 60), 1.0) is None


@pytest.fixture(params=[OSError("broken"), ValueError("odd"), MemoryError()])
def failing_look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise request.param

    monkeypatch.setattr(JpegImageFile, "draft", fail)
    yield


def test_hidden_detail__never_refuses_what_could_be_decoded(
    monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "MAXBLOCK", 10**8)  # progressive noise needs it to be made at all
        blob = jpeg(noise, 100, subsampling=0, progressive=True)
    assert "hidden_detail" in metrics_of(blob, side=256)

    def fail(*_: object, **__: object) -> None:
        raise OSError("broken data stream when writing image file")

    monkeypatch.setattr(ImageFile, "_save", fail)
    looks.clear()
    assert "hidden_detail" not in metrics_of(blob, side=256)
    assert looks


@pytest.mark.usefixtures("failing_look")
def test_full_size__a_look_that_fails_refuses_nothing() -> None:
    metrics = metrics_of(jpeg(blurred(fractal(), 2.5)))
    assert "hidden_detail" in metrics
    assert not FULL & set(metrics)


@pytest.mark.filterwarnings("error")
def test_full_size__a_second_warning_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)  # warns from here to twice as many
    assert metrics_of(jpeg(blurred(fractal(), 2.5))).keys() >= FULL


def test_full_size__who_took_long_is_not_made_to_take_longer(
    looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = jpeg(blurred(fractal(), 2.5))
    clock = iter([100.0, 102.6, 200.0, 202.4])  # of ten seconds, a quarter may be used up
    monkeypatch.setattr(recipe, "monotonic", lambda: next(clock))
    hurried = metrics_of(blob)
    assert not looks
    assert hurried == {k: v for k, v in metrics_of(blob).items() if k not in FULL}
    assert looks


def test_real_photos__large_ones_are_sharp_and_their_blur_is_found(
    real_images: Path, looks: list[int]
) -> None:
    """Aerial photographs of 10 megapixels, decoded at 1/4."""
    paths = sorted((real_images / "sequences" / "drone").glob("*.jpg"))
    for path in paths[: examples(quick=1, thorough=len(paths))]:
        blob = path.read_bytes()
        looks.clear()
        assert metrics_of(blob, side=224)["scale"] == 0.25
        assert not looks
        with Image.open(io.BytesIO(blob)) as image:
            picture = image.convert("RGB")
        assert "blurred_full" in flags_of(metrics_of(jpeg(blurred(picture, 3)), side=224))
        found = flags_of(metrics_of(jpeg(moved(picture, 15)), side=224))
        assert "motion_blurred_full" in found
