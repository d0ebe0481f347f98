"""The tests that need a CUDA device, which are skipped everywhere else."""

import os
import re
import subprocess
import sys
from pathlib import Path

from bench.device.options import Options
from bench.device.sheet import Sheet

ROOT = Path(__file__).resolve().parents[3]


def run(sheet: Sheet, options: Options) -> None:
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))
             if "mark.gpu" in path.read_text("utf-8")]  # fmt: skip
    # The machine's own torch may give warnings that ours does not: they are shown, not fatal. One
    # process: the plugins of the machine's pytest are none of ours.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default", "-q", "-rA",
               "-p", "no:cacheprovider", *files]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    (options.out / "gpu_tests.log").write_text(done.stdout + done.stderr)
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout[-300:])
    }
    passed, skipped = counts.get("passed", 0), counts.get("skipped", 0)
    # One of the ten is skipped for good: the stub embedder has no device.
    right = done.returncode == 0 and (passed >= 9 if options.is_gpu else skipped >= 10)
    broken = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    sheet.add(
        "tests marked gpu", passed, "passed", goal="right", met=right,
        note=f"{skipped} skipped; " + ("; ".join(broken)[:400] or "see gpu_tests.log"),
    )  # fmt: skip
