"""The tests that need a CUDA device, which are skipped everywhere else."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.device.options import Options
from bench.device.sheet import Sheet

ROOT = Path(__file__).resolve().parents[3]


NOT_ON_ANY_DEVICE = "the stub has no device"
"""Why one of the tests is skipped for good."""


def run(sheet: Sheet, options: Options) -> None:
    # The machine's own torch may give warnings that ours does not: they are shown, not fatal. One
    # process: the plugins of the machine's pytest are none of ours.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default", "-q", "-rA",
               "-p", "no:cacheprovider", *files()]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
    )  # fmt: skip
    (options.out / "gpu_tests.log").write_text(done.stdout + done.stderr)
    passed, skipped = told(done.stdout)
    # On a GPU every test runs that can; elsewhere every test is found, and says why it does not.
    missing = sum(count for why, count in skipped.items() if why != NOT_ON_ANY_DEVICE)
    found = passed + missing
    right = done.returncode == 0 and found > 0 and (missing if options.is_gpu else passed) == 0
    broken = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    note = "; ".join(broken)[:400] or ", ".join(f"{n} skipped: {why}" for why, n in skipped.items())
    sheet.add("tests marked gpu", passed, "passed", limit=found, limit_name="that can run on a GPU",
              goal="right", met=right, note=note or "see gpu_tests.log")  # fmt: skip


def files() -> list[str]:
    """The files with such tests, below the checkout."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))
            if "pytest.mark.gpu" in path.read_text("utf-8")]  # fmt: skip


def told(output: str) -> tuple[int, Counter[str]]:
    """Passed tests, and skipped ones by their reason, from what ``pytest -rA`` wrote."""
    skipped: Counter[str] = Counter()
    for count, why in re.findall(r"^SKIPPED \[(\d+)\] \S+: (.*)$", output, re.MULTILINE):
        skipped[why] += int(count)
    return len(re.findall(r"^PASSED ", output, re.MULTILINE)), skipped
