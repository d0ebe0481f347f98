"""Builds labeled pairs from a folder of pictures, by the decoder and embedder of an upload.

Positives: each picture against graded edits of itself. Distinct: every pair of different pictures,
and frames of a sequence that are far enough apart. Recolored pictures are kept apart from both:
they are artificial, so they must not count in a precision over real pairs. The folder is trusted:
the edits are made here, with Pillow, before the decoder's child processes see any bytes.
"""

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixsift.adapters.calibration.graded_edits import (
    EDITS,
    RECOLORINGS,
    edited_jpeg,
    recolored_jpeg,
    reference_jpeg,
)
from pixsift.adapters.decode.color import to_srgb, transposed
from pixsift.adapters.decode.exif import read_exif
from pixsift.adapters.decode.formats import RefusedError
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.decode.samples import bits_per_channel, deep_frame
from pixsift.core.calibration import LabeledPairs
from pixsift.core.images import DecodedImage, Pixels
from pixsift.core.second_look import LookRule
from pixsift.errors import RequestError
from pixsift.ports import Embedder

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
LONGEST = 1024
"""Pictures are scaled down to this before they are edited; the decoder would do it anyway."""
NEAR = 0.4
"""Distinct pairs beyond this distance are counted and not kept."""
NOISE_IMAGES = 64
PER_EDITED = 3 * len(EDITS) + len(RECOLORINGS)
"""Images measured per edited picture, in addition to itself."""
RECOLORED = "recolored"
BURST_GAPS = (1, 2, 3, 5, 10, 20, 40)


@dataclass(slots=True)
class Measured:
    """References of all pictures, in order; edits follow those pictures that were edited."""

    rows: list[NDArray[np.float16]] = field(default_factory=list)
    looks: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    labels: list[tuple[int, str, int]] = field(default_factory=list)
    """(picture, edit or "reference", grade); or (picture, RECOLORED, degrees)."""
    inputs: list[Pixels] = field(default_factory=list)
    """What the embedder saw of the first references, to measure its noise on."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a picture sits in its sequence."""

    sequence: str
    number: int


def list_pictures(folder: Path) -> list[Path]:
    """Picture files under ``folder``, in order of path. Raises UserError when there are none."""
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise RequestError(f"no pictures under {folder}: expected {', '.join(sorted(SUFFIXES))}")
    return found


def frames_of(paths: Iterable[Path], root: Path) -> list[Frame]:
    """Sequence: the folder. Number: the last digits of the name, or the place in the folder."""
    frames, places = [], dict[str, int]()
    for path in paths:
        sequence = str(path.parent.relative_to(root))
        places[sequence] = places.get(sequence, -1) + 1
        digits = re.findall(r"\d+", path.stem)
        frames.append(Frame(sequence, int(digits[-1]) if digits else places[sequence]))
    return frames


class Laboratory:
    """Measures pictures and their edits with one embedder."""

    def __init__(
        self,
        embedder: Embedder,
        decoder: DecoderPool,
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._embedder = embedder
        self._decoder = decoder
        self._progress = progress
        self.measured = Measured()
        self._waiting: list[tuple[bytes, tuple[int, str, int]]] = []

    def add(self, picture: int, path: Path, *, edit: bool) -> None:
        """Measure one picture, with all its edits when ``edit``."""
        image = _open(path)
        self._queue(reference_jpeg(image), (picture, "reference", -1))
        for kind in EDITS if edit else ():
            for grade in range(3):
                self._queue(edited_jpeg(image, kind, grade, picture), (picture, kind.name, grade))
        for degrees in RECOLORINGS if edit else ():
            self._queue(recolored_jpeg(image, degrees), (picture, RECOLORED, degrees))

    def finish(self) -> Measured:
        """Measure the images that still wait."""
        self._flush()
        return self.measured

    def _queue(self, blob: bytes, label: tuple[int, str, int]) -> None:
        self._waiting.append((blob, label))
        if len(self._waiting) >= self._embedder.batch_size:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        decoded = self._decoder.decode([blob for blob, _ in waiting])
        sound = [
            (item, label)
            for item, (_, label) in zip(decoded, waiting, strict=True)
            if isinstance(item, DecodedImage)
        ]
        inputs: list[Pixels] = [item.model_input for item, _ in sound]
        result = self._embedder.embed(inputs)
        for row, index in zip(result.embeddings, result.kept_indices.tolist(), strict=True):
            item, label = sound[index]
            self.measured.rows.append(row.astype(np.float16))
            self.measured.looks.append(item.look)
            self.measured.hashes.append(item.pixel_sha256)
            self.measured.labels.append(label)
            if label[1] == "reference" and len(self.measured.inputs) < NOISE_IMAGES:
                self.measured.inputs.append(item.model_input)
        self._progress(len(waiting))


def label_pairs(
    measured: Measured,
    rule: LookRule,
    *,
    frames: Sequence[Frame | None],
    sequence_gap: int,
) -> LabeledPairs:
    """All pairs with a label, from what was measured.

    frames: per picture, its place in a sequence or None. Frames of one sequence less than
    ``sequence_gap`` apart carry no label, and neither do pictures with the same pixels.
    """
    unit = _unit(measured.rows)
    references = {p: i for i, (p, kind, _) in enumerate(measured.labels) if kind == "reference"}
    kept: list[tuple[float, bool, bool, str, int, int, int]] = []
    for index, (picture, kind, grade) in enumerate(measured.labels):
        if kind in ("reference", RECOLORED) or picture not in references:
            continue
        other = references[picture]
        distance = float(1 - unit[index] @ unit[other])
        agrees = rule.agrees(distance, measured.looks[index], measured.looks[other])
        kept.append((distance, agrees, True, kind, grade, picture, picture))
    far = 0
    pictures = sorted(references)
    rows = unit[[references[p] for p in pictures]]
    for place, picture in enumerate(pictures[:-1]):
        distances = 1 - rows[place + 1 :] @ rows[place]
        for other, distance in zip(pictures[place + 1 :], distances.tolist(), strict=True):
            a, b = references[picture], references[other]
            if measured.hashes[a] == measured.hashes[b]:
                continue
            if _same_moment(frames[picture], frames[other], sequence_gap):
                continue
            if distance > NEAR:
                far += 1
                continue
            agrees = rule.agrees(distance, measured.looks[a], measured.looks[b])
            kept.append((distance, agrees, False, "distinct", -1, picture, other))
    columns = list(zip(*kept, strict=True)) if kept else [()] * 7
    return LabeledPairs(
        np.array(columns[0], np.float64),
        np.array(columns[1], np.bool_),
        np.array(columns[2], np.bool_),
        tuple(columns[3]),
        np.array(columns[4], np.intp),
        np.array(columns[5], np.intp),
        np.array(columns[6], np.intp),
        far_distinct=far,
    )


def burst_report(
    measured: Measured, rule: LookRule, frames: Sequence[Frame | None], epsilon: float
) -> list[dict[str, float | int | str]]:
    """Outcomes of frames of one sequence by their gap: neither right nor wrong."""
    unit = _unit(measured.rows)
    places: dict[tuple[str, int], int] = {}
    for index, (picture, kind, _) in enumerate(measured.labels):
        frame = frames[picture]
        if kind == "reference" and frame is not None:
            places[frame.sequence, frame.number] = index
    report: list[dict[str, float | int | str]] = []
    for sequence in sorted({name for name, _ in places}):
        for gap in BURST_GAPS:
            pairs = [
                (index, places[sequence, number + gap])
                for (name, number), index in places.items()
                if name == sequence and (sequence, number + gap) in places
            ]
            if not pairs:
                continue
            distances = [float(1 - unit[a] @ unit[b]) for a, b in pairs]
            merged = [
                d <= epsilon and rule.agrees(d, measured.looks[a], measured.looks[b])
                for d, (a, b) in zip(distances, pairs, strict=True)
            ]
            report.append(
                {
                    "sequence": sequence,
                    "gap": gap,
                    "pairs": len(pairs),
                    "median_distance": float(np.median(distances)),
                    "within_epsilon": float(np.mean([d <= epsilon for d in distances])),
                    "duplicates": float(np.mean(merged)),
                }
            )
    return report


def recolor_report(
    measured: Measured, rule: LookRule, epsilon: float
) -> list[dict[str, float | int]]:
    """How often a recolored picture counts as a copy, by the turn of its hues."""
    unit = _unit(measured.rows)
    references = {p: i for i, (p, kind, _) in enumerate(measured.labels) if kind == "reference"}
    pairs: dict[int, list[tuple[float, bool]]] = {}
    for index, (picture, kind, degrees) in enumerate(measured.labels):
        if kind == RECOLORED and picture in references:
            other = references[picture]
            distance = float(1 - unit[index] @ unit[other])
            agrees = rule.agrees(distance, measured.looks[index], measured.looks[other])
            pairs.setdefault(degrees, []).append((distance, agrees))
    return [
        {
            "degrees": degrees,
            "pairs": len(found),
            "within_epsilon": float(np.mean([d <= epsilon for d, _ in found])),
            "duplicates": float(np.mean([d <= epsilon and agrees for d, agrees in found])),
        }
        for degrees, found in sorted(pairs.items())
    ]


def measure_noise(embedder: Embedder, images: Sequence[Pixels], *, seed: int = 0) -> float:
    """Largest distance of an image to itself across batch sizes 1, 7, 32 and positions.

    Over the stored halves, like every other distance. images: each (S, S, 3) uint8.
    """
    alone = [embedder.embed([image]).embeddings[0] for image in images]
    expected = _unit([row.astype(np.float16) for row in alone])
    worst = 0.0
    for size in (7, 32):
        order = np.random.default_rng((seed, size)).permutation(len(images))
        for start in range(0, len(order), size):
            chosen = order[start : start + size].tolist()
            result = embedder.embed([images[i] for i in chosen])
            rows = _unit([row.astype(np.float16) for row in result.embeddings])
            where = [chosen[k] for k in result.kept_indices.tolist()]
            worst = max(worst, float((1 - (rows * expected[where]).sum(axis=1)).max()))
    return worst


def _open(path: Path) -> Image.Image:
    """Upright and in 8-bit sRGB, by the decoder's own rules, but large. Raises UserError."""
    try:
        blob = path.read_bytes()
        with Image.open(BytesIO(blob)) as image:
            image.draft("RGB", (LONGEST, LONGEST))
            image.load()
            orientation = read_exif(image, []).orientation
            bits = bits_per_channel(image, blob)
            deep = deep_frame(image, blob, bits)
            srgb = to_srgb(image, image.info, bits, [], deep).image
            picture = transposed(srgb, orientation)
    except (
        OSError, ValueError, SyntaxError, EOFError, struct.error, RefusedError,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise RequestError(f"{path} cannot be decoded ({error}): remove it") from error
    picture.thumbnail((LONGEST, LONGEST))
    return picture


def _unit(rows: Sequence[NDArray[np.float16]]) -> NDArray[np.float64]:
    matrix = np.array(rows, np.float64)
    unit: NDArray[np.float64] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


def _same_moment(a: Frame | None, b: Frame | None, gap: int) -> bool:
    if a is None or b is None or a.sequence != b.sequence:
        return False
    return abs(a.number - b.number) < gap
