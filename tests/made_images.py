"""A small set of images of our own, laid out like ``../shared/data``: what a public clone tests.

Nothing is downloaded or committed. The photographs are cut from those that the scikit-image wheel
ships (public domain, CC0 or without known copyright restrictions; see skimage.data), which the
demo needs anyway. The PNG files are written by hand, chunk by chunk, so that no encoder decides
which variants exist.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
          "ihc.png", "camera.png", "coins.png")  # fmt: skip
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16),
          RGBA: (8, 16)}  # fmt: skip
EXIF_ORIENTATION = 274
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_images(root: Path) -> Path:
    """Write the whole set below ``root`` and return it; the same files every time."""
    _photographs(root / "photos")
    _quality(root / "quality")
    _conformance(root / "conformance" / "png")
    _orientations(root / "orientation")
    _copies(root / "copies" / "ukbench")
    _broken(root / "broken" / "made")
    return root


def scene(name: str) -> Image.Image:
    """One photograph of the scikit-image wheel, RGB."""
    package = find_spec("skimage")
    assert package is not None and package.origin is not None
    with Image.open(Path(package.origin).parent / "data" / name) as image:
        return image.convert("RGB")


def png(width: int, height: int, *, kind: int, depth: int, rows: bytes, before: bytes = b"",
        interlace: int = 0) -> bytes:  # fmt: skip
    """A PNG of raw scan lines, each with its filter byte. before: chunks ahead of the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return b"".join([SIGNATURE, chunk(b"IHDR", header), before,
                     chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])  # fmt: skip


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _photographs(folder: Path) -> None:
    (folder / "kodak").mkdir(parents=True)
    for number, name in enumerate(SCENES, 1):
        image = scene(name)
        image.thumbnail((384, 384))
        image.save(folder / "kodak" / f"{number:02}.png")
        crops = folder / "clothing" / Path(name).stem
        crops.mkdir(parents=True)
        for index, crop in enumerate(_crops(scene(name))):
            crop.save(crops / f"{index}.jpg", quality=90)


def _crops(image: Image.Image) -> Iterator[Image.Image]:
    """Five overlapping windows of two thirds of the image: the corners and the middle."""
    width, height = (side * 2 // 3 for side in image.size)
    right, bottom = image.width - width, image.height - height
    for x, y in ((0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)):
        yield image.crop((x, y, x + width, y + height))


def _quality(folder: Path) -> None:
    """One issue each, under the names that CleanVision's examples have in the large set."""
    folder.mkdir(parents=True)
    photo = np.asarray(scene("coffee.png").resize((320, 214)), np.float64)
    dark = photo * 0.12
    bright = 255 - (255 - photo) * 0.08
    flat = np.full((240, 320, 3), (90, 120, 150), np.float64)
    flat[100:104, 100:104] += 20
    strip = np.asarray(scene("astronaut.png").resize((2400, 120)), np.float64)
    for name, pixels in (
        ("image_417", dark), ("image_588", bright), ("image_591", flat), ("image_604", strip)
    ):  # fmt: skip
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{name}.png")


def _conformance(folder: Path) -> None:
    """Every color type at every depth, every filter, transparency by color, and corrupt ones."""
    folder.mkdir(parents=True)
    for kind, depths in DEPTHS.items():
        for depth, scanline_filter in product(depths, range(5)):
            (folder / f"basic-{kind}-{depth}-{scanline_filter}.png").write_bytes(
                _noise_png(kind, depth, scanline_filter)
            )
    for name, (kind, depth) in {
        "tbbn0g04": (GRAY, 4), "tbwn0g16": (GRAY, 16), "tbbn2c16": (RGB, 16),
        "tbgn2c16": (RGB, 16), "tbrn2c08": (RGB, 8), "tbwn3p08": (PALETTE, 8),
        "tm3n3p02": (PALETTE, 2),
    }.items():  # fmt: skip
        (folder / f"{name}.png").write_bytes(_transparent_corner(kind, depth))
    sound = _noise_png(RGB, 8, 0)
    for name, blob in {
        "xcrc": sound[:-20] + b"\0\0\0\0" + sound[-16:],  # the checksum of the pixels
        "xcut": sound[: len(sound) // 2],
        "xsignature": sound[1:],
        "xheader": sound.replace(b"IHDR", b"IHDX", 1),
        "xdepth": png(8, 8, kind=RGB, depth=3, rows=bytes(8 * 25)),
        "xcolor": png(8, 8, kind=1, depth=8, rows=bytes(8 * 25)),
        "xnodata": SIGNATURE + sound[8:33] + chunk(b"IEND", b""),
    }.items():
        (folder / f"{name}.png").write_bytes(blob)


def _noise_png(kind: int, depth: int, scanline_filter: int) -> bytes:
    """32 x 32 random samples: with filters beyond 0 the pixels are other random ones."""
    rng = np.random.default_rng([kind, depth, scanline_filter])
    line = 32 * CHANNELS[kind] * depth // 8
    rows = b"".join(bytes([scanline_filter]) + rng.bytes(line) for _ in range(32))
    return png(32, 32, kind=kind, depth=depth, rows=rows, before=_palette(kind, depth))


def _palette(kind: int, depth: int) -> bytes:
    if kind != PALETTE:
        return b""
    return chunk(b"PLTE", np.random.default_rng(depth).bytes(3 << depth))


def _transparent_corner(kind: int, depth: int) -> bytes:
    """Sample 1 fills the left and upper half, and is said to be transparent; 0 fills the rest."""
    grid = np.zeros((32, 32, CHANNELS[kind]), np.uint16)
    grid[:16, :16] = 1
    if kind == PALETTE:
        marked = chunk(b"PLTE", bytes((9, 9, 9, 200, 30, 30))) + chunk(b"tRNS", bytes((255, 0)))
    else:
        marked = chunk(b"tRNS", struct.pack(f">{CHANNELS[kind]}H", *[1] * CHANNELS[kind]))
    rows = b"".join(b"\0" + _packed(line, depth) for line in grid)
    return png(32, 32, kind=kind, depth=depth, rows=rows, before=marked)


def _packed(line: NDArray[np.uint16], depth: int) -> bytes:
    flat = line.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def _orientations(folder: Path) -> None:
    """One picture per EXIF orientation, stored as the camera would have; 0 means no orientation."""
    folder.mkdir(parents=True)
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    for kind, size in (("Landscape", (1800, 1200)), ("Portrait", (1200, 1800))):
        upright = scene("coffee.png").resize(size, Image.Resampling.BICUBIC)
        for orientation in range(9):
            turn = undo.get(orientation)
            stored = upright if turn is None else upright.transpose(turn)
            exif = Image.Exif()
            exif[EXIF_ORIENTATION] = orientation
            # Of slightly different quality each: only files with equal pixels may share a hash.
            stored.save(folder / f"{kind}_{orientation}.jpg", quality=80 + orientation, exif=exif)


def _copies(folder: Path) -> None:
    """One photograph in five containers, and one that lost its signature."""
    folder.mkdir(parents=True)
    out = io.BytesIO()
    scene("rocket.jpg").resize((400, 266)).save(out, "JPEG", quality=90, subsampling=0)
    jpeg = out.getvalue()
    with Image.open(io.BytesIO(jpeg)) as image:
        for suffix in ("bmp", "png"):
            image.save(folder / f"ukbench09380.{suffix}")
    for suffix in ("jpg", "jpeg", "svg"):
        (folder / f"ukbench09380.{suffix}").write_bytes(jpeg)
    (folder / "ukbench09268_corrupt.jpg").write_bytes(bytes(20) + jpeg[20:])


def _broken(folder: Path) -> None:
    """Sound files of six formats, each cut at 24 places, and with five bytes changed 24 times."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(17)
    image = scene("camera.png").resize((96, 96))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        out = io.BytesIO()
        image.save(out, kind)
        sound = out.getvalue()
        for number in range(24):
            cut = sound[: len(sound) * number // 24]
            (folder / f"{kind}-cut-{number}.bin").write_bytes(cut)
            changed = np.frombuffer(sound, np.uint8).copy()
            places = rng.integers(0, min(changed.size, 64 if number % 2 else changed.size), 5)
            changed[places] = rng.integers(0, 256, 5)
            (folder / f"{kind}-changed-{number}.bin").write_bytes(changed.tobytes())
