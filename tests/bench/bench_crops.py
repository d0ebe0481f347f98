"""Crops as queries: small objects in large frames, by whole-frame vectors and by tiles.

    python tests/bench/run.py crops

Composites made of ../shared/data: a clothing photograph, scaled to 2 to 5 % of the frame, at a
random place of a background that holds none (Kodak and drone photographs). Every object is asked
for by its crop, and an answer is right when its frame holds an object of the same class; frames
made of the same photograph do not exist twice. Compared are

- centered: the photographs themselves, each asked for among the others;
- whole: the frames' vectors, as pixsift stores them;
- tiles: each frame by its nearest of G x G overlapping tiles, and with the whole frame among them.
"""

import argparse
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.report import publish, table
from pixsift.adapters.decode.pool import DecodeLimits
from pixsift.adapters.decode.recipe import decode_image
from pixsift.adapters.models.load import load_embedder
from pixsift.core.images import DecodedImage
from pixsift.core.retrieval import unit
from pixsift.ports import Embedder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FRAME = (1280, 800)
K = 10
Vectors = NDArray[np.float64]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--grids", default="3,5")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no real images: {DATA} is absent")
    chance = np.random.default_rng(11)
    photos = sorted((DATA / "photos" / "clothing").glob("*/*.jpg"))
    chosen = [photos[i] for i in np.sort(chance.permutation(len(photos))[: options.objects])]
    classes = np.array([path.parent.name for path in chosen])
    frames, crops = _composites(chosen, chance)
    embedder = load_embedder(os.environ.get("PIXSIFT_MODEL", "efficientnet-lite0"))
    centered = _embedded([Image.open(path).convert("RGB") for path in chosen], embedder)
    asked, whole = _embedded(crops, embedder), _embedded(frames, embedder)
    figures: dict[str, Any] = {"objects": len(chosen), "classes": len(set(classes.tolist()))}
    figures["chance"] = _chance(classes)
    figures["centered"] = _precision(1 - centered @ centered.T, classes)
    figures["whole"] = _precision(1 - asked @ whole.T, classes)
    lines = [["chance", 1, figures["chance"]], ["centered photographs", 1, figures["centered"]],
             ["whole frames", 1, figures["whole"]]]  # fmt: skip
    for grid in map(int, options.grids.split(",")):
        tiles = _embedded([tile for frame in frames for tile in _tiles(frame, grid)], embedder)
        distances = 1 - asked @ tiles.T
        nearest = distances.reshape(len(asked), len(frames), grid * grid).min(axis=2)
        figures[f"tiles {grid}x{grid}"] = _precision(nearest, classes)
        lines.append([f"{grid} x {grid} tiles", grid * grid, figures[f"tiles {grid}x{grid}"]])
        both = np.minimum(nearest, 1 - asked @ whole.T)
        figures[f"tiles {grid}x{grid} and whole"] = _precision(both, classes)
        lines.append([f"{grid} x {grid} tiles and the whole", grid * grid + 1,
                      figures[f"tiles {grid}x{grid} and whole"]])  # fmt: skip
    publish("crops", figures, table(["way", "vectors per frame", f"P@{K}"], lines))


def _composites(
    photos: list[Path], chance: np.random.Generator
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Frames with one object each, and the objects as they were cut out of them again."""
    grounds = sorted((DATA / "photos" / "kodak").glob("*.png"))
    grounds += sorted((DATA / "sequences" / "drone").glob("*.[jJ]*"))
    backgrounds = [_fill(Image.open(path).convert("RGB"), FRAME) for path in grounds]
    frames, crops = [], []
    for path in photos:
        frame = backgrounds[int(chance.integers(len(backgrounds)))].copy()
        photo = Image.open(path).convert("RGB")
        area = chance.uniform(0.02, 0.05) * FRAME[0] * FRAME[1]
        scale = (area / (photo.width * photo.height)) ** 0.5
        size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
        x, y = (int(chance.integers(0, f - s)) for f, s in zip(FRAME, size, strict=True))
        frame.paste(photo.resize(size, Image.Resampling.LANCZOS), (x, y))
        frames.append(frame)
        crops.append(frame.crop((x, y, x + size[0], y + size[1])))
    return frames, crops


def _fill(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = max(size[0] / image.width, size[1] / image.height)
    grown = image.resize((round(image.width * scale) + 1, round(image.height * scale) + 1))
    return grown.crop((0, 0, *size))


def _tiles(frame: Image.Image, grid: int) -> list[Image.Image]:
    """grid x grid squares that overlap by about half, over the whole frame."""
    side = round(2 * min(FRAME) / (grid + 1))
    places = [np.linspace(0, f - side, grid).round().astype(int).tolist() for f in FRAME]
    return [frame.crop((x, y, x + side, y + side)) for y in places[1] for x in places[0]]


def _embedded(images: list[Image.Image], embedder: Embedder) -> Vectors:
    """(N, D) unit rows, by the recipe that judges uploads, rounded as stored."""
    parts = []
    for start in range(0, len(images), embedder.batch_size):
        inputs = []
        for image in images[start : start + embedder.batch_size]:
            stream = BytesIO()
            image.save(stream, "PNG", compress_level=1)
            decoded = decode_image(stream.getvalue(), embedder.input_side, DecodeLimits())
            assert isinstance(decoded, DecodedImage), decoded
            inputs.append(decoded.model_input)
        parts.append(embedder.embed(inputs).embeddings)
    return unit(np.concatenate(parts).astype(np.float16).astype(np.float64))


def _precision(distances: Vectors, classes: NDArray[np.str_]) -> float:
    """Mean share of the k nearest that have the query's class; a query never finds itself."""
    distances = distances.copy()
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :K]
    return float((classes[nearest] == classes[:, None]).mean())


def _chance(classes: NDArray[np.str_]) -> float:
    same = (classes[:, None] == classes[None]).sum(axis=1) - 1
    return float((same / (len(classes) - 1)).mean())


if __name__ == "__main__":
    main()
