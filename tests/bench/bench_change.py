"""Outcomes of changed scenes and of copies: ours compared with pHash, plain embedding and the rule
without the test for change.

    python tests/bench/run.py change                  300 pairs a figure
    python tests/bench/run.py change -- 1000          1,000 pairs a figure
    python tests/bench/run.py change -- 1000 10       as many as 10 minutes allow, besides a
                                                      minute that finds photographed pairs

Needs ``../shared/data``, and for photographed changes and cut-outs a folder of public sequences in
``PIXSIFT_CHANGE_WORLD`` (docs/thresholds.md says which). The figures grow in turn, so that a run
that ends early has nearly as many pairs of each.

The peers need the distance of every pair, ours only of those that its looks take for one. So the
peers see the first ``PEERS`` pairs of a figure whose pairs have changed, and all pairs of the
others.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import change_world
from bench.change_world import Pair
from bench.report import publish, table
from pixsift.adapters.calibration.calibrations import UNCALIBRATED_EPSILON
from pixsift.adapters.calibration.graded_edits import EDITS, edited_jpeg, reference_jpeg
from pixsift.adapters.calibration.labeled_pairs import list_pictures
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.models.load import load_embedder
from pixsift.core.calibration import wilson
from pixsift.core.dedup import NearRule, cosine_distance
from pixsift.core.images import DecodedImage
from pixsift.core.presets import apply
from pixsift.core.second_look import LookRule, compare_many
from pixsift.ports import Embedder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NARROW = 0.115
HASH_BITS = 10
"""imagededup's default."""
COSINE = 0.02
"""A peer's default for the embedding alone: a similarity of 0.98."""
PEERS = 120
BLOCK = 40


@dataclass(slots=True)
class Figure:
    """One line of the table, as it grows."""

    name: str
    is_changed: bool
    pairs: Iterator[Pair]
    measured: int = 0
    scenes: set[str] = field(default_factory=set)
    answers: dict[str, list[bool]] = field(default_factory=dict)
    """By rule: of each pair, whether it takes the two for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A decoded file, and its vector once it was needed."""

    image: DecodedImage
    vectors: list[NDArray[np.float16]]


def main() -> None:
    """Print the table and write it to bench-results."""
    if not DATA.is_dir():
        print(f"left out: {DATA} is absent")  # noqa: T201
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seconds = 60 * float(sys.argv[2]) if len(sys.argv) > 2 else float("inf")
    folder = os.environ.get("PIXSIFT_CHANGE_WORLD")
    world = Path(folder) if folder else None
    figures = _figures(world, count)
    measure = Measure(load_embedder("efficientnet-lite0", device="cpu"))
    _grow(figures, measure, time.monotonic() + seconds)
    rows = [_row(figure) for figure in figures if figure.measured]
    text = table(list(rows[0]), [list(row.values()) for row in rows])
    publish("change", {"pairs_a_figure": count, "world": world is not None, "rows": rows}, text)


def _grow(figures: Sequence[Figure], measure: "Measure", end: float) -> None:
    growing = list(figures)

    def grow(figure: Figure) -> None:
        if time.monotonic() > end:
            return
        if pairs := list(islice(figure.pairs, BLOCK)):
            measure.add(figure, pairs)
        else:
            growing.remove(figure)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while growing and time.monotonic() < end:
            list(threads.map(grow, list(growing)))
            done = ", ".join(str(figure.measured) for figure in figures)
            print(f"pairs so far: {done}", file=sys.stderr, flush=True)  # noqa: T201


def _figures(world: Path | None, count: int) -> list[Figure]:
    scenes, references = change_world.base_scenes(DATA, world), change_world.References()
    states = {cells: change_world.states(scenes, count, cells) for cells in (4, 2)}
    figures = [
        Figure("static scene taken again", False, change_world.reshots(scenes, references, count)),
        Figure("graded edits without captions", False, _edits(count, captions=False)),
        Figure("captions", False, _edits(count // 4, captions=True)),
        Figure("state changes of 4 cells or more", True, states[4]),
        Figure("state changes of 2 to 4 cells", True, states[2]),
    ]
    if world is None:
        print("left out: PIXSIFT_CHANGE_WORLD is not set; no cut-outs, no photographed changes")  # noqa: T201
        return figures
    cutouts = change_world.read_cutouts(world / "cutouts")
    for moving, camera in ((False, "still"), (True, "moved")):
        for sizes, words in (((0.01,), "1 %"), (change_world.LARGE_OBJECTS, "2, 5 and 10 %")):
            pairs = change_world.entering(
                scenes, references, cutouts, count, sizes=sizes, moving=moving
            )
            figures.append(Figure(f"object of {words} enters, camera {camera}", True, pairs))
    footages = [change_world.read_footage(one) for one in sorted((world / "static").iterdir())]
    for name, found in sorted(change_world.photographed(footages).items()):
        is_same = name == "same"
        words = "nothing clearly changed" if is_same else f"changed part of {name}"
        figures.append(Figure(f"photographed: {words}", not is_same, islice(found, count)))
    return figures


def _edits(count: int, *, captions: bool) -> Iterator[Pair]:
    """Graded edits of photographs, evenly spread over them."""
    edits = [edit for edit in EDITS if (edit.name == "overlay") == captions]
    pictures = list_pictures(DATA / "photos")
    number = -(-count // (3 * len(edits)))
    made = (
        Pair("caption" if captions else "edit", edit.name, path.name, reference,
             edited_jpeg(picture, edit, grade, index))
        for index, path in enumerate(pictures[:: max(1, len(pictures) // number)])
        for picture in [change_world.open_picture(path)]
        for reference in [reference_jpeg(picture)]
        for edit in edits
        for grade in range(3)
    )  # fmt: skip
    return islice(made, count)


class Measure:
    """Asks every rule; files that come again are decoded and embedded once. Threads may share it,
    each with figures of its own."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._limits = DecodeLimits()
        self._one_at_a_time = Lock()
        self._seen: dict[bytes, Seen | None] = {}

    def add(self, figure: Figure, pairs: Sequence[Pair]) -> None:
        """Judge ``pairs`` and add the answers to ``figure``."""
        seen = [(pair, self._decoded(pair.a), self._decoded(pair.b)) for pair in pairs]
        sound = [(pair.scene, a, b) for pair, a, b in seen if a is not None and b is not None]
        looks = [(a.image.look, b.image.look) for _, a, b in sound]
        agreed = OURS.look.agree([(0.0, *pair) for pair in looks]) if OURS.look else []
        for_peers = not figure.is_changed or figure.measured < PEERS
        self._embed(
            chain.from_iterable(
                (a, b) for (_, a, b), same in zip(sound, agreed, strict=True) if same or for_peers
            )
        )
        distances = [
            cosine_distance(a.vectors[0], b.vectors[0]) if a.vectors and b.vectors else None
            for _, a, b in sound
        ]
        known = [i for i, distance in enumerate(distances) if distance is not None]
        for name, rule in RULES.items():
            if name in BOUNDED or for_peers:
                same = [False] * len(sound)
                asked = [(distances[i] or 0.0, *looks[i]) for i in known]
                for i, verdict in zip(known, rule.verdicts(asked), strict=True):
                    same[i] = verdict is not None
                figure.answers.setdefault(name, []).extend(same)
        if for_peers:
            near = [distance is not None and distance <= COSINE for distance in distances]
            figure.answers.setdefault("cosine 0.98", []).extend(near)
        bits = [signals.hash_bits for signals in compare_many(looks)]
        figure.answers.setdefault("pHash 10", []).extend(n <= HASH_BITS for n in bits)
        figure.scenes.update(scene for scene, _, _ in sound)
        figure.measured += len(sound)

    def _decoded(self, blob: bytes) -> Seen | None:
        if blob not in self._seen:
            image = decode_image(blob, self._embedder.input_side, self._limits)
            self._seen[blob] = Seen(image, []) if isinstance(image, DecodedImage) else None
        return self._seen[blob]

    def _embed(self, wanted: Iterable[Seen]) -> None:
        new = [seen for seen in dict.fromkeys(wanted) if not seen.vectors]
        if not new:
            return
        with self._one_at_a_time:
            found = self._embedder.embed([seen.image.model_input for seen in new]).embeddings
        for seen, vector in zip(new, found.astype(np.float16), strict=True):
            seen.vectors.append(vector)


def _preset(name: str, *, narrow: float = NARROW, calibrated: bool = True) -> NearRule:
    epsilon, look = apply(
        name, narrow=narrow, second_look=LookRule.without_change().to_json(), calibrated=calibrated
    )
    return NearRule(epsilon, LookRule.from_json(look or {}))


OURS = _preset("moving_camera")
RULES = {
    "ours": OURS,
    "static_camera": _preset("static_camera"),
    "not calibrated": _preset("moving_camera", narrow=UNCALIBRATED_EPSILON, calibrated=False),
    "photos": _preset("photos"),
    "before": NearRule(NARROW, LookRule.without_change()),
}
BOUNDED = ("ours", "static_camera", "not calibrated")
"""The look of ``ours`` accepts each pair that one of these accepts; where it refuses, the distance
is not needed."""


def _row(figure: Figure) -> dict[str, Any]:
    ours = figure.answers["ours"]
    low, high = wilson(sum(ours), len(ours))
    row: dict[str, Any] = {
        "set": figure.name, "pairs": figure.measured, "scenes": len(figure.scenes),
        "ours": f"{np.mean(ours):.3f} ({low:.3f} to {high:.3f})",
    }  # fmt: skip
    for name in (*list(RULES)[1:], "cosine 0.98", "pHash 10"):
        answers = figure.answers.get(name, [])
        row[name] = f"{np.mean(answers):.3f}" if answers else "-"
    return row


if __name__ == "__main__":
    main()
