"""A folder of pictures, judged and chosen from: real files, a real ledger, the stub model."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pixsift
from pixsift import curation
from pixsift.adapters.ledger.curation import FolderRows
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.postgres.database import Database
from pixsift.errors import ConflictError, NotFoundError, RequestError, UserError
from pixsift.operations.curate import Curated, Tools, Wishes, collection_of
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.judge_folder import FolderTally

CODE = "from pixsift_cli.main import main; main()"


@pytest.fixture(scope="module")
def ledger() -> Iterator[Path]:
    """A ledger whose server runs as long as the tests of this module."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    root.chmod(0o755)
    try:
        with FolderLedger(root / "ledger"):
            yield root / "ledger"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight pictures, a second save and a copy of one, a broken one, a black one, a text."""
    folder = tmp_path / "photos"
    for seed in range(8):
        save(folder / f"day-{seed % 2}" / f"{seed}.png", seed)
    picture(3).save(folder / "day-1" / "3-again.jpg", quality=93)
    shutil.copy(folder / "day-0" / "4.png", folder / "z-copy.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    Image.new("RGB", (96, 96)).save(folder / "black.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def picture(seed: int) -> Image.Image:
    """Blocks of color: every seed far from every other."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)


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
    return curation.run(
        photos, FolderLedger(ledger), Wishes(**wishes), Tools(**made), stop or threading.Event()
    )


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


def test_curate__judges_chooses_and_leaves_the_originals_alone(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    before, out = originals(photos), tmp_path / "out"
    done = run(photos, ledger, out=out, select={"k": 5, "strategy": "k_center"},
               split={"train": 0.6, "val": 0.2, "test": 0.2})  # fmt: skip
    assert originals(photos) == before
    became = outcomes(photos, ledger)
    assert became["z-copy.png"][:3] == ("duplicate", "content", "day-0/4.png")
    assert {became[key][0] for key in ("broken.jpg", "black.png")} == {"rejected"}
    assert "notes.txt" not in became and done.tally.ignored == 1
    kept = {key for key, row in became.items() if row[0] == "kept"}
    assert {"day-0/0.png", "day-1/7.png"} <= kept

    manifest = pq.read_table(out / "manifest.parquet").to_pylist()
    assert {row["path"]: row["outcome"] for row in manifest} == {
        key: row[0] for key, row in became.items()
    }
    chosen = [row for row in manifest if row["rank"] is not None]
    assert sorted(row["rank"] for row in chosen) == list(range(5))
    for row in chosen:
        link = out / row["chosen_as"]
        assert link.samefile(photos / row["path"]) and row["path"] in kept
    lines = (out / "manifest.csv").read_text().splitlines()
    assert len(lines) == len(manifest) + 1
    page = (out / "report.html").read_text()
    assert "day-1/3-again.jpg" in page or "z-copy.png" in page
    for source in _sources(page):
        assert (out / source).is_file(), source


def _sources(page: str) -> list[str]:
    import re

    return re.findall(r'(?:src|href)="((?!data:)[^"]+)"', page)


def test_curate__again_reads_only_what_is_new(photos: Path, ledger: Path) -> None:
    assert run(photos, ledger).tally.judged == 12
    again = run(photos, ledger).tally
    assert (again.judged, again.unchanged, again.removed) == (0, 12, 0)

    save(photos / "new.png", 20)
    assert run(photos, ledger).tally.judged == 1

    save(photos / "new.png", 21)  # overwritten
    assert run(photos, ledger).tally.judged == 1
    assert outcomes(photos, ledger)["new.png"][0] == "kept"

    (photos / "day-0" / "4.png").unlink()  # its copy takes over
    (photos / "new.png").rename(photos / "renamed.png")
    last = run(photos, ledger).tally
    assert (last.judged, last.removed) == (1, 2)
    became = outcomes(photos, ledger)
    assert became["z-copy.png"][0] == became["renamed.png"][0] == "kept"
    assert "new.png" not in became and "day-0/4.png" not in became
    assert run(photos, ledger).tally.judged == 0


def test_curate__stopped_and_run_again_ends_like_an_undisturbed_run(
    photos: Path, ledger: Path
) -> None:
    twin = shutil.copytree(photos, photos.with_name("twin"))
    run(twin, ledger)
    for _ in range(3):
        stop = threading.Event()

        def count(tally: FolderTally, stop: threading.Event = stop) -> None:
            if tally.judged >= 1:
                stop.set()

        tools = {"progress": count, "in_flight": 2}
        assert run(photos, ledger, stop=stop, tools=tools).tally.stopped
    assert len(outcomes(photos, ledger)) < 12
    assert not run(photos, ledger).tally.stopped
    assert outcomes(photos, ledger) == outcomes(twin, ledger)


def command(photos: Path, ledger: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PIXSIFT_")}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "curate", str(photos), "--ledger", str(ledger), *options],
        env=environment | {"PIXSIFT_MODEL": "stub", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="surrogateescape",
    )  # fmt: skip


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.full)])
def test_curate__killed_at_random_and_run_again_ends_like_an_undisturbed_run(
    kills: int, tmp_path: Path, ledger: Path
) -> None:
    folder, twin = tmp_path / "photos", tmp_path / "twin"
    for seed in range(40):
        save(folder / f"{seed:02}.png", seed)
        if seed % 3 == 0:
            picture(seed).save(folder / f"{seed:02}-again.jpg", quality=92)
    shutil.copytree(folder, twin)
    run(twin, ledger)
    rng = random.Random(7)
    for _ in range(kills):
        process = command(folder, ledger)
        line = process.stderr.readline() if process.stderr else ""
        while line and "judging" not in line:
            line = process.stderr.readline() if process.stderr else ""
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout and process.stderr:
            process.stdout.close()
            process.stderr.close()
    run(folder, ledger, out=tmp_path / "out")
    assert outcomes(folder, ledger) == outcomes(twin, ledger)


# What a file system can hold against us.


def test_curate__odd_names_and_files_each_have_an_outcome_or_are_counted(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    strange = [b"caf\xe9.png", b"a\nb.png", b"UPPER.png", b"upper.png", b"no-extension", b"-k.png",
               "文.png".encode(), b"..png", b" .png"]  # fmt: skip
    for seed, name in enumerate(strange, 100):
        picture(seed).save(Path(os.fsdecode(bytes(photos) + b"/" + name)), "PNG")
    os.mkfifo(photos / "pipe.png")
    (photos / "link.png").symlink_to("/etc/passwd")
    (photos / "archive.zip").write_bytes(b"PK\x03\x04")
    (photos / ".hidden").mkdir()
    save(photos / ".hidden" / "h.png", 90)
    (photos / "empty.png").write_bytes(b"")
    out = tmp_path / "out"
    done = run(photos, ledger, out=out, select={"strategy": "all"})
    became = outcomes(photos, ledger)
    assert became["empty.png"][:2] == ("rejected", "empty")
    for key in ("UPPER.png", "upper.png", "no-extension", "文.png", "a\nb.png", "caf\\xe9.png"):
        assert became[key][0] == "kept", key
    walked = done.tally.walked
    assert (walked.special, walked.links, walked.hidden) == (1, 1, 1)
    linked = [path for path in (out / "data").rglob("*") if path.suffix != ".parquet"]
    assert len([path for path in linked if path.is_file()]) == len(done.chosen)
    assert not any("passwd" in key or "pipe" in key for key in became)


def test_curate__what_may_not_be_read_fails_alone_and_is_tried_again(
    photos: Path, ledger: Path
) -> None:
    limited = [] if os.geteuid() else _without_override()
    (photos / "day-0" / "0.png").chmod(0)
    save(photos / "closed" / "x.png", 50)
    (photos / "closed").chmod(0)
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PIXSIFT_")}
    try:
        done = subprocess.run(
            [*limited, sys.executable, "-c", CODE, "curate", str(photos), "--ledger", str(ledger),
             "--json"],
            env=environment | {"PIXSIFT_MODEL": "stub", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert len(told["unreadable_folders"]) == 1 and "closed" in told["unreadable_folders"][0]
        assert outcomes(photos, ledger)["day-0/0.png"][:2] == ("failed", "access_denied")
    finally:
        (photos / "closed").chmod(0o755)
        (photos / "day-0" / "0.png").chmod(0o644)
    assert run(photos, ledger).tally.judged == 2
    became = outcomes(photos, ledger)
    assert became["day-0/0.png"][0] == became["closed/x.png"][0] == "kept"


def _without_override() -> list[str]:
    """Root without the right to read whatever it likes."""
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv, which takes that away, is absent")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-dac_override,-dac_read_search"]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda folder: folder.mkdir(), RequestError, "has no files"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("a")), RequestError,
         "has no images: 1 files"),
        (lambda folder: None, NotFoundError, "cannot be read"),
        (lambda folder: folder.write_text("a"), RequestError, "is a file"),
    ],
)  # fmt: skip
def test_curate__a_folder_without_pictures_is_one_line(
    make: Any, error: type[UserError], told: str, tmp_path: Path, ledger: Path
) -> None:
    make(tmp_path / "photos")
    with pytest.raises(error, match=told):
        run(tmp_path / "photos", ledger, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_curate__an_unmounted_folder_loses_nothing(photos: Path, ledger: Path) -> None:
    run(photos, ledger)
    before = outcomes(photos, ledger)
    photos.rename(photos.with_name("elsewhere"))
    photos.mkdir()
    with pytest.raises(RequestError, match="has no files"):
        run(photos, ledger)
    assert outcomes(photos, ledger) == before


@pytest.mark.parametrize("where", ["photos", "photos/out", "foreign", "file", "other"])
def test_curate__writes_only_where_nothing_else_is(
    where: str, photos: Path, ledger: Path, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    save(tmp_path / "others-photos" / "a.png", 1)
    run(tmp_path / "others-photos", ledger, out=tmp_path / "other")
    before = originals(tmp_path)
    with pytest.raises(ConflictError):
        run(photos, ledger, out=tmp_path / where)
    assert originals(tmp_path) == before


def test_curate__the_ledger_may_not_lie_among_the_originals(photos: Path) -> None:
    with pytest.raises(ConflictError, match="lies in the folder of the originals"):
        run(photos, photos / "ledger")


def test_curate__only_this_account_reaches_the_ledger(ledger: Path) -> None:
    mode = (ledger / "postgres").stat().st_mode
    assert mode & 0o007 == 0, oct(mode)  # its socket gives superuser rights


def test_curate__two_at_once_is_one_line(photos: Path, ledger: Path) -> None:
    busy = f"another run \\(process {os.getpid()}\\)"
    with (
        FolderLedger(ledger) as store,
        store.judging(),
        pytest.raises(ConflictError, match=busy),
    ):
        run(photos, ledger)


def test_curate__a_second_choice_takes_the_place_of_the_first(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for k, link in ((6, "hard"), (3, "copy"), (2, "symbolic")):
        run(photos, ledger, out=out, select={"k": k, "strategy": "k_center"}, link=link)
        files = [p for p in (out / "data").rglob("*") if p.is_file() and p.suffix != ".parquet"]
        assert len(files) == k
        for path in files:
            source = photos / path.relative_to(out / "data" / "train")
            assert path.read_bytes() == source.read_bytes()
            assert path.is_symlink() == (link == "symbolic")
            assert path.samefile(source) == (link != "copy")
    run(photos, ledger, out=out)
    assert not (out / "data").exists()


def test_curate__a_full_disk_is_one_line(photos: Path, ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no small file system to fill: {mounted.stderr.strip()}")
    try:
        with pytest.raises(RequestError, match="No space left on device"):
            run(photos, ledger, out=out, select={"strategy": "all"}, link="copy")
    finally:
        subprocess.run(["umount", str(out)], check=True)
    run(photos, ledger, out=out)
    assert (out / "report.html").is_file()


@pytest.mark.full
def test_curate__a_hundred_thousand_files_in_one_folder(tmp_path: Path, ledger: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(100_000):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    done = run(folder, ledger, out=tmp_path / "out")
    assert sum(done.counts.outcomes.values()) == 100_000
    assert run(folder, ledger).tally.unchanged == 100_000


# As a library.


def test_library__answers_with_tables(photos: Path, ledger: Path, tmp_path: Path) -> None:
    found = pixsift.curate(
        photos, k=4, strategy="k_center", split={"train": 0.5, "val": 0.5}, model="stub",
        ledger=ledger, where={"folder": ["day-0", "day-1"]}, flagged="include",
        out=tmp_path / "out",
    )  # fmt: skip
    assert found.selection.num_rows == 4
    assert found.selection.column("rank").to_pylist() == [0, 1, 2, 3]
    assert set(found.selection.column("split").to_pylist()) <= {"train", "val"}
    assert "z-copy.png" in found.duplicates.column("path").to_pylist()
    assert set(found.rejected.column("path").to_pylist()) == {"broken.jpg", "black.png"}
    assert found.kept.num_rows + found.duplicates.num_rows + 2 == found.images.num_rows
    assert "4 chosen" in repr(found) and found.output == (tmp_path / "out").resolve()


def test_library__importing_it_stays_light() -> None:
    code = "import sys, pixsift; print(sorted({'numpy', 'pyarrow', 'psycopg'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert told.stdout.strip() == "[]"
