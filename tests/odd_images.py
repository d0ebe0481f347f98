"""Images of another kind than the pool's, one by one or in small groups: what k-center runs to.

Photographs of other things from the shared data, where it is there, and drawn ones: noise, text,
shapes, flat gray, gradients, patterns, and photographs that are blurred or dark.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_OTHERS = {"photos/kodak": 1, "quality": 1, "sequences/drone": 2, "sequences/tennis": 35,
           "sequences/conveyor": 50, "orientation": 9, "copies/ukbench": 3, "copies/pdq": 4,
           "conformance/png": 6}  # fmt: skip
"""Folder -> every so many files: neighbors in a folder are mostly copies of each other."""
_SIDE = 256


def odd_images(data: Path, *, seed: int = 0) -> list[bytes]:
    """Encoded images, in a fixed order. data: the folder of shared data."""
    files = [path for folder, step in _OTHERS.items() for path in _images(data / folder)[::step]]
    rng = np.random.default_rng(seed)
    return [
        *(path.read_bytes() for path in files),
        *(_encoded(image) for image in _drawn(rng)),
        *(_encoded(image) for image in _spoiled(_images(data / "photos/clothing"), rng)),
    ]


def _images(folder: Path) -> list[Path]:
    wanted = {".png", ".jpg", ".jpeg", ".webp"}
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in wanted)


def _drawn(rng: np.random.Generator) -> Iterator[Image.Image]:
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    for _ in range(4):
        yield _picture(rng.integers(0, 256, (_SIDE, _SIDE, 3)))
        yield _picture(rng.integers(30, 220) + rng.normal(0, 3, (_SIDE, _SIDE, 3)))
        yield _picture(np.stack([rows, columns, np.full_like(rows, rng.integers(255))], axis=2))
        side = int(rng.integers(4, 40))
        squares = (rows // side + columns // side) % 2 * 255
        yield _picture(squares[:, :, None] * rng.random(3))
        yield _text(rng)
        yield _shapes(rng)


def _text(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(image)
    for top in range(8, _SIDE - 12, 14):
        line = "".join(chr(letter) for letter in rng.integers(97, 123, 36))
        draw.text((8, top), line, fill="black")
    return image


def _shapes(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (_SIDE, _SIDE), _color(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 9))):
        left, top, width, height = rng.integers(0, 160, 4).tolist()
        form = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        form((left, top, left + width + 10, top + height + 10), fill=_color(rng))
    return image


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _spoiled(photos: list[Path], rng: np.random.Generator) -> Iterator[Image.Image]:
    for place in rng.permutation(len(photos))[:6]:
        with Image.open(photos[place]) as image:
            shown = image.convert("RGB")
        yield shown.filter(ImageFilter.GaussianBlur(14))
        yield _picture(np.asarray(shown) * 0.05)


def _picture(values: NDArray[np.floating] | NDArray[np.integer]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image) -> bytes:
    found = BytesIO()
    image.save(found, "PNG")
    return found.getvalue()
