"""The built wheel is the whole product: every package and every data file."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, "PIXSIFT_BUILD_CONSOLE": "no"},
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def test_wheel__holds_every_file_of_every_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    due = {
        path.relative_to(ROOT / base).as_posix()
        for base, part in (("shared", ""), ("services", ""), ("infra", "pixsift_infra"))
        for path in (ROOT / base / part).rglob("*")
        if path.is_file() and not {"__pycache__", "console"} & set(path.relative_to(ROOT).parts)
    }
    assert any(name.endswith("0001_ledger.sql") for name in due)
    assert due <= inside
    assert not [name for name in inside if name.startswith(("tests/", "infra/"))]


def test_wheel__runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import json, pixsift, pixsift_cli.main\n"
        "from pixsift.adapters.local.events_stack import events_template\n"
        "from pixsift.adapters.local.localstack import how_to_install\n"
        "from pixsift.adapters.postgres.migrate import migrations\n"
        "json.loads(events_template())\n"
        "print(pixsift.__file__, len(migrations()), how_to_install())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ).stdout  # fmt: skip
    assert found.startswith(str(tmp_path))
    assert str(tmp_path / "pixsift" / "localstack" / "requirements.txt") in found
    count = len(list((ROOT / "shared" / "pixsift" / "sql" / "migrations").glob("*.sql")))
    assert f"__init__.py {count} " in found
