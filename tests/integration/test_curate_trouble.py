"""What can go wrong while a folder is curated: one line or an outcome each, and nothing is lost."""

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from curated_folders import CODE, command, environment, outcomes, picture, run, save
from hanging_share import HangingShare
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.local.folder_objects import FolderObjects
from pixsift.errors import DependencyDownError, RequestError
from pixsift.operations import curate as operation
from pixsift.operations.judge_folder import FolderTally

_MANY = 250


@contextmanager
def share(folder: Path, source: Path, *, hanging: str = "") -> Iterator[HangingShare]:
    folder.mkdir(exist_ok=True)
    made = HangingShare(folder, source, hanging=hanging)
    try:
        made.__enter__()
    except OSError as error:
        pytest.skip(f"no share that hangs: {error}")
    try:
        yield made
    finally:
        made.__exit__()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no small file system to fill: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# Interruptions.


def test_curate__ctrl_c_on_a_terminal_leaves_a_usable_ledger(
    tmp_path: Path, short_folder: Path
) -> None:
    """With a PostgreSQL of the command's own: the terminal interrupts its processes as well."""
    photos, ledger = short_folder / "photos", short_folder / "ledger"
    for seed in range(_MANY):
        save(photos / f"{seed:02}.png", seed)
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {CODE}"
    arguments = [sys.executable, "-c", code, "curate", str(photos), "--ledger", str(ledger)]
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        arguments, env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = _until(screen, "images/s")
    os.write(screen, b"\x03")
    shown += _until(screen, None)
    os.close(screen)
    assert process.wait(30) == 130, shown
    assert "run the same command again to go on" in shown
    assert "Traceback" not in shown and "Error" not in shown
    assert _members_of_session(process.pid) == []
    assert not (ledger / "postgres" / "data" / "postmaster.pid").exists()
    twin = shutil.copytree(photos, tmp_path / "twin")
    run(twin, ledger)
    again = run(photos, ledger).tally
    assert again.judged + again.unchanged == _MANY and again.unchanged > 0
    assert outcomes(photos, ledger) == outcomes(twin, ledger)


def _until(screen: int, text: str | None) -> str:
    """What the terminal shows up to ``text``, or to its end."""
    shown = ""
    with suppress(OSError):  # the last process has closed it
        while (text is None or text not in shown) and (part := os.read(screen, 4096)):
            shown += part.decode(errors="replace")
    return shown


def _members_of_session(session: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                found.append(status.parent.name)
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.full)])
def test_curate__killed_at_random_and_run_again_ends_like_an_undisturbed_run(
    kills: int, tmp_path: Path, ledger: Path
) -> None:
    folder = tmp_path / "photos"
    for seed in range(40):
        save(folder / f"{seed:02}.png", seed)
        if seed % 3 == 0:
            picture(seed).save(folder / f"{seed:02}-again.jpg", quality=92)
    twin = shutil.copytree(folder, tmp_path / "twin")
    run(twin, ledger)
    rng = random.Random(7)
    for _ in range(kills):
        process = command(folder, ledger)
        assert process.stdout is not None and process.stderr is not None
        line = process.stderr.readline()
        while line and "judging" not in line:
            line = process.stderr.readline()
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()
    run(folder, ledger, out=tmp_path / "out")
    assert outcomes(folder, ledger) == outcomes(twin, ledger)


def test_curate__two_at_once_is_one_line(photos: Path, ledger: Path) -> None:
    """Two processes: one judges everything, the other says who does and changes nothing."""
    with FolderLedger(ledger) as store, store.judging():
        second = command(photos, ledger)
        out, told = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert f"another run (process {os.getpid()}) is using the ledger" in told.splitlines()[-1]
    assert run(photos, ledger).tally.judged == 12


# Files that change.


def test_curate__what_changes_or_vanishes_during_a_run_ends_as_it_is_then(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    for seed in range(20, 40):
        save(photos / "later" / f"{seed}.png", seed)

    def disturb(tally: FolderTally) -> None:
        if tally.judged == 2:
            save(photos / "later" / "37.png", 77)
            (photos / "later" / "38.png").unlink(missing_ok=True)
            (photos / "z-copy.png").write_bytes(b"")
            save(photos / "zz-new.png", 78)

    run(photos, ledger, tools={"progress": disturb, "in_flight": 2})
    run(photos, ledger)
    twin = shutil.copytree(photos, tmp_path / "twin")
    run(twin, ledger)
    became = outcomes(photos, ledger)
    assert became == outcomes(twin, ledger)
    assert "later/38.png" not in became and became["z-copy.png"][:2] == ("rejected", "empty")
    assert became["later/37.png"][0] == became["zz-new.png"][0] == "kept"


# A share that hangs. The kernel waits for an answer that never comes, as it does for a server.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "FolderObjects", partial(FolderObjects, patience_seconds=0.5))
    monkeypatch.setattr(operation, "PATIENCE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
def test_curate__a_share_that_hangs_is_one_line(photos: Path, ledger: Path, tmp_path: Path) -> None:
    with share(tmp_path / "share", photos / "day-0") as hanging:
        hanging.hang_all()
        with pytest.raises(DependencyDownError, match=r"share: no answer within .*does the share"):
            run(tmp_path / "share", ledger)


@pytest.mark.usefixtures("impatient")
def test_curate__a_file_that_hangs_costs_itself_only(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    files = list((photos / "day-0").iterdir())
    with share(tmp_path / "share", photos / "day-0", hanging="2.png"):
        assert run(tmp_path / "share", ledger).tally.judged == len(files)
        became = outcomes(tmp_path / "share", ledger)
        assert {key for key, row in became.items() if row[0] == "failed"} == {"2.png"}
        assert became["2.png"][1] == "gave_up"
    with share(tmp_path / "share", photos / "day-0"):
        again = run(tmp_path / "share", ledger).tally
        assert (again.judged, again.unchanged) == (1, len(files) - 1)
        assert outcomes(tmp_path / "share", ledger)["2.png"][0] == "kept"


@pytest.mark.usefixtures("impatient")
def test_curate__a_share_that_hangs_in_the_middle_loses_nothing(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    files = list((photos / "day-0").iterdir())
    with share(tmp_path / "share", photos / "day-0") as hanging:

        def stop_answering(tally: FolderTally) -> None:
            if tally.judged:
                hanging.hang_all()

        with pytest.raises(DependencyDownError):
            run(tmp_path / "share", ledger, tools={"progress": stop_answering, "in_flight": 2})
    with share(tmp_path / "share", photos / "day-0"):
        again = run(tmp_path / "share", ledger).tally
        assert again.judged + again.unchanged == len(files) and again.unchanged
        assert {row[0] for row in outcomes(tmp_path / "share", ledger).values()} <= {
            "kept", "duplicate"
        }  # fmt: skip


# A disk that fills.


def test_curate__a_full_disk_of_the_output_is_one_line(
    photos: Path, ledger: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        small_disk(out, "64k"),
        pytest.raises(RequestError, match="No space left on device"),
    ):
        run(photos, ledger, out=out, select={"strategy": "all"}, link="copy")
    run(photos, ledger, out=out)
    assert (out / "report.html").is_file()


def test_curate__a_full_disk_of_the_ledger_is_one_line_and_loses_nothing(
    photos: Path, short_folder: Path, ledger: Path, tmp_path: Path
) -> None:
    disk = short_folder / "disk"
    disk.mkdir()
    for seed in range(20, 50):
        save(photos / "later" / f"{seed}.png", seed)
    with small_disk(disk, "600m"):
        own = disk / "ledger"
        with FolderLedger(own):
            ballast = disk / "ballast"

            def fill(tally: FolderTally) -> None:
                if tally.judged and not ballast.exists():
                    left = os.statvfs(disk)
                    ballast.write_bytes(bytes(left.f_bavail * left.f_frsize))

            with pytest.raises(DependencyDownError, match="No space left on device"):
                run(photos, own, tools={"progress": fill, "in_flight": 4})
        ballast.unlink()
        assert run(photos, own).tally.unchanged > 0
        twin = shutil.copytree(photos, tmp_path / "twin")
        run(twin, ledger)
        assert outcomes(photos, own) == outcomes(twin, ledger)
