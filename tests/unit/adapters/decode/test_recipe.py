"""The recipe: every mode and format to the right pixels, and refusals with their reason."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps

from pixsift.adapters.decode.formats import jpeg_factor
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage, DecodeFailure

ALL_FORMATS = DecodeLimits(formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"))
SIDE = 32


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth color gradients with a bright square: survives lossy formats."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 / (width - 1), y * 255 / (height - 1)
    pixels = np.stack([red, green, 128 + 0 * red], axis=-1)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (250, 240, 20)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def decoded(blob: bytes, limits: DecodeLimits = ALL_FORMATS, side: int = SIDE) -> DecodedImage:
    result = decode_image(blob, side, limits)
    assert isinstance(result, DecodedImage), result
    return result


def refused(blob: bytes, limits: DecodeLimits = ALL_FORMATS) -> str:
    result = decode_image(blob, SIDE, limits)
    assert isinstance(result, DecodeFailure), result
    return result.reason


def squeezed(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_decode__lossless_containers_give_equal_pixels_and_hash(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = decoded(encoded(scene(), image_format, **options))
    assert np.array_equal(image.model_input, squeezed(scene()))
    assert image.pixel_sha256 == decoded(encoded(scene(), "PNG", compress_level=1)).pixel_sha256
    assert (image.facts.format, image.facts.width, image.facts.height) == (image_format, 96, 64)


def test_decode__jpeg_and_its_png_copy_have_one_pixel_hash() -> None:
    jpeg = encoded(scene(), "JPEG", quality=90)
    png = encoded(Image.open(io.BytesIO(jpeg)), "PNG")
    assert decoded(jpeg).pixel_sha256 == decoded(png).pixel_sha256


def test_decode__one_changed_pixel_changes_the_hash() -> None:
    other = scene()
    other.putpixel((5, 5), (1, 2, 3))
    hashes = {decoded(encoded(image, "PNG")).pixel_sha256 for image in (scene(), other)}
    assert len(hashes) == 2


def test_decode__scaled_jpeg_ignores_metadata_but_not_detail() -> None:
    large = scene(1024, 768).convert("RGB")
    plain = encoded(large, "JPEG", quality=95)
    tagged = encoded(large, "JPEG", quality=95, comment=b"hello", dpi=(72, 72))
    assert decoded(plain).quality["scale"] == 0.125
    assert decoded(plain).pixel_sha256 == decoded(tagged).pixel_sha256
    speck = large.copy()
    speck.putpixel((3, 3), (255, 0, 255))  # may vanish at 1/8, yet is another picture
    assert decoded(encoded(speck, "JPEG", quality=95)).pixel_sha256 != decoded(plain).pixel_sha256


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode__orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.open(io.BytesIO(encoded(scene(), "PNG", exif=exif)))
    image = decoded(encoded(scene(), "PNG", exif=exif))
    upright = ImageOps.exif_transpose(turned)
    assert np.array_equal(image.model_input, squeezed(upright.convert("RGB")))
    assert (image.facts.width, image.facts.height) == upright.size


@pytest.mark.parametrize("depth", ["PNG", "TIFF"])
def test_decode__sixteen_bits_are_scaled_not_clipped(depth: str) -> None:
    values = np.array([[0, 1000], [30000, 65535]], np.uint16).repeat(16, 0).repeat(16, 1)
    image = decoded(encoded(Image.fromarray(values), depth))
    corners = image.model_input[[4, 4, 28, 28], [4, 28, 4, 28], 0].astype(int)
    assert np.abs(corners - [0, 3, 117, 255]).max() <= 2


def test_decode__sixteen_bit_hash_sees_the_low_byte() -> None:
    values = np.full((40, 40), 4096, np.uint16)
    hashes = {
        decoded(encoded(Image.fromarray(values + n), "PNG")).pixel_sha256 for n in (0, 1, 255)
    }
    assert len(hashes) == 3


def test_decode__gray_equals_its_rgb_copy() -> None:
    gray = scene().convert("L")
    assert (
        decoded(encoded(gray, "PNG")).pixel_sha256
        == decoded(encoded(gray.convert("RGB"), "PNG")).pixel_sha256
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_decode__alpha_is_composited_on_white(mode: str) -> None:
    image = scene().convert("RGB")
    image.putalpha(0)  # hidden colors must not come through
    blob = encoded(image.convert(mode), "PNG")
    assert decoded(blob).model_input.min() == 255
    assert "alpha" in decoded(blob).facts.flags


def test_decode__palette_with_transparency() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (0, 0, 20, 10))
    result = decoded(encoded(image, "PNG", transparency=0))
    assert result.model_input[2, 5].tolist() == [0, 0, 200]
    assert result.model_input[29, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "color"), [("1", 1), ("L", 255), ("P", 255), ("RGB", (255,) * 3)])
def test_decode__small_modes(mode: str, color: Any) -> None:
    image = Image.new(mode, (40, 40), color)
    if mode == "P":
        image.putpalette([255] * 768)
    assert decoded(encoded(image, "PNG")).model_input.min() == 255


def test_decode__cmyk_jpeg() -> None:
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))  # red ink
    red, green, blue = decoded(encoded(image, "JPEG", quality=95)).model_input[16, 16]
    assert (int(red) > 240, int(green) < 15, int(blue) < 15) == (True, True, True)


def test_decode__ycck_jpeg_equals_pillow() -> None:
    """Four channels, stored as luma, two color differences and black."""
    pixels = np.ascontiguousarray(np.asarray(scene(400, 300).convert("CMYK")))
    blob = simplejpeg.encode_jpeg(pixels, 90, colorspace="CMYK", colorsubsampling="420")
    with Image.open(io.BytesIO(blob)) as image:
        assert image.info["adobe_transform"] == 2
        image.draft(None, (image.width // 4, image.height // 4))
        expected = squeezed(image.convert("RGB"))
    assert np.array_equal(decoded(blob).model_input, expected)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_decode__icc_profile_to_srgb(image_format: str) -> None:
    profile = _swapped_channels_profile()
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    result = decoded(encoded(image, image_format, icc_profile=profile))
    assert "icc_applied" in result.facts.flags
    assert result.model_input[0, 0].argmax() == 1  # its "red" is our green


@pytest.mark.parametrize("profile", [b"rubbish", b"\x00" * 200])
def test_decode__broken_profile_is_ignored_and_flagged(profile: bytes) -> None:
    result = decoded(encoded(scene(), "PNG", icc_profile=profile))
    assert "icc_ignored" in result.facts.flags
    assert np.array_equal(result.model_input, squeezed(scene()))


def test_decode__srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    result = decoded(encoded(scene(), "PNG", icc_profile=profile))
    assert np.array_equal(result.model_input, squeezed(scene()))


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_decode__animation_gives_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    blob = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    result = decoded(blob)
    assert result.model_input[10, 10].tolist() == [255, 0, 0]
    assert result.facts.frames == 2
    assert "first_frame" in result.facts.flags


def test_decode__capture_time() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:22 10:20:30"
    assert decoded(encoded(scene(), "JPEG", exif=exif)).facts.captured_at == "2026-11-22T10:20:30"
    exif.get_ifd(0x8769)[0x9003] = "2026:13:99 10:20:30"
    assert decoded(encoded(scene(), "JPEG", exif=exif)).facts.captured_at is None


def test_decode__thumbnail_has_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "<script>alert(1)</script>"
    thumbnail = decoded(encoded(scene(600, 400), "PNG", exif=exif)).thumbnail_webp
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert (small.format, small.size) == ("WEBP", (200, 134))
        assert not small.info.get("exif") and not small.info.get("icc_profile")
    assert b"script" not in thumbnail


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "empty"),
        (b"hello world", "not_an_image"),
        (b"<html><body>", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
        (b"8BPS" + b"\x00" * 100, "unsupported_format"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 50, "corrupt"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ],
)
def test_decode__refusals(blob: bytes, reason: str) -> None:
    assert refused(blob, DecodeLimits()) == reason


def test_decode__png_checksums_count() -> None:
    blob = bytearray(encoded(scene(), "PNG"))
    blob[blob.index(b"IDAT") + 40] ^= 1
    assert refused(bytes(blob)) == "corrupt"


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "GIF"])
def test_decode__formats_outside_the_allow_list(image_format: str) -> None:
    limits = DecodeLimits(formats=("JPEG", "PNG"))
    assert refused(encoded(scene(), image_format), limits) == "unsupported_format"


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
def test_decode__bmp_and_tiff_are_on_by_default(image_format: str) -> None:
    assert decoded(encoded(scene(), image_format), DecodeLimits()).facts.format == image_format


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_decode__a_file_cut_in_half_is_refused(image_format: str) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    blob = encoded(noise, image_format)
    assert refused(blob[: len(blob) // 2]) in ("truncated", "corrupt")


def test_decode__header_limits_come_before_pixels() -> None:
    def png(width: int, height: int) -> bytes:
        """A header that promises much, and hardly any data."""
        ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(b"\x00" * 100)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    assert refused(png(10_000, 10_000)) == "too_many_pixels"
    assert refused(png(60_000, 60_000)) == "too_many_pixels"
    assert refused(png(30_001, 1_000)) == "side_too_long"
    assert refused(png(5_100, 100)) == "odd_aspect"
    assert refused(png(5_000, 100)) == "truncated"  # within the limits: now the data count
    assert refused(png(0, 10)) == "corrupt"


def test_decode__byte_limit() -> None:
    assert refused(encoded(scene(), "PNG"), DecodeLimits(max_bytes=50)) == "too_many_bytes"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decode__gray_band_of_a_cut_and_resaved_jpeg_is_measured(mode: str) -> None:
    """The file is whole, so the policy decides; the recipe refuses nothing that decodes well."""
    pixels = np.asarray(scene(320, 240).convert(mode)).copy()
    pixels[200:] = 128
    blob = encoded(Image.fromarray(pixels, mode), "JPEG", quality=95)
    assert 1 / 16 < decoded(blob).quality["gray_band"] <= 40 / 240
    exif = Image.Exif()
    exif[0x0112] = 6  # the band lies at the side once the picture is upright
    turned = encoded(Image.fromarray(pixels, mode), "JPEG", quality=95, exif=exif)
    assert decoded(turned).quality["gray_band"] == decoded(blob).quality["gray_band"]


def test_decode__gray_all_around_is_a_frame() -> None:
    framed = Image.new("RGB", (640, 640), (128,) * 3)
    framed.paste(scene(640, 480), (0, 80))
    for image in (framed, scene(640, 480), Image.new("RGB", (320, 240), (128,) * 3)):
        assert decoded(encoded(image, "JPEG", quality=95)).quality["gray_band"] == 0.0


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decode__a_jpeg_cut_and_closed_is_refused(mode: str, progressive: bool) -> None:
    """With an end-of-image marker behind the cut, decoders fill the rest with gray and go on."""
    image = Image.effect_noise((320, 240), 60).convert("RGB").convert(mode)
    blob = encoded(image, "JPEG", progressive=progressive)
    assert refused(blob[: len(blob) // 2] + b"\xff\xd9") == "corrupt"


def test_decode__zero_padding_before_the_end_is_a_flag() -> None:
    blob = encoded(scene(), "JPEG")
    padded = blob[:-2] + b"\x00" * 20 + b"\xff\xd9"
    assert "padded" in decoded(padded).facts.flags
    assert decoded(padded).pixel_sha256 == decoded(blob).pixel_sha256
    assert refused(blob[:-2] + b"\x35" * 20 + b"\xff\xd9") == "corrupt"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3)])
def test_decode__tiny(size: tuple[int, int]) -> None:
    image = decoded(encoded(Image.new("RGB", size, "red"), "PNG"))
    assert image.model_input.shape == (SIDE, SIDE, 3)
    assert image.facts.width == size[0]


def test_decode__bits_per_pixel_falls_with_blur() -> None:
    rng = np.random.default_rng(4)
    rough = Image.fromarray(rng.integers(0, 256, (384, 512, 3), np.uint8)).resize((1024, 768))
    found = [
        decoded(encoded(rough.filter(ImageFilter.GaussianBlur(sigma)), "JPEG", quality=90)).quality
        for sigma in (0, 1, 2, 4)
    ]
    assert all(np.diff([metrics["bits_per_pixel"] for metrics in found]) < 0)


def test_jpeg_factor__keeps_twice_the_side() -> None:
    assert jpeg_factor(4000, 3000, 224) == 4
    assert jpeg_factor(1920, 1080, 224) == 2
    assert jpeg_factor(895, 2000, 224) == 1
    assert jpeg_factor(896, 2000, 224) == 2
    assert jpeg_factor(10_000, 10_000, 224) == 8


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(640, 480), (641, 483), (333, 517)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_pixels__equal_pillow_at_every_scale(
    mode: str, size: tuple[int, int], subsampling: str
) -> None:
    """One recipe, whichever of the two decoders steps in."""
    blob = encoded(scene(*size).convert(mode), "JPEG", quality=85, subsampling=subsampling)
    for side in (224, 100, 50, 25):
        factor = jpeg_factor(*size, side)
        with Image.open(io.BytesIO(blob)) as image:
            image.draft(None, (size[0] // factor, size[1] // factor))
            upright = image.convert("RGB")
            expected = np.asarray(upright.resize((side, side), Image.Resampling.BICUBIC))
        assert np.array_equal(decoded(blob, side=side).model_input, expected), factor


def test_decode__real_jpegs_equal_pillow(images: Path) -> None:
    for path in sorted((images / "photos" / "clothing").rglob("*.jpg"))[::12]:
        with Image.open(path) as image:
            factor = jpeg_factor(*image.size, 64)
            image.draft(None, (image.width // factor, image.height // factor))
            expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
        assert np.array_equal(decoded(path.read_bytes(), side=64).model_input, expected)


def test_decode__a_photograph_in_other_containers_has_one_pixel_hash(images: Path) -> None:
    path = images / "photos" / "kodak" / "05.png"
    with Image.open(path) as photo:
        hashes = {
            decoded(encoded(photo, image_format, **options)).pixel_sha256
            for image_format, options in (
                ("PNG", {"optimize": True}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}),
                ("WEBP", {"lossless": True, "method": 0}),
            )
        }  # fmt: skip
    assert hashes == {decoded(path.read_bytes()).pixel_sha256}


def _swapped_channels_profile() -> bytes:
    """An RGB profile whose red and green primaries changed places."""
    blob = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", blob, 128)
    entries = {}
    for index in range(count):
        at = 132 + 12 * index
        entries[bytes(blob[at : at + 4])] = at
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    blob[red + 4 : red + 12], blob[green + 4 : green + 12] = (
        blob[green + 4 : green + 12],
        blob[red + 4 : red + 12],
    )
    at = blob.find(b"s\x00R\x00G\x00B")  # the description, so that it is not taken for sRGB
    blob[at : at + 1] = b"x"
    return bytes(blob)


def png_of(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks before its few data."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + b"\x10" * 3 * width for _ in range(height)))
    chunks = [(b"IHDR", ihdr), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def bombs() -> dict[str, bytes]:
    """Small files that promise, or unfold to, far more than they are."""
    jpeg = bytearray(encoded(scene(), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    bmp = bytearray(encoded(scene(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    gif = bytearray(encoded(scene(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    squeeze = zlib.compressobj(1)
    zeros = b"".join(squeeze.compress(bytes(2**24)) for _ in range(20)) + squeeze.flush()
    wide = Image.new("1", (2_000, 1_000))
    return {
        "jpeg": bytes(jpeg), "bmp": bytes(bmp), "gif": bytes(gif),
        "tiff": encoded(wide, "TIFF", compression="group4"),
        "webp": encoded(wide.convert("RGB"), "WEBP", method=0),
        "png": encoded(wide, "PNG"),
        "text": png_of(40, 40, (b"zTXt", b"k\x00\x00" + zeros)),
        "international text": png_of(40, 40, (b"iTXt", b"k\x00\x01\x00\x00\x00" + zeros)),
        "profile": png_of(40, 40, (b"iCCP", b"p\x00\x00" + zeros)),
    }  # fmt: skip


def test_decode__bombs_unfold_nowhere() -> None:
    """Pixel bombs fall to their header; 320 MiB of text or profile stay folded: a child that may
    hold 512 MiB in all never meets its limit."""
    limits = DecodeLimits(
        formats=ALL_FORMATS.formats, max_pixels=1_000_000, memory_bytes=1 << 29, wall_seconds=20
    )
    names, blobs = zip(*bombs().items(), strict=True)
    with DecoderPool(SIDE, limits=limits, workers=1) as pool:
        results = dict(zip(names, pool.decode(blobs), strict=True))
    reasons = {n: r.reason for n, r in results.items() if isinstance(r, DecodeFailure)}
    assert not {"decoder_memory", "decoder_crash", "decoder_timeout"} & set(reasons.values())
    for name in ("jpeg", "bmp", "gif", "tiff", "webp", "png"):
        assert reasons[name] in ("too_many_pixels", "side_too_long"), (name, reasons[name])


@pytest.mark.parametrize(
    "start",
    [b"%!PS-Adobe-3.0 EPSF-3.0", b"%PDF-1.7", b"8BPS\x00\x01", b"SIMPLE  =", b"DDS |",
     b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
     b"\x00\x00\x01\x00", b"P6 1 1 255 ", b"\x00\x00\x00 ftypheic"],
)  # fmt: skip
def test_decode__dangerous_parsers_stay_unreachable(start: bytes) -> None:
    """EPS, PDF, PSD, FITS, DDS, JPEG 2000, FPX, ICO, PNM, HEIF: whatever the file is called."""
    assert refused(start + bytes(200)) in ("unsupported_format", "not_an_image")
