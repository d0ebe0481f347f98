"""One folder of pictures, curated by pixsift and looked at by the tools people know.

Real photographs with planted repeats (copied, saved again, made smaller, brighter, cropped),
dark, blurred and broken pictures, and the frames of a film. Every tool runs with its defaults in a
process of its own; what it calls the same and what it flags is compared with what was planted.

    python tests/bench/run.py folder_peers

CleanVision is in the environment of the peers. imagededup and fastdup want packages of their own
(torch; old versions of numpy and Pillow): name further interpreters in
``PIXSIFT_BENCH_FOLDER_PEERS``, separated by colons. A tool that none of them has is left out.
"""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter

from bench.report import publish, table
from pixsift import curation
from pixsift.adapters.ledger.curation import FolderRows
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.postgres.database import Database
from pixsift.operations.curate import Tools, Wishes, collection_of
from pixsift.operations.embedder import ModelChoice

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PEER = Path(__file__).parent / "peers" / "folder_tools.py"
PEERS = ("cleanvision", "imagededup", "fastdup")
MODEL = "efficientnet-lite0"
_OF_EACH = 40

Edit = Callable[[Image.Image], Image.Image]
REPEATS: dict[str, tuple[Edit, int]] = {
    "saved again at quality 60": (lambda image: image, 60),
    "half the size": (lambda image: image.reduce(2), 85),
    "a quarter brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.25), 90),
    "cropped by 5 % at each side": (lambda image: image.crop(_inner(image.size, 0.05)), 90),
}
"""Name -> how it is made, and the JPEG quality."""
FLAWS: dict[str, tuple[Edit, str]] = {
    "dark (5 % of the light)": (lambda image: image.point([v // 20 for v in range(256)] * 3),
                                "dark"),
    "blurred (sigma 3.5)": (lambda image: image.filter(ImageFilter.GaussianBlur(3.5)), "blurred"),
}  # fmt: skip
COPIED = "copied"


@dataclass(slots=True)
class Found:
    """What a tool said of the folder."""

    tool: str
    seconds: float
    partners: dict[str, set[str]] = field(default_factory=dict)
    """File -> files it calls the same."""
    flags: Mapping[str, set[str]] = field(default_factory=dict)
    """File -> "dark", "blurred"."""
    unreadable: set[str] = field(default_factory=set)


@dataclass(slots=True)
class World:
    """The folder, and the truth about it."""

    folder: Path
    originals: dict[str, str] = field(default_factory=dict)
    """File -> the photograph it was made from; of frames nothing is known."""
    planted: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> files."""
    files: int = 0


def main() -> dict[str, Any]:
    """Make the folder, ask every tool, compare."""
    if not DATA.is_dir():
        raise SystemExit(f"no real images: {DATA} is absent")
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as scratch:
        place = Path(scratch)
        place.chmod(0o755)
        world = make_world(place / "pictures")
        found = [_ours(world, place, "moving_camera"), _ours(world, place, "photos")]
        left_out = {}
        for name in PEERS:
            peer = _peer(name, world.folder, place)
            if isinstance(peer, str):
                left_out[name] = peer
            else:
                found.append(peer)
    columns = [_column(world, each) for each in found]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    figures = {
        "files": world.files, "left_out": left_out,
        "tools": {each.tool: column for each, column in zip(found, columns, strict=True)},
    }  # fmt: skip
    text = table(["", *(each.tool for each in found)], rows)
    text += "".join(f"\n\n{name}: left out, {why}" for name, why in left_out.items())
    publish("folder_peers", figures, text)
    return figures


def make_world(folder: Path) -> World:
    """Photographs, planted repeats and flaws, frames of a film, broken files."""
    world = World(folder)
    photos = [*sorted(DATA.glob("photos/kodak/*.png")), *sorted(DATA.glob("photos/clothing/*/*"))]
    (folder / "photos").mkdir(parents=True)
    taken = {path: f"photos/{path.parent.name}-{path.name}" for path in photos}
    for path, name in taken.items():
        shutil.copyfile(path, folder / name)
        world.originals[name] = name
    every = len(photos) // _OF_EACH
    for number, (kind, make) in enumerate(_plants()):
        (folder / f"planted-{number}").mkdir()
        of_each = _OF_EACH if kind in REPEATS or kind == COPIED else _OF_EACH // 2
        for path in photos[number::every][:of_each]:
            name = f"planted-{number}/{path.stem}{path.suffix if kind == COPIED else '.jpg'}"
            make(path, folder / name)
            world.originals[name] = taken[path]
            world.planted.setdefault(kind, []).append(name)
    (folder / "frames").mkdir()
    for path in sorted(DATA.glob("sequences/tennis/*.jpg")):
        shutil.copyfile(path, folder / "frames" / path.name)
    (folder / "broken").mkdir()
    for path in photos[-5:]:
        whole = path.read_bytes()
        (folder / "broken" / f"{path.stem}.jpg").write_bytes(whole[: len(whole) // 3])
        world.planted.setdefault("broken", []).append(f"broken/{path.stem}.jpg")
    world.files = sum(1 for path in folder.rglob("*") if path.is_file())
    return world


def _plants() -> Iterable[tuple[str, Callable[[Path, Path], object]]]:
    yield COPIED, shutil.copyfile
    for kind, (edit, quality) in REPEATS.items():
        yield kind, _saved(edit, quality)
    for kind, (edit, _) in FLAWS.items():
        yield kind, _saved(edit, 90)


def _saved(edit: Edit, quality: int) -> Callable[[Path, Path], None]:
    def make(source: Path, target: Path) -> None:
        with Image.open(source) as image:
            edit(image.convert("RGB")).save(target, "JPEG", quality=quality)

    return make


def _inner(size: tuple[int, int], share: float) -> tuple[int, int, int, int]:
    width, height = size
    across, down = int(width * share), int(height * share)
    return across, down, width - across, height - down


def _ours(world: World, place: Path, preset: str) -> Found:
    began: dict[str, float] = {}
    tools = Tools(
        model=ModelChoice(MODEL),
        logger=curation.quiet_logger(),
        say=lambda step: began.update({step: time.perf_counter()}),
        progress=lambda tally: began.update(end=time.perf_counter()),
    )
    store = FolderLedger(place / f"ledger-{preset}")
    curation.run(world.folder, store, Wishes(preset=preset), tools, threading.Event())
    found = Found(f"pixsift {preset}", began["end"] - began["judging"])
    with store, Database(store.url) as database:
        collection = collection_of(database, world.folder.resolve())
        assert collection is not None
        rows = list(FolderRows(database, collection.collection_id).files())
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row.representative or row.key, set()).add(row.key)
    for group in groups.values():
        for name in group:
            found.partners[name] = group - {name}
    names = {"dark": "dark", "black": "dark", "blurry": "blurred", "blurred": "blurred"}
    found.flags = {
        row.key: {names[flag] for flag in [*row.flags, row.reason] if flag in names} for row in rows
    }
    found.unreadable = {row.key for row in rows if row.reason in ("corrupt", "truncated")}
    return found


def _peer(name: str, folder: Path, place: Path) -> Found | str:
    """What a tool found, or why there is no answer."""
    named = [os.environ.get("PIXSIFT_BENCH_PEERS", ""),
             *os.environ.get("PIXSIFT_BENCH_FOLDER_PEERS", "").split(os.pathsep)]  # fmt: skip
    why = "no interpreter of peers"
    for python in filter(None, named):
        out = place / f"{name}.json"
        done = subprocess.run(
            [python, str(PEER), name, str(folder), str(out), str(place / f"{name}-work")],
            env={"PATH": os.environ["PATH"], "HOME": str(place), "SENTRY_OPT_OUT": "1"},
            capture_output=True, text=True, check=False, timeout=1800,
        )  # fmt: skip
        if done.returncode == 0 and out.exists():
            return _read(json.loads(out.read_text()))
        if done.returncode != 3:  # 3: this interpreter does not have it
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return f"it failed: {' '.join(last)[:300]}"
        why = "not installed"
    return why


def _read(told: Mapping[str, Any]) -> Found:
    found = Found(f"{told['tool']} {told['version']}", told["seconds"])
    for one, other in told["pairs"]:
        found.partners.setdefault(one, set()).add(other)
        found.partners.setdefault(other, set()).add(one)
    found.flags = {name: set(flags) for name, flags in told["flags"].items()}
    found.unreadable = set(told["unreadable"])
    return found


def _column(world: World, found: Found) -> dict[str, str]:
    column = {"images per second": f"{world.files / found.seconds:.0f}"}
    for kind in (COPIED, *REPEATS):
        files = world.planted[kind]
        joined = sum(
            any(world.originals.get(p) == world.originals[f] for p in found.partners.get(f, ()))
            for f in files
        )
        column[f"found as repeats: {kind}"] = f"{joined} of {len(files)}"
    column["photographs joined with another one"] = str(_wrong(world, found))
    for kind, (_, flag) in FLAWS.items():
        files = world.planted[kind]
        flagged = sum(flag in found.flags.get(f, ()) for f in files)
        column[f"flagged: {kind}"] = f"{flagged} of {len(files)}"
    untouched = [name for name, original in world.originals.items() if name == original]
    false = sum(bool(found.flags.get(name)) for name in untouched)
    column["of the photographs as they are, flagged dark or blurred"] = (
        f"{false} of {len(untouched)}"
    )
    broken = world.planted["broken"]
    column["named as broken"] = f"{sum(f in found.unreadable for f in broken)} of {len(broken)}"
    frames = {name for name in found.partners if name.startswith("frames/")}
    repeated = sum(any(p.startswith("frames/") for p in found.partners[name]) for name in frames)
    column["frames of the film joined with another frame"] = str(repeated)
    return column


def _wrong(world: World, found: Found) -> int:
    """Files called the same as one that was made from another photograph."""
    return sum(
        any(world.originals.get(other, name) != world.originals[name]
            for other in found.partners.get(name, ()) if other in world.originals)
        for name in world.originals
    )  # fmt: skip


if __name__ == "__main__":
    main()
