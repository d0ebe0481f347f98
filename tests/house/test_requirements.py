"""The locked requirements: complete, in agreement with constraints.txt, and small enough."""

import json
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SIZES = ROOT / "requirements" / "sizes.json"
LOCKS = ("demo", "test", "localstack", "services", "cpu")
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
    assert len(entries) == len(locked(name)) > 30
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock__names_no_index_and_no_torch(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    assert "://" not in text
    assert "torch" not in locked(name)


@pytest.mark.parametrize(
    ("name", "extras"),
    [("demo", ["cpu", "local", "server"]), ("test", ["dev"]), ("services", []),
     ("cpu", ["cpu", "server"]), ("gpu", ["gpu", "server"])],
)  # fmt: skip
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


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", LOCKS)
def test_lock__has_one_version_of_each_package_for_every_python(name: str, python: str) -> None:
    """No package is missing on one of them, and none has two versions there."""
    machine = {"python_version": python, "python_full_version": f"{python}.1"}
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    lines = re.findall(r"^([a-z0-9-]+==[^\\\n]+)", text, re.M)
    found = [
        wanted.name
        for wanted in map(Requirement, lines)
        if wanted.marker is None or wanted.marker.evaluate(machine)
    ]
    assert len(found) == len(set(found)) > 30
    due = {
        str(canonicalize_name(wanted.name))
        for wanted in _wanted({"demo": ["cpu", "local"], "test": ["dev"]}.get(name, []))
        if name != "localstack" and wanted.name != "torch"
        and (wanted.marker is None or wanted.marker.evaluate(machine))
    }  # fmt: skip
    assert due <= set(found)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index on this machine that has one package: a torch for the CPU, of a few bytes."""
    (version,) = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    folder = tmp_path / "index" / "torch"
    folder.mkdir(parents=True)
    file = f"torch-{version}+cpu-py3-none-any.whl"
    info = f"torch-{version}+cpu.dist-info"
    with zipfile.ZipFile(folder / file, "w") as wheel:
        wheel.writestr(f"{info}/METADATA",
                       f"Metadata-Version: 2.1\nName: torch\nVersion: {version}+cpu\n")  # fmt: skip
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{file.replace("+", "%2B")}">{file}</a>')
    handler = partial(_Quiet, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_torch_index__one_that_answers_gives_the_build_for_the_cpu(
    index: str, tmp_path: Path
) -> None:
    """The step of the make rule, with pip itself: the pinned version, as that index has it."""
    assert _asked(index) == 0
    found = _pip("download", "--quiet", "--no-deps", "-c", "constraints.txt", "--index-url", index,
                 "--dest", str(tmp_path / "got"), "torch")  # fmt: skip
    assert found.returncode == 0, found.stderr
    (wheel,) = (tmp_path / "got").iterdir()
    assert "+cpu" in wheel.name


@pytest.mark.parametrize(
    "index", ["", "http://127.0.0.1:9", "http://example.invalid", "ftp://127.0.0.1:9/"]
)
def test_torch_index__silence_and_plain_http_elsewhere_mean_no(index: str) -> None:
    assert _asked(index) == 1


def test_torch_index__the_make_rule_asks_before_it_installs() -> None:
    rule = (ROOT / "Makefile").read_text("utf-8").split("\n.venv/ready:")[1].split("\n\n")[0]
    asked, installed = rule.index("requirements/answers.py"), rule.index("--index-url")
    assert asked < installed < rule.index("else echo")


def _asked(index: str) -> int:
    script = str(ROOT / "requirements" / "answers.py")
    return subprocess.run([sys.executable, script, index], check=False).returncode


@pytest.mark.parametrize("name", ["demo", "localstack"])
def test_sizes__are_known_of_every_locked_file(name: str) -> None:
    """A new or newer package has no size yet: see ``write_sizes``."""
    assert {f"{n}=={v}" for n, v in _installed_here(name).items()} <= set(_sizes()[name])


def test_demo__downloads_at_most_500_megabytes() -> None:
    """By the sizes that were written down; the test below weighs the files themselves."""
    known = _sizes()
    locked_bytes = sum(sum(known[name].values()) for name in ("demo", "localstack"))
    assert 200_000_000 < locked_bytes <= DEMO_DOWNLOAD_BYTES - CPU_TORCH_BYTES
    text = (ROOT / "README.md").read_text("utf-8")
    (stated,) = re.findall(r"(\d+) MB to download", text)
    assert abs(int(stated) * 1_000_000 - locked_bytes - CPU_TORCH_BYTES) < 5_000_000


@pytest.mark.full
def test_demo__the_files_that_pip_fetches_weigh_at_most_500_megabytes(tmp_path: Path) -> None:
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


def _sizes() -> dict[str, dict[str, int]]:
    """Lock -> ``name==version`` -> bytes that pip downloads, for Linux and Python 3.11."""
    found: dict[str, dict[str, int]] = json.loads(SIZES.read_text("utf-8"))
    return found


def _installed_here(name: str) -> dict[str, str]:
    """The packages of a lock on Linux and Python 3.11."""
    machine = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux",
               "platform_system": "Linux", "platform_machine": "x86_64",
               "implementation_name": "cpython"}  # fmt: skip
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    lines = re.findall(r"^([a-z0-9-]+==[^\\\n]+)", text, re.M)
    return {
        str(canonicalize_name(wanted.name)): str(wanted.specifier).removeprefix("==")
        for wanted in map(Requirement, lines)
        if wanted.marker is None or wanted.marker.evaluate(machine)
    }


def write_sizes(folder: Path) -> None:
    """Write ``sizes.json`` from ``folder/NAME``, into which `pip download` has put each lock."""
    known = {}
    for name in ("demo", "localstack"):
        due = _installed_here(name)
        weighed: dict[str, int] = {}
        for path in sorted((folder / name).iterdir()):
            project, version = re.split(r"-(?=\d)", path.name, maxsplit=1)
            project = str(canonicalize_name(project))
            assert version.startswith(due[project]), path.name
            weighed[f"{project}=={due[project]}"] = path.stat().st_size
        assert len(weighed) == len(due)
        known[name] = weighed
    SIZES.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


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


if __name__ == "__main__":
    write_sizes(Path(sys.argv[1]))
