"""A disk that is soon full, for those who must outlast one."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of a given size; skips where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", folder],
        capture_output=True, check=False,
    )  # fmt: skip
    if mount.returncode:
        folder.rmdir()
        pytest.skip(f"cannot mount a small disk: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path) -> Path:
    """Write until the disk of ``folder`` is full; the file to delete afterwards."""
    filler = folder / "filler"
    with filler.open("wb") as full, pytest.raises(OSError, match="No space"):
        while True:
            full.write(bytes(2**20))
            full.flush()
    return filler
