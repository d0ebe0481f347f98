"""Outcomes of changed scenes and of copies: ours compared with pHash, plain embedding and the rule
without the test for change.

    python tests/bench/run.py change                  300 pairs a figure
    python tests/bench/run.py change -- 1000          1,000 pairs a figure: half an hour of CPU

Needs ``../shared/data``, and for photographed changes and drives a folder of public sequences in
``PIXSIFT_CHANGE_WORLD`` (docs/thresholds.md says which). Limits were chosen on the scenes of
the *dev* half; the table tells both halves apart.
"""

import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench import change_world
from bench.change_world import Pair
from bench.report import publish, table
from pixsift.adapters.calibration.graded_edits import EDITS, edited_jpeg, reference_jpeg
from pixsift.adapters.calibration.labeled_pairs import list_pictures
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.models.load import load_embedder
from pixsift.core.calibration import wilson
from pixsift.core.dedup import NearRule, cosine_distance
from pixsift.core.images import DecodedImage
from pixsift.core.presets import REACH, apply
from pixsift.core.second_look import LookRule, compare
from pixsift.ports import Embedder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NARROW = 0.115
HASH_BITS = 10
"""imagededup's default."""
COSINE = 0.02
"""A peer's default for the embedding alone: a similarity of 0.98."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One pair, seen by every rule."""

    kind: str
    detail: str
    dev: bool
    same: dict[str, bool]
    """By rule: whether it takes the two for one."""


def main() -> None:
    """Print the table and write it to bench-results."""
    if not DATA.is_dir():
        print(f"left out: {DATA} is absent")  # noqa: T201
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    folder = os.environ.get("PIXSIFT_CHANGE_WORLD")
    world = Path(folder) if folder else None
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    pairs, measured = _pairs(world, count), list[Measured]()
    while part := list(islice(pairs, 32)):
        measured += _measure(part, embedder)
    rows = list(_rows(measured))
    text = table(list(rows[0]), [list(row.values()) for row in rows])
    publish("change", {"pairs_a_figure": count, "world": world is not None, "rows": rows}, text)


def _pairs(world: Path | None, count: int) -> Iterator[Pair]:
    scenes = change_world.base_scenes(DATA, world)
    yield from change_world.reshots(scenes, count)
    yield from change_world.states(scenes, count)
    yield from _edits(count)
    if world is None:
        print("left out: PIXSIFT_CHANGE_WORLD is not set; no cut-outs, no photographed changes")  # noqa: T201
        return
    cutouts = change_world.read_cutouts(world / "cutouts")
    yield from change_world.entering(scenes, cutouts, count, moving=False)
    yield from change_world.entering(scenes, cutouts, count, moving=True)
    folders = sorted((world / "static").iterdir())
    for one in folders:
        footage = change_world.read_footage(one)
        yield from change_world.photographed(footage, -(-count // len(folders)), count // 10)


def _edits(count: int) -> Iterator[Pair]:
    """Graded edits of photographs, as many pictures as give ``count`` pairs of each third."""
    pictures = list_pictures(DATA / "photos")
    for number, path in enumerate(pictures[:: max(1, len(pictures) * 9 // count)]):
        picture = change_world.open_picture(path)
        for edit in EDITS:
            kind = "caption" if edit.name == "overlay" else "edit"
            for grade in range(3):
                other = edited_jpeg(picture, edit, grade, number)
                yield Pair(kind, edit.name, path.name, reference_jpeg(picture), other)


def _measure(pairs: Iterable[Pair], embedder: Embedder) -> Iterator[Measured]:
    limits = DecodeLimits()
    decoded = [
        [decode_image(blob, embedder.input_side, limits) for blob in (pair.a, pair.b)]
        for pair in pairs
    ]
    for pair, images in zip(pairs, decoded, strict=True):
        sound = [image for image in images if isinstance(image, DecodedImage)]
        if len(sound) < 2:
            continue
        vectors = embedder.embed([image.model_input for image in sound]).embeddings
        a, b = vectors.astype(np.float16)
        distance, looks = cosine_distance(a, b), (sound[0].look, sound[1].look)
        same = {name: rule(distance, *looks) for name, rule in RULES.items()}
        yield Measured(pair.kind, pair.detail, zlib.crc32(pair.scene.encode()) % 2 == 0, same)


def _ours(preset: str) -> Callable[[float, bytes, bytes], bool]:
    epsilon, look = apply(
        preset, narrow=NARROW, second_look=LookRule.without_change().to_json(), calibrated=True
    )
    rule = NearRule(epsilon, LookRule.from_json(look or {}))
    return lambda distance, a, b: rule.verdict(distance, a, b) is not None


_BEFORE = NearRule(NARROW, LookRule.without_change())
_WIDE = NearRule(REACH, LookRule.without_change())
RULES: dict[str, Callable[[float, bytes, bytes], bool]] = {
    "ours": _ours("moving_camera"),
    "static_camera": _ours("static_camera"),
    "photos": _ours("photos"),
    "before": lambda d, a, b: _BEFORE.verdict(d, a, b) is not None,
    "before, wide": lambda d, a, b: _WIDE.verdict(d, a, b) is not None,
    "cosine 0.98": lambda d, a, b: d <= COSINE,
    "pHash 10": lambda d, a, b: compare(a, b).hash_bits <= HASH_BITS,
}


def _rows(measured: list[Measured]) -> Iterator[dict[str, Any]]:
    for kind, detail in sorted({(m.kind, m.detail) for m in measured}):
        some = [m for m in measured if (m.kind, m.detail) == (kind, detail)]
        held = [m for m in some if not m.dev]
        row: dict[str, Any] = {"set": kind, "size": detail, "pairs": len(some)}
        for name in RULES:
            row[name] = round(sum(m.same[name] for m in some) / len(some), 4)
        found = sum(m.same["ours"] for m in some)
        low, high = wilson(found, len(some))
        row["ours, 95 %"] = f"{low:.3f} to {high:.3f}"
        row["ours, held out"] = round(sum(m.same["ours"] for m in held) / max(1, len(held)), 4)
        yield row


if __name__ == "__main__":
    main()
