"""Makes copies of a photograph as they occur in practice, in three grades, for calibration.

Each edit turns one picture into the bytes of a file, so that both sides of a labeled pair pass the
same decoder as an upload does. Where an edit shows new content at the border (a camera that moved),
the *reference* is the middle of the photograph, and the edit looks at a shifted window of it.
Edits are deterministic: the same picture, edit and seed give the same bytes.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pixsift.core.images import Pixels

MARGIN = 0.06
"""Share of each side kept back as "what the camera saw beyond the border"."""

RECOLORINGS = (120, 180)
"""Degrees by which hues are turned, to see whether the same shape in another color passes."""

Rng = np.random.Generator
Edit = Callable[[Image.Image, float, Rng], Image.Image]


@dataclass(frozen=True, slots=True)
class GradedEdit:
    """One kind of edit at mild, medium and strong strength."""

    name: str
    strengths: tuple[float, float, float]
    unit: str
    apply: Edit


def reference_jpeg(picture: Image.Image) -> bytes:
    """The middle of the picture, lightly compressed: the stored side of every positive pair."""
    return _jpeg(_window(picture, 0, 0, 0, 1), 95)


def edited_jpeg(picture: Image.Image, edit: GradedEdit, grade: int, seed: int) -> bytes:
    """The other side. grade: 0 mild, 1 medium, 2 strong."""
    rng = np.random.default_rng((seed, grade, *edit.name.encode()))
    strength = edit.strengths[grade]
    result = edit.apply(picture, strength, rng)
    return _jpeg(result, int(strength) if edit.name == "recompress" else 92)


def recolored_jpeg(picture: Image.Image, degrees: int) -> bytes:
    """The reference with every hue turned by ``degrees``: the same shapes, other colors.

    Not a copy: a red part is not a blue part. Grays stay as they are.
    """
    hue, *rest = _plain(picture).convert("HSV").split()
    turned = hue.point([(level + round(degrees * 256 / 360)) % 256 for level in range(256)])
    return _jpeg(Image.merge("HSV", (turned, *rest)).convert("RGB"), 92)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _window(picture: Image.Image, dx: float, dy: float, degrees: float, zoom: float) -> Image.Image:
    """The middle of the picture, moved by (dx, dy) shares of its size, turned and zoomed."""
    width, height = picture.size
    inner = (round(width * (1 - 2 * MARGIN)), round(height * (1 - 2 * MARGIN)))
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    center_x, center_y = width * (0.5 + dx), height * (0.5 + dy)
    half_x, half_y = inner[0] / 2, inner[1] / 2
    affine = (cos, -sin, center_x - cos * half_x + sin * half_y,
              sin, cos, center_y - sin * half_x - cos * half_y)  # fmt: skip
    return picture.transform(inner, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)


def _plain(picture: Image.Image) -> Image.Image:
    return _window(picture, 0, 0, 0, 1)


def _recompress(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return _plain(picture)  # the quality is applied when the bytes are written


def _resize(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    inner = _plain(picture)
    size = (max(8, round(inner.width * strength)), max(8, round(inner.height * strength)))
    return inner.resize(size, Image.Resampling.LANCZOS)


def _crop(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    inner = _plain(picture)
    width, height = round(inner.width * (1 - strength)), round(inner.height * (1 - strength))
    left = int(rng.integers(0, inner.width - width + 1))
    top = int(rng.integers(0, inner.height - height + 1))
    return inner.crop((left, top, left + width, top + height))


def _exposure(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    stops = strength * rng.choice([-1.0, 1.0])
    return _map_levels(_plain(picture), (2.0**stops,) * 3)


def _white_balance(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    sign = rng.choice([-1.0, 1.0])
    return _map_levels(_plain(picture), (1 + sign * strength, 1.0, 1 - sign * strength))


def _map_levels(picture: Image.Image, gains: tuple[float, ...]) -> Image.Image:
    """Gains in linear light (gamma 2.2), as a change of exposure or illuminant would do."""
    levels = (np.arange(256) / 255) ** 2.2
    table: list[int] = []
    for gain in gains:
        mapped = np.clip(levels * gain, 0, 1) ** (1 / 2.2) * 255
        table += np.rint(mapped).astype(int).tolist()
    return picture.point(table)


def _blur(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    inner = _plain(picture)
    return inner.filter(ImageFilter.GaussianBlur(strength * max(inner.size) / 512))


def _noise(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    values: Pixels = np.asarray(_plain(picture))
    noisy = values + rng.normal(0, strength, values.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _motion(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """A small move of the camera: shift by ``strength``, turn, and come closer or go back."""
    angle = rng.uniform(0, 2 * np.pi)
    dx, dy = strength * np.cos(angle), strength * np.sin(angle)
    turn = 40 * strength * rng.choice([-1.0, 1.0])  # 4 % comes with 1.6 degrees
    return _window(picture, float(dx), float(dy), float(turn), 1 + float(rng.uniform(0, strength)))


def _overlay(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """An opaque caption of ``strength`` of the area in a corner, as recorders stamp them."""
    inner = _plain(picture)
    width, height = inner.size
    box_width = int(width * min(1.0, np.sqrt(strength * 4)))
    box_height = max(1, int(strength * width * height / box_width))
    left = int(rng.choice([0, width - box_width]))
    top = int(rng.choice([0, height - box_height]))
    drawing = ImageDraw.Draw(inner)
    drawing.rectangle((left, top, left + box_width, top + box_height), fill=(16, 16, 16))
    drawing.text((left + 2, top + 1), "2026-11-22 12:00:00 CAM 3", fill=(240, 240, 240),
                 font_size=max(8, box_height // 2))  # fmt: skip
    return inner


def _combined(picture: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """A copy that was shared several times: cropped, with another exposure, and smaller."""
    width, height = picture.size
    cropped = _window(picture, 0, 0, 0, 1 + strength)
    exposed = _map_levels(cropped, (2.0 ** (4 * strength * rng.choice([-1.0, 1.0])),) * 3)
    scale = 1 - 8 * strength
    return exposed.resize(
        (max(8, round(width * scale)), max(8, round(height * scale))), Image.Resampling.LANCZOS
    )


EDITS = (
    GradedEdit("recompress", (80, 50, 30), "JPEG quality", _recompress),
    GradedEdit("resize", (0.75, 0.5, 0.35), "scale", _resize),
    GradedEdit("crop", (0.02, 0.05, 0.10), "share of each side cut away", _crop),
    GradedEdit("exposure", (0.15, 0.3, 0.6), "stops up or down", _exposure),
    GradedEdit("white_balance", (0.03, 0.06, 0.12), "red against blue", _white_balance),
    GradedEdit("blur", (0.5, 1.0, 2.0), "sigma in px at 512 px", _blur),
    GradedEdit("noise", (3, 6, 12), "sigma in levels", _noise),
    GradedEdit("motion", (0.01, 0.02, 0.04), "share of the frame", _motion),
    GradedEdit("overlay", (0.01, 0.03, 0.06), "share of the area", _overlay),
    GradedEdit("combined", (0.02, 0.04, 0.06), "crop share, with exposure and resize", _combined),
)
