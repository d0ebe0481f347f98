"""Scenes in which something changes, or nothing does: the world of ``bench_change.py``.

From ``../shared/data`` and from a folder of public sequences that is never part of the repository
(``PIXSIFT_CHANGE_WORLD``; docs/thresholds.md says which and how to get them):

    static/<scene>/*    frames of a fixed camera, in order
    drives/<name>/*     frames of a moving camera, in order
    cutouts/*.png       people, animals and things with an alpha channel

What is made up is made up from photographs: a *shot* is the scene with the noise of a sensor, half
a pixel of shake, another exposure and another encoding; an *entering object* is a photographed
cut-out, blended in; a *state change* is drawn into the scene at the size of an indicator. What is
photographed is found by differencing: a pair of frames of one fixed camera in which the largest
connected changed part covers so much of the frame, or nothing does.

Everything is deterministic. Sizes are shares of the frame.
"""

import io
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage  # type: ignore[import-untyped]

Rng = np.random.Generator
Pixels = NDArray[np.uint8]
LONGEST = 448
BLUR = ImageFilter.GaussianBlur(0.6)
LARGE_OBJECTS = (0.02, 0.05, 0.10)
CELL = 1 / 56**2
"""Share of the frame of one stored cell."""
STATES = ("lamp", "gauge", "display", "label", "door")
PHOTO_SIZES = ((0.005, 0.01), (0.01, 0.02), (0.02, 0.30))
MOST_FRAMES = 80
SOUGHT = 200
"""Pairs of frames that are looked at per fixed camera."""
CHANGED_LEVELS = 28
"""Difference of any channel from which a pixel of a photographed pair has changed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files with a label."""

    kind: str
    """``reshot``, ``enter``, ``enter_moving``, ``state``, ``photo_same``, ``photo_change``."""
    detail: str
    """Size or kind of what changed."""
    scene: str
    """Pairs of one scene are not independent; limits are chosen on some and reported on others."""
    a: bytes
    b: bytes


def base_scenes(data: Path, world: Path | None) -> list[tuple[str, Image.Image]]:
    """Named photographs to take shots of: one of each camera, far apart ones of each drive."""
    found: list[tuple[str, Path]] = []
    found += [(f"kodak/{p.stem}", p) for p in sorted((data / "photos/kodak").glob("*.png"))]
    clothing = sorted((data / "photos/clothing").glob("*/*"))
    found += [(f"clothing/{p.stem}", p) for p in clothing[::12]]
    for name, step in (("tennis", 14), ("drone", 1), ("conveyor", 12)):
        frames = sorted((data / "sequences" / name).glob("*.[jp][pn]g"))[::step]
        found += [(f"{name}/{p.stem}", p) for p in frames]
    if world is not None:
        for folder in sorted((world / "static").iterdir()):
            found.append((f"static/{folder.name}", sorted(folder.iterdir())[0]))
        for folder in sorted((world / "drives").iterdir()):
            frames = sorted(folder.iterdir())
            found += [(f"{folder.name}/{p.stem}", p) for p in frames[:: len(frames) // 20]]
    scenes = [(name, open_picture(path)) for name, path in found]
    return scenes + _skimage_scenes()


def _skimage_scenes() -> list[tuple[str, Image.Image]]:
    from skimage import data

    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "brick", "grass", "gravel",
             "coins", "page", "text", "immunohistochemistry")  # fmt: skip
    scenes = []
    for name in names:
        try:
            values = getattr(data, name)()
        except Exception:  # noqa: S112 - not every picture comes with the package
            continue
        picture = Image.fromarray(values).convert("RGB")
        scenes.append((f"skimage/{name}", _bounded(picture)))
    return scenes


def open_picture(path: Path) -> Image.Image:
    """A photograph, at most ``LONGEST`` on its longer side."""
    return _bounded(Image.open(path).convert("RGB"))


def _bounded(picture: Image.Image) -> Image.Image:
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    if max(picture.size) < LONGEST:  # a small camera's frame, enlarged
        scale = LONGEST / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture


# --- shots ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stands: shift in shares of the frame, turn in degrees, zoom."""

    dx: float = 0.0
    dy: float = 0.0
    turn: float = 0.0
    zoom: float = 1.0


MARGIN = 0.03
"""Kept back on each side, so that a moved camera sees scene and no border."""


def still(picture: Image.Image, rng: Rng) -> View:
    """Half a pixel of shake."""
    dx, dy = rng.uniform(-0.5, 0.5, 2) / (picture.width, picture.height)
    return View(float(dx), float(dy))


def moved(picture: Image.Image, rng: Rng) -> View:
    """By 0.5 to 2 % of the frame, with some turn and zoom."""
    strength = rng.uniform(0.005, 0.02)
    angle = rng.uniform(0, 2 * np.pi)
    return View(
        float(strength * np.cos(angle)), float(strength * np.sin(angle)),
        float(rng.uniform(-0.5, 0.5)), float(1 + rng.uniform(-0.01, 0.01)),
    )  # fmt: skip


def shot(picture: Image.Image, view: View, rng: Rng) -> bytes:
    """The scene as a camera takes it: view, exposure with clipping, noise, encoding."""
    width, height = picture.size
    inner = (round(width * (1 - 2 * MARGIN)), round(height * (1 - 2 * MARGIN)))
    angle = np.deg2rad(view.turn)
    cos, sin = np.cos(angle) / view.zoom, np.sin(angle) / view.zoom
    x, y = width * (0.5 + view.dx), height * (0.5 + view.dy)
    affine = (cos, -sin, x - cos * inner[0] / 2 + sin * inner[1] / 2,
              sin, cos, y - sin * inner[0] / 2 - cos * inner[1] / 2)  # fmt: skip
    seen = picture.transform(inner, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    stops = rng.choice([0.0, rng.uniform(-0.1, 0.1), rng.uniform(-0.35, 0.35)])
    levels = np.clip((np.arange(256) / 255) ** 2.2 * 2.0**stops, 0, 1) ** (1 / 2.2) * 255
    values = levels.astype(np.float32)[np.asarray(seen)]
    values += np.float32(rng.uniform(0.5, 2.5)) * rng.standard_normal(values.shape, np.float32)
    final = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    out = io.BytesIO()
    final.save(out, "JPEG", quality=int(rng.integers(75, 96)))
    return out.getvalue()


class References:
    """One shot of each scene, which the pairs of the scene share: it is embedded once."""

    def __init__(self) -> None:
        self._shots: dict[str, bytes] = {}

    def of(self, name: str, picture: Image.Image) -> bytes:
        """The scene as it was before anything happened."""
        if name not in self._shots:
            rng = np.random.default_rng((0, zlib.crc32(name.encode())))
            self._shots[name] = shot(picture, still(picture, rng), rng)
        return self._shots[name]


Scenes = Sequence[tuple[str, Image.Image]]


def reshots(scenes: Scenes, references: References, count: int) -> Iterator[Pair]:
    """The same static scene taken twice."""
    for index in range(count):
        name, picture = scenes[index % len(scenes)]
        rng = np.random.default_rng((1, index))
        again = shot(picture, still(picture, rng), rng)
        yield Pair("reshot", "", name, references.of(name, picture), again)


# --- something enters ----------------------------------------------------------------------------


def entering(
    scenes: Scenes,
    references: References,
    cutouts: Sequence[Image.Image],
    count: int,
    *,
    sizes: Sequence[float],
    moving: bool,
) -> Iterator[Pair]:
    """Cut-outs of each size in turn enter the scenes; the camera is still or moves."""
    kind, view = ("enter_moving", moved) if moving else ("enter", still)
    for index in range(count):
        size = sizes[index % len(sizes)]
        name, picture = scenes[(index * 7) % len(scenes)]
        rng = np.random.default_rng((2, moving, round(size * 1000), index))
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        there = with_object(picture, cutout, size, rng)
        after = shot(there, view(there, rng), rng)
        yield Pair(kind, f"{size:.3f}", name, references.of(name, picture), after)


def with_object(picture: Image.Image, cutout: Image.Image, size: float, rng: Rng) -> Image.Image:
    """``cutout`` blended in at a random place; its opaque part covers ``size`` of what is seen."""
    alpha = np.asarray(cutout.getchannel("A"), np.float32) / 255
    seen = picture.width * picture.height * (1 - 2 * MARGIN) ** 2
    scale = float(np.sqrt(size * seen / alpha.sum()))
    most = 0.92 * min(picture.width / cutout.width, picture.height / cutout.height)
    scale = min(scale, most)
    target = (max(3, round(cutout.width * scale)), max(3, round(cutout.height * scale)))
    small = cutout.resize(target, Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = rng.uniform(0.75, 1.2)
    small = Image.merge("RGBA", (*small.convert("RGB").point(lambda v: v * gain).split(),
                                 small.getchannel("A").filter(BLUR)))  # fmt: skip
    border = (round(picture.width * 0.04), round(picture.height * 0.04))
    left = int(rng.integers(border[0], max(border[0] + 1, picture.width - border[0] - target[0])))
    top = int(rng.integers(border[1], max(border[1] + 1, picture.height - border[1] - target[1])))
    result = picture.copy()
    result.paste(small.convert("RGB"), (left, top), small.getchannel("A"))
    return result


def read_cutouts(folder: Path) -> list[Image.Image]:
    """Pictures with an alpha channel, cropped to their opaque part."""
    found = []
    for path in sorted(folder.glob("*.png")):
        picture = Image.open(path).convert("RGBA")
        box = picture.getchannel("A").point(lambda v: 255 * (v > 128)).getbbox()
        if box is not None:
            picture = picture.crop(box)
            picture.thumbnail((400, 400), Image.Resampling.LANCZOS)
            found.append(picture)
    return found


# --- states --------------------------------------------------------------------------------------


def states(scenes: Scenes, count: int, cells: int) -> Iterator[Pair]:
    """An indicator in the scene shows something else; at least ``cells`` stored cells change."""
    for index in range(count):
        name, picture = scenes[(index * 11 + cells) % len(scenes)]
        rng = np.random.default_rng((3, cells, index))
        kind = STATES[index % len(STATES)]
        one, other = _state_pair(picture, kind, cells, rng)
        yield Pair(
            "state", f"{cells} {kind}", name,
            shot(one, still(one, rng), rng), shot(other, still(other, rng), rng),
        )  # fmt: skip


def _state_pair(
    picture: Image.Image, kind: str, cells: int, rng: Rng
) -> tuple[Image.Image, Image.Image]:
    """Grow the indicator until the changed part covers ``cells`` stored cells."""
    seed, place = int(rng.integers(2**31)), rng.uniform(0.12, 0.88, 2)

    def drawn(side: float) -> list[Image.Image]:
        return [_draw_state(picture, kind, which, side, place, seed) for which in (0, 1)]

    def changed_cells(side: float) -> float:
        one, other = (np.asarray(state) for state in drawn(side))
        return float(_changed(one, other).mean() / CELL)

    sides = np.geomspace(0.02, 0.6, 28).tolist()
    first = bisect_left(sides, True, key=lambda side: changed_cells(side) >= cells)
    one, other = drawn(sides[min(first, len(sides) - 1)])
    return one, other


def _draw_state(  # noqa: PLR0917
    picture: Image.Image, kind: str, which: int, side: float, place: NDArray[np.float64], seed: int
) -> Image.Image:
    """The scene with an indicator of ``side`` (share of the shorter side) in state ``which``."""
    rng = np.random.default_rng(seed)
    edge = max(6, round(side * min(picture.size)))
    draw: Callable[[int, int, Rng], Image.Image] = _DRAWINGS[kind]
    panel = draw(edge * 4, which, rng)
    width, height = max(2, panel.width // 4), max(2, panel.height // 4)
    panel = panel.resize((width, height), Image.Resampling.LANCZOS)
    left = int((picture.width - width) * place[0])
    top = int((picture.height - height) * place[1])
    result = picture.copy()
    if kind == "door":  # what was there shows through: an opening in the scene itself
        panel = Image.blend(picture.crop((left, top, left + width, top + height)), panel, 0.8)
    alpha = Image.new("L", panel.size, 255).filter(ImageFilter.GaussianBlur(0.5))
    result.paste(panel, (left, top), alpha)
    return result


def _lamp(edge: int, which: int, rng: Rng) -> Image.Image:
    """A signal of two or three lamps: another one is on."""
    count = int(rng.integers(2, 4))
    panel = Image.new("RGB", (edge, edge * count), tuple(int(v) for v in rng.integers(15, 60, 3)))
    drawing = ImageDraw.Draw(panel)
    colors = [(250, 60, 45), (250, 190, 60), (60, 230, 140)]
    on = int(rng.integers(count))
    lit = on if which == 0 else (on + 1) % count
    for lamp in range(count):
        color = colors[lamp] if lamp == lit else tuple(v // 5 for v in colors[lamp])
        pad = edge // 8
        drawing.ellipse((pad, lamp * edge + pad, edge - pad, (lamp + 1) * edge - pad), fill=color)
    return panel.filter(ImageFilter.GaussianBlur(edge / 40))


def _gauge(edge: int, which: int, rng: Rng) -> Image.Image:
    """A round dial: its needle points elsewhere."""
    panel = Image.new("RGB", (edge, edge), tuple(int(v) for v in rng.integers(60, 120, 3)))
    drawing = ImageDraw.Draw(panel)
    face = tuple([int(rng.integers(200, 250))] * 3)
    drawing.ellipse((2, 2, edge - 3, edge - 3), fill=face, outline=(50, 50, 50), width=edge // 30)
    center, radius = edge / 2, edge / 2
    for tick in range(11):
        angle = np.deg2rad(135 + 27 * tick)
        inner, outer = 0.78 * radius, 0.9 * radius
        drawing.line((center + inner * np.cos(angle), center + inner * np.sin(angle),
                      center + outer * np.cos(angle), center + outer * np.sin(angle)),
                     fill=(40, 40, 40), width=max(2, edge // 60))  # fmt: skip
    first = rng.uniform(0, 270)
    value = first if which == 0 else (first + rng.uniform(60, 210)) % 270
    angle = np.deg2rad(135 + value)
    color = (190, 30, 25) if rng.random() < 0.5 else (25, 25, 25)
    drawing.line((center, center, center + 0.75 * radius * np.cos(angle),
                  center + 0.75 * radius * np.sin(angle)), fill=color,
                 width=max(3, edge // 14))  # fmt: skip
    return panel


def _display(edge: int, which: int, rng: Rng) -> Image.Image:
    """Digits of seven segments: another number."""
    panel = Image.new("RGB", (edge * 2, edge), (24, 26, 24))
    drawing = ImageDraw.Draw(panel)
    colors = [(255, 70, 50), (90, 255, 120), (90, 200, 255), (240, 240, 230)]
    color = colors[int(rng.integers(4))]
    one, other = rng.choice(1000, 2, replace=False)
    text = f"{(one, other)[which]:03d}"
    for place, digit in enumerate(text):
        _digit(drawing, int(digit), edge * (0.12 + 0.62 * place), edge * 0.15, edge * 0.45, color)
    return panel


_SEGMENTS = (
    "abcdef",
    "bc",
    "abged",
    "abgcd",
    "fgbc",
    "afgcd",
    "afgecd",
    "abc",
    "abcdefg",
    "abcfgd",
)


def _digit(  # noqa: PLR0917
    drawing: ImageDraw.ImageDraw,
    digit: int,
    x: float,
    y: float,
    size: float,
    color: tuple[int, ...],
) -> None:
    w, h, t = size, size * 0.75, max(2, int(size / 6))
    lines = {"a": (x, y, x + w, y), "b": (x + w, y, x + w, y + h),
             "c": (x + w, y + h, x + w, y + 2 * h), "d": (x, y + 2 * h, x + w, y + 2 * h),
             "e": (x, y + h, x, y + 2 * h), "f": (x, y, x, y + h),
             "g": (x, y + h, x + w, y + h)}  # fmt: skip
    for segment in _SEGMENTS[digit]:
        drawing.line(lines[segment], fill=color, width=t)


def _label(edge: int, which: int, rng: Rng) -> Image.Image:
    """A parcel label: other numbers and bars."""
    panel = Image.new("RGB", (round(edge * 1.5), edge), (238, 236, 230))
    drawing = ImageDraw.Draw(panel)
    own = np.random.default_rng((int(rng.integers(2**31)), which))
    for row in range(2):
        text = "".join(str(d) for d in own.integers(0, 10, 7))
        drawing.text((edge * 0.1, edge * (0.06 + 0.22 * row)), text, fill=(20, 20, 20),
                     font_size=max(6, edge // 5))  # fmt: skip
    x = edge * 0.1
    while x < edge * 1.35:
        width = edge * own.uniform(0.02, 0.08)
        drawing.rectangle((x, edge * 0.55, x + width, edge * 0.92), fill=(15, 15, 15))
        x += width + edge * own.uniform(0.02, 0.08)
    return panel


def _door(edge: int, which: int, rng: Rng) -> Image.Image:
    """A panel that is closed, or shows the dark behind it."""
    shape = (edge, round(edge * rng.uniform(1.2, 2.0)))
    leaf = tuple(int(v) for v in rng.integers(110, 210, 3))
    panel = Image.new("RGB", shape, leaf)
    drawing = ImageDraw.Draw(panel)
    if which == 1:
        share = rng.uniform(0.6, 0.95)
        drawing.rectangle((0, 0, shape[0] * share, shape[1]), fill=(28, 26, 30))
    return panel


_DRAWINGS = {"lamp": _lamp, "gauge": _gauge, "display": _display, "label": _label, "door": _door}


# --- photographed --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of one fixed camera."""

    scene: str
    paths: Sequence[Path]
    small: Pixels
    """(N, h, w, 3): each frame, small and smoothed, to find out what changed."""


def read_footage(folder: Path) -> Footage:
    """Frames of a folder, at most ``MOST_FRAMES`` of them, evenly spread."""
    paths = sorted(folder.iterdir())
    paths = paths[:: -(-len(paths) // MOST_FRAMES)]
    small = []
    for path in paths:
        picture = Image.open(path).convert("RGB")
        picture = picture.resize((320, 240), Image.Resampling.BOX)
        small.append(np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2))))
    return Footage(f"static/{folder.name}", paths, np.stack(small))


def photographed(footages: Sequence[Footage]) -> dict[str, Iterator[Pair]]:
    """Pairs of frames by size of the largest changed part, ``same`` where nothing has changed; the
    cameras take turns in each."""
    found = [_by_size(footage) for footage in footages]
    names = dict.fromkeys(name for one in found for name in one)
    return {
        name: _in_turn(
            name,
            [(footage, one.get(name, [])) for footage, one in zip(footages, found, strict=True)],
        )
        for name in names
    }


def _in_turn(name: str, found: Sequence[tuple[Footage, list[tuple[int, int]]]]) -> Iterator[Pair]:
    kind = "photo_same" if name == "same" else "photo_change"
    for row in zip_longest(*(pairs for _, pairs in found)):
        for (footage, _), pair in zip(found, row, strict=True):
            if pair is not None:
                one, other = (frame(footage.paths[i]) for i in pair)
                yield Pair(kind, name, footage.scene, one, other)


def _by_size(footage: Footage) -> dict[str, list[tuple[int, int]]]:
    """Of random pairs, and of such as are close in time, where more is alike."""
    rng = np.random.default_rng((4, *footage.scene.encode()))
    count, small = len(footage.paths), footage.small[:, ::2, ::2]
    chosen = {tuple(sorted(rng.choice(count, 2, replace=False).tolist())) for _ in range(SOUGHT)}
    chosen |= {(one, one + step) for step in (1, 2) for one in range(count - step)}
    found: dict[str, list[tuple[int, int]]] = {}
    for one, other in rng.permutation(sorted(chosen)).tolist():
        detail = _bin(*largest_change(small[one], small[other]))
        if detail is not None:
            found.setdefault(detail, []).append((one, other))
    return found


def largest_change(one: Pixels, other: Pixels) -> tuple[float, float]:
    """Share of the frame of the largest connected changed part, and of all that changed."""
    changed = ndimage.binary_opening(_changed(one, other), iterations=1)
    labels, found = ndimage.label(ndimage.binary_closing(changed, iterations=2))
    if found == 0:
        return 0.0, 0.0
    sizes = np.bincount(labels.ravel())[1:]
    return float(sizes.max() / changed.size), float(sizes.sum() / changed.size)


def _bin(share: float, total: float) -> str | None:
    if total < 0.0001:
        return "same"
    if total > 0.5:
        return None
    for low, high in PHOTO_SIZES:
        if low <= share < high:
            return f"{100 * low:g} to {100 * high:g} %"
    return None


@cache
def frame(path: Path) -> bytes:
    """A photographed frame as a camera would send it."""
    out = io.BytesIO()
    quality = 85 + zlib.crc32(path.name.encode()) % 11
    Image.open(path).convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def _changed(one: Pixels, other: Pixels) -> NDArray[np.bool_]:
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=-1)
    changed: NDArray[np.bool_] = difference > CHANGED_LEVELS
    return changed


def cut_out(footage: Footage, count: int) -> Iterator[Image.Image]:
    """Photographed things that stand out against the median frame, with their outline as alpha."""
    background = np.median(footage.small[:: max(1, len(footage.small) // 40)], axis=0)
    rng = np.random.default_rng((5, *footage.scene.encode()))
    for index in rng.permutation(len(footage.paths)):
        if count <= 0:
            return
        mask = _changed(footage.small[index], background.astype(np.uint8))
        mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=3))
        labels, found = ndimage.label(ndimage.binary_opening(mask, iterations=3))
        if found == 0:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        part = labels == 1 + int(sizes.argmax())
        rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
        if not 0.006 < part.mean() < 0.2 or rows[0] == 0 or columns[0] == 0:
            continue
        if rows[-1] == part.shape[0] - 1 or columns[-1] == part.shape[1] - 1:
            continue
        picture = Image.open(footage.paths[index]).convert("RGB")
        alpha = Image.fromarray((part * 255).astype(np.uint8)).resize(
            picture.size, Image.Resampling.BILINEAR
        )
        picture.putalpha(alpha.filter(ImageFilter.MinFilter(3)))
        count -= 1
        yield picture
