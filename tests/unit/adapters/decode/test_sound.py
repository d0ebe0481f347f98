"""Sound files stay in, damaged ones stay out: mutations of both kinds, and how many each rule lets
through. The right pixels are those of the file before the harmless fault."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult
from pixsift.core.quality import QualityPolicy, judge

LIMITS = DecodeLimits()


def picture(seed: int = 0, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Structure at all scales, so that nearly every bit of a file matters."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cell in (4, 8, 16, 40):
        grid = rng.uniform(-1, 1, (size[1] // cell + 2, size[0] // cell + 2, 3))
        total += np.kron(grid, np.ones((cell, cell, 1)))[: size[1], : size[0]] * cell**0.6
    return Image.fromarray(np.clip(128 + 14 * total, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, *, restarts: int = 0, progressive: bool = False) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88, progressive=progressive, restart_marker_blocks=restarts)
    return out.getvalue()


def run(blob: bytes, side: int = 32) -> DecodeResult:
    return decode_image(blob, side, LIMITS)


def sound(blob: bytes) -> DecodedImage:
    result = run(blob)
    assert isinstance(result, DecodedImage), result
    return result


def refused(blob: bytes) -> DecodeFailure:
    result = run(blob)
    assert isinstance(result, DecodeFailure), result.facts.flags
    return result


def restarts_of(blob: bytes) -> list[int]:
    """Where the restart markers lie."""
    start = blob.index(b"\xff\xda")
    return [
        at for at in range(start, len(blob) - 1) if blob[at] == 0xFF and blob[at + 1] & 0xF8 == 0xD0
    ]


def inserted(blob: bytes, places: list[int], junk: Callable[[], bytes]) -> bytes:
    for at in sorted(places, reverse=True):
        blob = blob[:at] + junk() + blob[at:]
    return blob


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_jpeg__stray_bytes_before_restart_markers(mode: str, count: int) -> None:
    rng = random.Random(count)
    image = picture(count).convert(mode)
    blob = jpeg(image, restarts=5)
    clean = sound(blob)
    for places in (restarts_of(blob)[3:4], restarts_of(blob)[1::3], restarts_of(blob)):
        junk = lambda: bytes(rng.randrange(1, 255) for _ in range(count))  # noqa: E731
        found = sound(inserted(blob, places, junk))
        assert np.array_equal(found.model_input, clean.model_input)
        assert found.pixel_sha256 == clean.pixel_sha256
        if "stray_bytes" in found.facts.flags:  # libjpeg itself passes over a few without a word
            assert found.quality["stray_bytes"] == count * len(places)
        else:
            assert count < 9 or places != restarts_of(blob)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 5])
def test_jpeg__stray_bytes_before_the_end(progressive: bool, restarts: int) -> None:
    blob = jpeg(picture(1), restarts=restarts, progressive=progressive)
    clean = sound(blob)
    for count in (4, 6, 9):
        found = sound(blob[:-2] + b"\x35" * count + blob[-2:])
        assert np.array_equal(found.model_input, clean.model_input)
    assert refused(blob[:-2] + b"\x35" * 40 + blob[-2:]).reason == "corrupt"


def test_jpeg__the_policy_may_reject_each_of_them() -> None:
    blob, restarted = jpeg(picture(2)), jpeg(picture(2), restarts=5)
    for name, broken in {
        "stray_bytes": inserted(restarted, restarts_of(restarted), lambda: b"\x35" * 9),
        "missing_end": blob[:-2],
        "header_warning": blob[:20] + b"junk" * 20 + blob[20:],
    }.items():
        found = sound(broken)
        assert name in found.facts.flags
        assert judge(found.quality, None, QualityPolicy()).rejected_reason is None
        strict = QualityPolicy.from_json({name: "reject"})
        assert judge(found.quality, None, strict).rejected_reason == name


@pytest.mark.parametrize("ending", [b"", b"\xff", b"\x00" * 7, b"\xff\xff"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 5])
def test_jpeg__only_the_end_marker_is_missing(
    ending: bytes, progressive: bool, restarts: int
) -> None:
    blob = jpeg(picture(3), restarts=restarts, progressive=progressive)
    found = sound(blob[:-2] + ending)
    assert np.array_equal(found.model_input, sound(blob).model_input)
    assert "missing_end" in found.facts.flags


def cuts(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        blob = jpeg(
            picture(number % 9), restarts=rng.choice([0, 5]), progressive=rng.random() < 0.4
        )
        start = blob.index(b"\xff\xda")
        found.append(blob[: rng.randrange(start, len(blob) - 2)])
    return found


def test_jpeg__cut_files_stay_out() -> None:
    """At random places, and at the worst: behind a scan, a restart marker, the last data byte."""
    kept = [cut for cut in cuts(60, 7) if isinstance(run(cut), DecodedImage)]
    assert not kept
    progressive = jpeg(picture(4), progressive=True)
    scans = [at for at in range(len(progressive)) if progressive[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        table = progressive.rindex(b"\xff\xc4", 0, at)
        for cut in (progressive[:at], progressive[:table]):
            assert refused(cut).reason == "truncated"
    restarted = jpeg(picture(4), restarts=5)
    for at in restarts_of(restarted):
        for cut in (restarted[:at], restarted[: at + 2]):
            refused(cut)
            refused(cut + b"\xff\xd9")
    plain = jpeg(picture(5))
    for lost in (1, 2, 3):
        refused(plain[: -2 - lost])
        refused(plain[: -2 - lost] + b"\xff\xd9")


def test_jpeg__cut_files_filled_with_zeros_stay_out() -> None:
    """An upload that stopped, on a file system that had set the space aside."""
    rng = random.Random(5)
    kept = 0
    for number in range(25):
        blob = jpeg(picture(number % 9))
        at = rng.randrange(blob.index(b"\xff\xda") + 20, int(len(blob) * 0.97))
        kept += isinstance(run(blob[:at] + bytes(len(blob) - at)), DecodedImage)
    assert kept == 0


def damaged(count: int, seed: int, restarts: int) -> tuple[int, int]:
    """How many files of one damaged data byte decode differently, and how many of those are kept
    for stray bytes or a missing end."""
    rng = random.Random(seed)
    harmed = let_in = 0
    for number in range(count):
        blob = jpeg(picture(number % 11), restarts=restarts)
        start = blob.index(b"\xff\xda") + 14
        data = bytearray(blob)
        at = rng.randrange(start, len(blob) - 2)
        data[at] ^= 1 << rng.randrange(8)
        found, clean = run(bytes(data)), sound(blob)
        if isinstance(found, DecodedImage) and set(found.facts.flags) & {
            "stray_bytes",
            "missing_end",
        }:
            harmed += 1
            let_in += not np.array_equal(found.model_input, clean.model_input)
        else:
            harmed += isinstance(found, DecodeFailure)
    return harmed, let_in


@pytest.mark.parametrize("restarts", [0, 5])
def test_jpeg__damaged_pixels_stay_out(restarts: int) -> None:
    harmed, let_in = damaged(40, 11, restarts)
    assert harmed >= 3, "some flips are noticed"
    assert let_in <= 2


@pytest.mark.full
@pytest.mark.parametrize("restarts", [0, 5])
def test_jpeg__damaged_pixels_stay_out_of_a_thousand(restarts: int) -> None:
    harmed, let_in = damaged(1_000, 12, restarts)
    assert let_in <= 0.05 * harmed


def test_jpeg__missing_or_swapped_restart_markers_are_damage() -> None:
    blob = jpeg(picture(6, (160, 120)), restarts=5)
    places = restarts_of(blob)
    at, other = places[4], places[5]
    refused(blob[:at] + blob[at + 2 :])
    swapped = blob[: at + 1] + blob[other + 1 : other + 2] + blob[at + 2 :]
    refused(swapped)


HEADERS = {
    "junk before a comment": lambda b: b[:20] + b"\x11" * 608 + b[20:],
    "an unknown JFIF revision": lambda b: b.replace(b"JFIF\x00\x01", b"JFIF\x00\x07", 1),
    "fillers before a segment": lambda b: b[:20] + b"\xff" * 5 + b[20:],
    "spectral limits of zero": lambda b: b.replace(b"\x00\x3f\x00", b"\x00\x00\x00", 1),
}


@pytest.mark.parametrize("name", HEADERS)
def test_jpeg__oddities_of_the_header(name: str) -> None:
    blob = jpeg(picture(7))
    found = sound(HEADERS[name](blob))
    assert np.array_equal(found.model_input, sound(blob).model_input)


def test_jpeg__a_large_one_is_scaled_all_the_same() -> None:
    blob = jpeg(picture(8, (800, 600)))
    clean, found = sound(blob), sound(blob[:-2])
    assert found.quality["scale"] == clean.quality["scale"] < 1
    assert np.array_equal(found.model_input, clean.model_input)
    assert found.pixel_sha256 == clean.pixel_sha256


def png(*extra: tuple[bytes, bytes], image: Image.Image | None = None) -> list[bytes]:
    """Chunks of a PNG, ``extra`` between header and data."""
    out = io.BytesIO()
    (image or picture(9)).save(out, "PNG")
    blob, at, chunks = out.getvalue(), 8, []
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        chunks.append(blob[at : at + 12 + size])
        at += 12 + size
    made = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in extra
    ]
    return [chunks[0], *made, *chunks[1:]]


def joined(chunks: list[bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def wrong(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


TEXT = (b"tEXt", b"Comment\x00hello")


def test_png__a_wrong_checksum_beside_the_picture_is_a_flag() -> None:
    clean = sound(joined(png()))
    for extra in (TEXT, (b"tIME", bytes(7)), (b"pHYs", bytes(9)), (b"gAMA", bytes(4))):
        chunks = png(extra)
        chunks[1] = wrong(chunks[1])
        found = sound(joined(chunks))
        assert found.pixel_sha256 == clean.pixel_sha256
        assert "bad_checksum" in found.facts.flags and found.quality["bad_checksum"] == 1


def test_png__what_decides_pixels_must_check_out() -> None:
    for index in (0, -2):
        chunks = png()
        chunks[index] = wrong(chunks[index])
        assert refused(joined(chunks)).reason == "corrupt"
    key = png((b"tRNS", struct.pack(">3H", 1, 2, 3)))
    key[1] = wrong(key[1])
    assert refused(joined(key)).reason == "corrupt"
    palette = png(image=picture(9).convert("P"))
    places = [i for i, chunk in enumerate(palette) if chunk[4:8] == b"PLTE"]
    palette[places[0]] = wrong(palette[places[0]])
    assert refused(joined(palette)).reason == "corrupt"


@pytest.mark.parametrize("lost", [1, 4, 8, 12])
def test_png__a_missing_end_is_a_flag(lost: int) -> None:
    blob = joined(png(TEXT))
    found = sound(blob[:-lost])
    assert found.pixel_sha256 == sound(blob).pixel_sha256
    assert "missing_end" in found.facts.flags


def test_png__an_end_with_a_wrong_checksum_is_a_flag() -> None:
    chunks = png()
    chunks[-1] = wrong(chunks[-1])
    assert "bad_checksum" in sound(joined(chunks)).facts.flags


def test_png__cut_files_stay_out() -> None:
    blob = joined(png(TEXT))
    end = blob.rindex(b"IEND") - 4
    rng = random.Random(3)
    for at in [end - 1, end - 4, end - 5, *(rng.randrange(8, end) for _ in range(60))]:
        assert refused(blob[:at]).reason == "truncated"


@pytest.mark.parametrize(
    ("name", "flag"),
    [("01-webcam-1-stray*", "stray_bytes"), ("01-webcam-3-stray*", "stray_bytes"),
     ("02-missing-eoi*", "missing_end"), ("junk-608*", "header_warning"),
     ("09-png-bad-crc*", "bad_checksum")],
)  # fmt: skip
def test_sound__files_of_the_field_tests(name: str, flag: str, real_images: Path) -> None:
    (path,) = (real_images / "faults").glob(name)
    result = decode_image(path.read_bytes(), 224, LIMITS)
    assert isinstance(result, DecodedImage), result
    assert flag in result.facts.flags
    with Image.open(real_images / "photos" / "kodak" / "05.png") as photo:
        assert photo.size == (result.facts.width, result.facts.height)
