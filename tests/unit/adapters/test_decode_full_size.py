"""Blur that scaling hides is found at full size, and only who is suspected pays for the look."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pixsift.adapters import decode_full_size
from pixsift.adapters.decode_recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage
from pixsift.core.quality import METRICS, QualityPolicy, judge

SIDE = 32
"""Of the model: a picture of 1024 x 768 is decoded at 1/8."""


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


def jpeg(image: Image.Image, quality: int = 90, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def metrics_of(blob: bytes, side: int = SIDE) -> Mapping[str, float]:
    result = decode_image(blob, side, DecodeLimits())
    assert isinstance(result, DecodedImage), result
    assert set(result.quality) <= set(METRICS)
    return result.quality


def flags_of(metrics: Mapping[str, float]) -> set[str]:
    return set(judge(metrics, None, QualityPolicy()).flags)


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("quality", [60, 90, 97])
def test_full_size__hidden_blur_is_found_at_every_factor(side: int, quality: int) -> None:
    sharp = metrics_of(jpeg(fractal(), quality), side)
    soft = metrics_of(jpeg(blurred(fractal(), 2.5), quality), side)
    assert sharp["scale"] == soft["scale"] == side / 256
    assert "sharpness_full" not in sharp, "nobody paid for a look at it"
    assert soft["hidden_detail"] < sharp["hidden_detail"]
    assert "blurred_full" in flags_of(soft) - flags_of(sharp)


def test_full_size__scaling_hides_what_is_found() -> None:
    soft = metrics_of(jpeg(blurred(fractal(), 2.5)))
    assert flags_of(soft) == {"blurred_full"}


def test_full_size__dose_response() -> None:
    found = [metrics_of(jpeg(blurred(fractal(), sigma))) for sigma in (0, 1, 1.5, 2, 3, 4)]
    full = [metrics["sharpness_full"] for metrics in found if "sharpness_full" in metrics]
    assert len(full) >= 3
    assert all(np.diff(full) < 0), full
    looked = ["sharpness_full" in metrics for metrics in found]
    assert looked == sorted(looked), "more blur never loses the suspicion"


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"subsampling": 1},
     {"restart_marker_rows": 1}, {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03"
      b"\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"}],
)  # fmt: skip
def test_full_size__whatever_the_encoder(options: dict[str, Any]) -> None:
    sharp = metrics_of(jpeg(fractal(), **options))
    soft = metrics_of(jpeg(blurred(fractal(), 2.5), **options))
    assert "sharpness_full" not in sharp
    assert "blurred_full" in flags_of(soft)
    plain = metrics_of(jpeg(blurred(fractal(), 2.5)))
    assert soft["sharpness_full"] == pytest.approx(plain["sharpness_full"], rel=0.1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_full_size__other_modes(mode: str) -> None:
    sharp = metrics_of(jpeg(fractal().convert(mode)))
    soft = metrics_of(jpeg(blurred(fractal(), 2.5).convert(mode)))
    assert "sharpness_full" not in sharp
    assert "blurred_full" in flags_of(soft)


def test_full_size__zero_padding_and_trailers_do_not_matter() -> None:
    blob = jpeg(blurred(fractal(), 2.5))
    padded = blob[:-2] + bytes(20) + b"\xff\xd9"
    assert metrics_of(padded)["sharpness_full"] == metrics_of(blob)["sharpness_full"]
    assert metrics_of(blob + bytes(10_000)) == metrics_of(blob)


def test_full_size__what_was_not_scaled_is_measured_as_it_is() -> None:
    metrics = metrics_of(jpeg(blurred(fractal(), 2.5)), side=512)
    assert metrics["scale"] == 1.0
    assert not {"hidden_detail", "sharpness_full"} & set(metrics)
    assert "blurred" in flags_of(metrics)


def test_full_size__without_texture_there_is_nothing_to_look_for() -> None:
    metrics = metrics_of(jpeg(Image.new("RGB", (1024, 768), (90, 120, 60))))
    assert "sharpness_full" not in metrics


def test_full_size__a_narrow_picture_is_measured_or_left_alone() -> None:
    assert "sharpness_full" not in metrics_of(jpeg(fractal(0, 3000, 130)), side=32)


@pytest.mark.parametrize("error", [OSError("broken"), ValueError("odd"), MemoryError()])
def test_full_size__a_look_that_fails_refuses_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    blob = jpeg(blurred(fractal(), 2.5))
    expected = dict(metrics_of(blob))
    del expected["sharpness_full"]
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", fail)
        assert decode_full_size._full_luma(jpeg(fractal())) is None
    monkeypatch.setattr(decode_full_size, "_full_luma", lambda _: None)
    assert metrics_of(blob) == expected


def test_full_size__odd_quantization_tables_refuse_nothing() -> None:
    with Image.open(io.BytesIO(jpeg(fractal()))) as opened:
        opened.quantization = {3: [1] * 64}  # type: ignore[attr-defined]
        assert decode_full_size.full_size_metrics(b"", opened, fractal(), 1.0, 0.3) == {}


def test_real_photos__large_ones_are_sharp_and_their_blur_is_found(real_images: Path) -> None:
    """Aerial photographs of 10 megapixels, decoded at 1/4."""
    for path in sorted((real_images / "sequences" / "drone").glob("*.jpg")):
        blob = path.read_bytes()
        sharp = metrics_of(blob, side=224)
        assert sharp["scale"] == 0.25
        assert "sharpness_full" not in sharp
        with Image.open(io.BytesIO(blob)) as image:
            soft = metrics_of(jpeg(blurred(image.convert("RGB"), 3)), side=224)
        assert "blurred_full" in flags_of(soft)
