"""Folders of small made pictures, curated into an embedded ledger with the stub model."""

import atexit
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from pixsift import curation
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.curation import FolderRows
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.postgres.database import Database
from pixsift.operations import curate as operation
from pixsift.operations.curate import Curated, Tools, Wishes, collection_of
from pixsift.operations.embedder import ModelChoice

CODE = "from pixsift_cli.main import main; main()"


def picture(seed: int) -> Image.Image:
    """Blocks of color: every seed far from every other."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)


def make_photos(folder: Path) -> Path:
    """Eight pictures, a second save and a copy of one, a broken one, a black one, a text."""
    for seed in range(8):
        save(folder / f"day-{seed % 2}" / f"{seed}.png", seed)
    picture(3).save(folder / "day-1" / "3-again.jpg", quality=93)
    shutil.copy(folder / "day-0" / "4.png", folder / "z-copy.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    Image.new("RGB", (96, 96)).save(folder / "black.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(
    photos: Path, ledger: Path, *, stop: threading.Event | None = None, tools: Any = None,
    **wishes: Any,
) -> Curated:  # fmt: skip
    wishes.setdefault("where", {"flagged": "include"})  # small squares of color are odd pictures
    made: dict[str, Any] = {
        "model": ModelChoice("stub"),
        "logger": curation.quiet_logger(),
        "workers": 1,
    }
    made |= tools or {}
    with patch.object(operation, "DecoderPool", _one_decoder):
        return curation.run(
            photos, FolderLedger(ledger), Wishes(**wishes), Tools(**made),
            stop or threading.Event(),
        )  # fmt: skip


@contextmanager
def _one_decoder(side: int, *, workers: int) -> Iterator[DecoderPool]:
    """The same decoder process for all runs: starting one takes longer than a small folder.

    The tests that start ``pixsift curate`` start their own.
    """
    yield _started(side, workers)


@cache
def _started(side: int, workers: int) -> DecoderPool:
    pool = DecoderPool(side, workers=workers)
    pool.__enter__()
    atexit.register(pool.close)
    return pool


def outcomes(photos: Path, ledger: Path) -> dict[str, tuple[Any, ...]]:
    """What the ledger says of every file."""
    with FolderLedger(ledger) as store, Database(store.url) as database:
        found = collection_of(database, photos.resolve())
        assert found is not None
        rows = FolderRows(database, found.collection_id)
        return {
            row.key: (row.outcome, row.reason, row.representative,
                      None if row.distance is None else round(row.distance, 6))
            for row in rows.files()
        }  # fmt: skip


def originals(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def environment() -> dict[str, str]:
    """Of a command with the stub model and no other settings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIXSIFT_")}
    return ours | {"PIXSIFT_MODEL": "stub", "PYTHONPATH": os.pathsep.join(sys.path)}


def command(photos: Path, ledger: Path, *options: str) -> "subprocess.Popen[str]":
    """``pixsift curate`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "curate", str(photos), "--ledger", str(ledger), *options],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="surrogateescape",
    )  # fmt: skip
