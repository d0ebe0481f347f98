"""What the model sees: the frame squeezed into a square, with bars, its middle, or two crops.

    python tests/bench/run.py view

Of entering objects of 1 % of the frame, the share that the looks take for no change, camera still,
for scenes cut to each shape. Needs ``../shared/data`` and ``PIXSIFT_CHANGE_WORLD``
(bench_change.py).
"""

import io
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import change_world
from bench.bench_change import DATA, OURS
from bench.report import publish, table
from pixsift.core.calibration import wilson
from pixsift.core.second_look import look_signals

SIDE = 224
PAIRS = 100
SHAPES = {"4:3": 4 / 3, "16:9": 16 / 9, "3:1": 3.0}
Pixels = NDArray[np.uint8]


def squeeze(picture: Image.Image) -> list[Pixels]:
    """The whole frame, its shape lost: what the recipe px2 does."""
    return [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))]


def letterbox(picture: Image.Image) -> list[Pixels]:
    """The whole frame in its shape, with gray bars around it."""
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (SIDE, SIDE), (124, 116, 104))
    at = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    square.paste(picture.resize(size, Image.Resampling.BICUBIC), at)
    return [np.asarray(square)]


def middle(picture: Image.Image) -> list[Pixels]:
    """The largest square in the middle."""
    return [_square(picture, 0.5)]


def two_crops(picture: Image.Image) -> list[Pixels]:
    """The squares at both ends of the longer side."""
    return [_square(picture, 0.0), _square(picture, 1.0)]


def _square(picture: Image.Image, where: float) -> Pixels:
    edge = min(picture.size)
    left, top = (round((length - edge) * where) for length in picture.size)
    box = (left, top, left + edge, top + edge)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


VIEWS: dict[str, Callable[[Image.Image], list[Pixels]]] = {
    "squeeze": squeeze, "letterbox": letterbox, "middle": middle, "two crops": two_crops,
}  # fmt: skip


def main() -> None:
    """Print the table and write it to bench-results."""
    if not DATA.is_dir():
        print(f"left out: {DATA} is absent")  # noqa: T201
        return
    folder = os.environ.get("PIXSIFT_CHANGE_WORLD")
    if folder is None:
        print("left out: PIXSIFT_CHANGE_WORLD is not set; no objects enter")  # noqa: T201
        return
    rows = {name: {"view": name} for name in VIEWS}
    for shape, ratio in SHAPES.items():
        for name, found in _lost(Path(folder), ratio).items():
            rows[name][shape] = found
    listed = list(rows.values())
    text = table(list(listed[0]), [list(row.values()) for row in listed])
    publish("view", {"pairs": PAIRS, "rows": listed}, text)


def _lost(world: Path, ratio: float) -> dict[str, str]:
    """By view: of objects that enter, the share that no look sees. Two crops: in neither."""
    assert OURS.look is not None
    cutouts = change_world.read_cutouts(world / "cutouts")
    scenes = [(name, _shaped(one, ratio)) for name, one in change_world.base_scenes(DATA, world)]
    pairs = change_world.entering(
        scenes, change_world.References(), cutouts, PAIRS, sizes=(0.01,), moving=False
    )
    missed = dict.fromkeys(VIEWS, 0)
    for pair in islice(pairs, PAIRS):
        one, other = (Image.open(io.BytesIO(blob)).convert("RGB") for blob in (pair.a, pair.b))
        for name, view in VIEWS.items():
            looks = [
                (0.0, look_signals(a), look_signals(b))
                for a, b in zip(view(one), view(other), strict=True)
            ]
            missed[name] += all(OURS.look.agree(looks))
    bounds = {name: wilson(count, PAIRS) for name, count in missed.items()}
    return {
        name: f"{missed[name] / PAIRS:.3f} ({low:.3f} to {high:.3f})"
        for name, (low, high) in bounds.items()
    }


def _shaped(picture: Image.Image, ratio: float) -> Image.Image:
    """The middle of ``picture`` with that ratio of width to height."""
    width = min(picture.width, round(picture.height * ratio))
    height = min(picture.height, round(picture.width / ratio))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    main()
