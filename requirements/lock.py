"""Write ``requirements/*.lock`` with the hashes of every file: see README.md beside this file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "requirements"
OLDEST_PYTHON = "3.11"
UNIVERSAL = (
    "--universal", "--python-version", OLDEST_PYTHON, "--no-emit-package", "torch",
    "--override", "requirements/without-torch.txt",
)  # fmt: skip
GPU_IMAGE = ("--python-platform", "x86_64-unknown-linux-gnu", "--python-version", "3.12")
"""The Python of the Dockerfiles' base."""


def main() -> None:
    """Resolve each set; uv comes from this interpreter's own environment."""
    pyproject = ["pyproject.toml", "requirements/torch.in", "-c", "constraints.txt"]
    lock("demo", *pyproject, "--extra", "cpu", "--extra", "local", "--extra", "server")
    lock("build", "requirements/build.in", "-c", "constraints.txt")
    lock("services", "pyproject.toml", "-c", "constraints.txt")
    lock("cpu", *pyproject, "--extra", "cpu", "--extra", "server")
    lock("test", *pyproject, "--extra", "dev")
    lock("gpu", "pyproject.toml", "-c", "constraints.txt", "--extra", "gpu", "--extra", "server",
         universal=False)  # fmt: skip
    lock("localstack", "localstack/requirements.txt")
    lock("ministack", "requirements/ministack.txt")


def lock(name: str, *sources: str, universal: bool = True) -> None:
    """One file. Universal: for all platforms and every Python from ``OLDEST_PYTHON`` on, torch left
    out. Otherwise for the GPU image alone, with PyPI's torch for CUDA.
    """
    target = HERE / f"{name}.lock"
    for_whom = UNIVERSAL if universal else GPU_IMAGE
    subprocess.run(  # noqa: S603 - our own command
        [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", *for_whom,
         "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url",
         "--output-file", str(target), *sources],
        cwd=ROOT, check=True,
    )  # fmt: skip
    target.write_text(f"# Written by `make lock`.\n{target.read_text('utf-8')}", "utf-8")


if __name__ == "__main__":
    main()
