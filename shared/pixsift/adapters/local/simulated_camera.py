"""A simulated camera for the demo: it moves past real photographs.

The photographs are those that ship inside the scikit-image wheel (public domain, CC0 or without
known copyright restrictions; see skimage.data's documentation); nothing is downloaded. The camera
pans and zooms over one of them, its exposure and noise drift, and every frame is a JPEG of its own.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pixsift.extras import require

SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
          "hubble_deep_field.jpg", "coins.png", "camera.png", "ihc.png")  # fmt: skip
FRAME_SIZE = (400, 300)
_JPEG_QUALITY = 88


Frame = Image.Image
"""One picture, RGB, before it is a file."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera looks, and how it sees."""

    x: float
    """0 looks at the left edge of the photograph, 1 at the right."""
    y: float
    zoom: float
    """Share of the photograph's largest 4:3 window that fills the frame."""
    gain: float = 1.0
    noise: float = 2.0
    """Standard deviation of the sensor's noise, in gray levels."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One photograph."""

    name: str
    image: Image.Image

    def frame(self, pose: Pose, seed: int) -> Frame:
        """What the camera sees at ``pose``: ``FRAME_SIZE``, RGB; the same seed, the same noise."""
        window = self.image.resize(
            FRAME_SIZE, Image.Resampling.BICUBIC, box=_window(self.image.size, pose)
        )
        noise = np.random.default_rng(seed).normal(0.0, pose.noise, (*FRAME_SIZE[::-1], 3))
        seen: NDArray[np.float64] = np.asarray(window, np.float64) * pose.gain + noise
        return Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))


def check_scenes() -> None:
    """Raises SettingError with the extra where the photographs are not installed."""
    require("the demo with photos that ship with scikit-image", ["skimage"], extra="local")


def load_scenes() -> list[Scene]:
    """The photographs of the scikit-image wheel, in the order of ``SCENES``."""
    check_scenes()
    package = find_spec("skimage")
    assert package is not None and package.origin is not None  # noqa: S101 - checked just now
    folder = Path(package.origin).parent / "data"
    return [Scene(Path(name).stem, _open(folder / name)) for name in SCENES]


def drive(frames: int, *, start: float = 0.0, drift: float = 1.0) -> list[Pose]:
    """Poses of one burst: from left to right while zooming in and swaying a little.

    start: where on the way the burst begins, 0 to 1; drift: how much of the way it covers.
    """
    along = start + drift * np.linspace(0.0, 1.0, frames)
    return [
        Pose(
            x=float(0.1 + 0.8 * t),
            y=float(0.5 + 0.25 * np.sin(2.2 * np.pi * t)),
            zoom=float(0.82 - 0.2 * t),
            gain=float(1.0 + 0.07 * np.sin(5.0 * t + 1.0)),
            noise=float(1.5 + t),
        )
        for t in along
    ]


def to_jpeg(frame: Frame) -> bytes:
    """The frame as a JPEG."""
    stream = io.BytesIO()
    frame.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def blurred(frame: Frame) -> Frame:
    """Out of focus, far beyond what is useful for training."""
    return frame.filter(ImageFilter.GaussianBlur(6))


def nearly_black(frame: Frame) -> Frame:
    """As with the lights off: almost black."""
    return frame.point([level // 64 for level in range(256)] * 3)


def tipped_over(frame: Frame) -> Frame:
    """Turned as after a fall to the left."""
    return frame.transpose(Image.Transpose.ROTATE_90)


def read_photo(source: bytes) -> Frame | None:
    """A user's photo at a size for the camera, or None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(source)) as image:
            image.thumbnail((max(FRAME_SIZE), max(FRAME_SIZE)))
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def photos_in(folder: Path) -> Sequence[Path]:
    """Files of ``folder`` and below that look like images, in the order of their names."""
    suffixes = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()
    )


def _open(path: Path) -> Frame:
    with Image.open(path) as image:
        return image.convert("RGB")


def _window(size: tuple[int, int], pose: Pose) -> tuple[float, float, float, float]:
    """The box of the photograph that fills the frame."""
    scale = pose.zoom * min(size[0] / FRAME_SIZE[0], size[1] / FRAME_SIZE[1])
    width, height = FRAME_SIZE[0] * scale, FRAME_SIZE[1] * scale
    left, top = pose.x * (size[0] - width), pose.y * (size[1] - height)
    return left, top, left + width, top + height
