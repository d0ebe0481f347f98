"""The locked requirements: complete, in agreement with constraints.txt, and small enough."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("demo", "test", "localstack")
DEMO_DOWNLOAD_BYTES = 500_000_000
CPU_TORCH_BYTES = 191_794_682
"""The CPU wheel of torch 2.13.0 for Linux and Python 3.11, where no index here serves it."""


def locked(name: str) -> dict[str, str]:
    """Version by package of ``requirements/NAME.lock``."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.M))


@pytest.mark.parametrize("name", LOCKS)
def test_lock__every_package_has_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.M)[1:]
    assert len(entries) == len(locked(name)) > 50
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock__names_no_index_and_no_torch(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    assert "://" not in text
    assert "torch" not in locked(name)


@pytest.mark.parametrize(
    ("name", "extras"), [("demo", ["cpu", "local", "server"]), ("test", ["dev"])]
)
def test_lock__holds_what_pyproject_asks_for(name: str, extras: list[str]) -> None:
    """A change of pyproject.toml without `make lock` fails here."""
    versions = locked(name)
    missing = [
        str(wanted) for wanted in _wanted(extras)
        if wanted.name != "torch"
        and not wanted.specifier.contains(versions.get(canonicalize_name(wanted.name), "0"))
    ]  # fmt: skip
    assert not missing, "run make lock"


@pytest.mark.parametrize("name", ["demo", "test"])
def test_lock__agrees_with_the_constraints(name: str) -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    pins = {str(canonicalize_name(n)): v for n, v in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)}
    versions = locked(name)
    assert {n: v for n, v in versions.items() if pins.get(n, v) != v} == {}


@pytest.mark.full
def test_demo__downloads_at_most_500_megabytes(tmp_path: Path) -> None:
    """The files that pip would fetch for `make demo` on this machine, weighed.

    It sees the wheels for this platform and this Python, from the index that pip uses here. It
    cannot see PyTorch's own index where that does not answer: then it takes a local CPU build as
    pip reports it, or the published size of the CPU wheel.
    """
    for name in ("demo", "localstack"):
        lock = ROOT / "requirements" / f"{name}.lock"
        found = _pip("download", "--quiet", "--no-deps", "--require-hashes",
                     "--dest", str(tmp_path / name), "--requirement", str(lock))  # fmt: skip
        if found.returncode:
            pytest.skip(f"no package index answers: {found.stderr[-300:]}")
    fetched = sum(path.stat().st_size for path in tmp_path.rglob("*.*") if path.is_file())
    assert fetched > 200_000_000
    assert fetched + _torch_bytes(tmp_path) <= DEMO_DOWNLOAD_BYTES


def _wanted(extras: list[str]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    found = [Requirement(text) for text in texts]
    inner = [extra for wanted in found if wanted.name == "pixsift" for extra in wanted.extras]
    found = [wanted for wanted in found if wanted.name != "pixsift"]
    return found + (_wanted(inner) if inner else [])


def _torch_bytes(folder: Path) -> int:
    report = folder / "torch.json"
    found = _pip("install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report",
                 str(report), "--constraint", "constraints.txt", "torch")  # fmt: skip
    if found.returncode:
        return CPU_TORCH_BYTES
    (entry,) = json.loads(report.read_text("utf-8"))["install"]
    url = entry["download_info"]["url"].replace("%2B", "+")
    return Path(url[7:]).stat().st_size if url.startswith("file://") else CPU_TORCH_BYTES


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
