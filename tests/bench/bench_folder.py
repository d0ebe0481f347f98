"""A folder of pictures: the whole of ``curate`` compared with decoding alone and the model alone.

The same photographs in the same process, in turn: decode all, then embed all (whose sum no tool
that looks at every pixel can beat with these two), and the run that also reads, judges, searches
and commits each into a fresh ledger. And the peak of memory from a small folder to a large one,
with the stub model, so that whatever grows is ours.

    python tests/bench/run.py folder                 300 photographs, 1,000 and 10,000 files
    python tests/bench/run.py folder -- 1000 50000   photographs, files of the large folder
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.report import publish, table
from pixsift import curation
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.models.load import load_embedder
from pixsift.core.images import DecodedImage
from pixsift.operations.curate import Tools, Wishes
from pixsift.operations.embedder import ModelChoice

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"
MODEL = "efficientnet-lite0"
RUNS = 3
_AT_ONCE = 16


def main() -> None:
    """Measure, print and store."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["memory"]:
        _memory(Path(arguments[1]), Path(arguments[2]))
        return
    if not PHOTOS.is_dir():
        sys.exit(f"no real images: {PHOTOS} is absent")
    photographs = int(arguments[0]) if arguments else 300
    large = int(arguments[1]) if len(arguments) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as scratch:
        place = Path(scratch)
        place.chmod(0o755)
        figures = _speed(place, photographs) | _growth(place, (1_000, large))
    rows = [(name, f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
            for name, value in figures.items()]  # fmt: skip
    publish("folder", figures, table(("figure", "value"), rows))


def _speed(place: Path, count: int) -> dict[str, Any]:
    folder = place / "photos"
    _photographs(folder, count)
    embedder = load_embedder(MODEL, device="cpu")
    blobs = [path.read_bytes() for path in sorted(folder.iterdir())]
    seconds: dict[str, list[float]] = {"decode": [], "embed": [], "curate": []}
    with DecoderPool(embedder.input_side, workers=2) as decoder:
        for run in range(RUNS + 1):
            began = time.perf_counter()
            decoded = _decode(decoder, blobs)
            half = time.perf_counter()
            _embed(embedder, decoded)
            end = time.perf_counter()
            judging = _judge(folder, place / f"ledger-{run}", MODEL)
            if run:  # the first one warms up
                seconds["decode"].append(half - began)
                seconds["embed"].append(end - half)
                seconds["curate"].append(judging)
    ratios = [(d + e) / c for d, e, c in zip(*seconds.values(), strict=True)]
    return {
        "photographs": count,
        "decode, images/s": count / float(np.median(seconds["decode"])),
        "model, images/s": count / float(np.median(seconds["embed"])),
        "curate, images/s": count / float(np.median(seconds["curate"])),
        "curate as a share of decoding plus model": float(np.median(ratios)),
        "its smallest": min(ratios),
        "its largest": max(ratios),
    }


def _growth(place: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    figures = {}
    for size in sizes:
        folder = place / f"many-{size}"
        folder.mkdir()
        for number in range(size):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((160, 120)).save(folder / f"{number}.jpg")
        done = subprocess.run(
            [sys.executable, __file__, "memory", str(folder), str(place / f"store-{size}")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        figures[f"peak memory at {size:,} files, MiB"] = float(done.stdout)
    return figures


def _memory(folder: Path, store: Path) -> None:
    _judge(folder, store, "stub", out=folder.with_name(f"{folder.name}-out"))
    # Of this program alone: what getrusage tells began with the size of the process that forked it.
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    sys.stdout.write(f"{int(peak.split()[1]) / 1024:.1f}\n")


def _judge(folder: Path, store: Path, model: str, *, out: Path | None = None) -> float:
    """Seconds from the first file to the last decision; starting model and server comes before."""
    began: dict[str, float] = {}
    tools = Tools(
        model=ModelChoice(model),
        logger=curation.quiet_logger(),
        say=lambda step: began.update({step: time.perf_counter()}),
        progress=lambda tally: began.update(end=time.perf_counter()),
    )
    curation.run(folder, FolderLedger(store), Wishes(out=out), tools, threading.Event())
    return began["end"] - began["judging"]


def _decode(decoder: DecoderPool, blobs: list[bytes]) -> list[DecodedImage]:
    found: list[DecodedImage] = []
    for start in range(0, len(blobs), _AT_ONCE):
        some = decoder.decode(blobs[start : start + _AT_ONCE])
        found += [each for each in some if isinstance(each, DecodedImage)]
    return found


def _embed(embedder: Any, images: list[DecodedImage]) -> None:
    for start in range(0, len(images), embedder.batch_size):
        embedder.embed([each.model_input for each in images[start : start + embedder.batch_size]])


def _photographs(folder: Path, count: int) -> None:
    """Real photographs at 1280 x 960, each shifted a little: no two have the same bytes."""
    folder.mkdir()
    sources = sorted(PHOTOS.rglob("*.png")) + sorted(PHOTOS.rglob("*.jpg"))
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as source:
            shift = number // len(sources)
            box = (shift, shift, source.width, source.height)
            made = source.convert("RGB").crop(box).resize((1280, 960))
        made.save(folder / f"{number:05}.jpg", quality=90)


if __name__ == "__main__":
    main()
