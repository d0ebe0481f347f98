"""Write ``requirements/*.lock`` with the hashes of every file: see README.md beside this file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "requirements"
OLDEST_PYTHON = "3.11"


def main() -> None:
    """Resolve each set; uv comes from this interpreter's own environment."""
    pyproject = ["pyproject.toml", "requirements/torch.in", "-c", "constraints.txt"]
    lock("demo", *pyproject, "--extra", "cpu", "--extra", "local", "--extra", "server")
    lock("test", *pyproject, "--extra", "dev")
    lock("localstack", "localstack/requirements.txt")
    lock("ministack", "requirements/ministack.txt")


def lock(name: str, *sources: str) -> None:
    """One file, for all platforms and every Python from ``OLDEST_PYTHON`` on; torch left out."""
    target = HERE / f"{name}.lock"
    subprocess.run(  # noqa: S603 - our own command
        [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "--universal",
         "--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-annotate", "--no-header",
         "--no-emit-index-url", "--no-emit-package", "torch",
         "--override", "requirements/without-torch.txt",
         "--output-file", str(target), *sources],
        cwd=ROOT, check=True,
    )  # fmt: skip
    target.write_text(f"# Written by `make lock`.\n{target.read_text('utf-8')}", "utf-8")


if __name__ == "__main__":
    main()
