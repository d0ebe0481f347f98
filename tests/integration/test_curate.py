"""A folder of pictures, judged and chosen from: real files, a real ledger, the stub model."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pixsift
from curated_folders import CODE, command, environment, originals, outcomes, picture, run, save
from pixsift.core.files import bytes_of
from pixsift.errors import ConflictError, NotFoundError, RequestError, UserError
from pixsift.operations.judge_folder import FolderTally

SIZES = 1_000, 100_000


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
    try:
        done = subprocess.run(
            [*limited, sys.executable, "-c", CODE, "curate", str(photos), "--ledger", str(ledger),
             "--json"],
            env=environment(), capture_output=True, text=True, check=False,
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


@pytest.mark.filterwarnings("ignore")
def test_curate__the_datasets_library_loads_the_choice(
    photos: Path, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/folder.md says, with names that loaders trip over."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="pip install datasets: a test dependency")
    datasets.disable_progress_bars()
    names = [b"caf\xe9.png", b"a\nb.png", b"test/test.png", b"val/train/eval.png", b"x [1]*.png",
             "\u6587 \u5b57.png".encode(), b"metadata.png", b"per%20cent.png"]  # fmt: skip
    for seed, name in enumerate(names, 100):
        path = Path(os.fsdecode(bytes(photos) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path)
    out = tmp_path / "out"
    run(photos, ledger, out=out, select={"strategy": "all"}, where={"flagged": "include"},
        split={"train": 0.6, "val": 0.2, "test": 0.2})  # fmt: skip
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(out / "data"), cache_dir=str(tmp_path / "cache")
    )
    chosen = {row["rank"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()
              if row["rank"] is not None}  # fmt: skip
    loaded = {record["rank"]: (split, record) for split, table in found.items() for record in table}
    assert loaded.keys() == chosen.keys() and len(chosen) >= 8 + len(names)
    for rank, (split, record) in loaded.items():
        row = chosen[rank]
        assert split == {"val": "validation"}.get(row["split"], row["split"])
        source = os.fsdecode(bytes_of(f"{photos}/{row['path']}"))
        with Image.open(source) as original:
            assert record["image"].convert("RGB").tobytes() == original.convert("RGB").tobytes()


@pytest.mark.full
def test_curate__a_hundred_thousand_files_in_one_folder(tmp_path: Path, ledger: Path) -> None:
    """As a process of its own: its memory is that of a thousand files."""
    peaks = {}
    for count in SIZES:
        folder, out = tmp_path / f"of-{count}", tmp_path / f"out-{count}"
        folder.mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 48)).save(folder / f"{number}.png")
        told, peaks[count] = _measured(
            folder, ledger, "--out", str(out), "-k", "500", "--flagged", "include"
        )
        assert sum(each["images"] for each in told["outcomes"]) == count == told["judged"]
        assert pq.read_metadata(out / "manifest.parquet").num_rows == count
        pages = [out / "report.html", *(out / "report").glob("*.html")]
        assert max(page.stat().st_size for page in pages) < 400_000
        for source in _sources((out / "report.html").read_text()):
            assert (out / source).is_file(), source
    small, large = SIZES
    assert peaks[large] < 1.5 * peaks[small], peaks
    assert run(folder, ledger).tally.unchanged == large


def _measured(folder: Path, ledger: Path, *options: str) -> tuple[dict[str, Any], int]:
    """What the command answers as JSON, and the peak of its resident memory in KiB."""
    process = command(folder, ledger, "--json", *options)
    answers: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: answers.append(process.communicate()))
    reader.start()
    peak = 0
    while reader.is_alive():
        reader.join(0.5)
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(found) for found in re.findall(r"VmHWM:\s*(\d+)", status))])
    out, errors = answers[0]
    assert process.returncode == 0, errors
    return json.loads(out), peak


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
