"""``make bench``: every benchmark in a process of its own, peers in an environment of their own.

    python tests/bench/run.py            all of them
    python tests/bench/run.py kcenter    those whose name contains "kcenter"
    python tests/bench/run.py kcenter -- million    what follows goes to each of them

Peers live in ``.venv-bench`` so that the product never inherits their dependencies; benchmarks
find its interpreter in ``PIXSIFT_BENCH_PEERS`` and leave a peer out, saying so, where it is unset.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".venv-bench"


def main() -> int:
    """Run the chosen benchmarks; the exit status is 1 if one of them failed."""
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    wanted, passed_on = arguments[:cut], arguments[cut + 1 :]
    scripts = [
        script
        for script in sorted(HERE.glob("bench_*.py"))
        if not wanted or any(part in script.stem for part in wanted)
    ]
    environment = os.environ | {"PIXSIFT_BENCH_PEERS": str(_peers())}
    environment["PYTHONPATH"] = os.pathsep.join(
        str(ROOT / folder) for folder in ("shared", "services", "tests", "tests/bench")
    )
    failures = [
        script.stem
        for script in scripts
        if subprocess.run(
            [sys.executable, str(script), *passed_on], env=environment, check=False
        ).returncode
    ]
    for name in failures:
        print(f"FAILED {name}", file=sys.stderr)  # noqa: T201
    return 1 if failures else 0


def _peers() -> Path:
    python = PEERS / "bin" / "python"
    requirements = HERE / "requirements.txt"
    ready = PEERS / "ready"
    if not ready.exists() or ready.stat().st_mtime < requirements.stat().st_mtime:
        venv.create(PEERS, with_pip=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True
        )
        ready.touch()
    return python


if __name__ == "__main__":
    sys.exit(main())
