"""What the tests of ``pixsift curate`` share: one embedded ledger, a folder of pictures."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from curated_folders import make_photos
from pixsift.adapters.local.folder_ledger import FolderLedger


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder that PostgreSQL can reach and whose path can hold a socket."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp")).resolve()
    root.chmod(0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def ledger() -> Iterator[Path]:
    """A ledger whose server runs as long as the tests do; each folder is a collection of it."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp")).resolve()
    root.chmod(0o755)
    try:
        with FolderLedger(root / "ledger"):
            yield root / "ledger"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight pictures, a second save and a copy of one, a broken one, a black one, a text."""
    return make_photos(tmp_path / "photos")
