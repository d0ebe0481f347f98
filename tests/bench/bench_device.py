"""Everything a GPU changes, in one run of less than eight minutes (docs/gpu.md).

    tests/bench/device.sh                       on a machine with an NVIDIA GPU
    tests/bench/device.sh --device cpu --tiny   the same code in a minute, no figure worth telling

Each phase is a process of its own with a time box: one that hangs, crashes or loses the device
costs its own figures only. Nothing here imports torch; the phases do.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.device.options import Options
from bench.device.sheet import Sheet, failures, read, say, summary
from bench.report import RESULTS

_GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL: a phase stops its PostgreSQL and its consumers."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A module of ``bench.device`` with ``run(sheet, options)``, and how long it may take."""

    name: str
    seconds: float


PHASES = (
    Phase("gpu_tests", 45),
    Phase("limits", 15),
    Phase("search", 40),
    Phase("embedding", 140),
    Phase("decoding", 45),
    Phase("choosing", 30),
    Phase("faults", 45),
    Phase("consumer", 90),
)
"""In this order: what needs the least comes first. 450 seconds in all; the last takes what is
left."""


def main() -> int:
    """Run the phases; 1 if an answer was wrong or a phase did not end well."""
    options, only, seconds = _arguments()
    if options.phase:
        return _run_phase(options)
    if options.device == "auto":
        options = options.on("cuda" if _has_gpu() else "")
    if not options.device:
        say("no NVIDIA GPU here: nothing measured (--device cpu --tiny proves the script)")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "device.jsonl"
    file.unlink(missing_ok=True)
    until = time.monotonic() + seconds
    for phase in PHASES:
        if only and phase.name not in only:
            continue
        sheet = Sheet(file, phase.name, options.device_name)
        left = until - time.monotonic() - _GRACE_SECONDS
        box = left if options.tiny or phase is PHASES[-1] else min(phase.seconds, left)
        if box < 1:
            sheet.skip("phase", "no time left")
        else:
            _in_a_process(phase, box, options, sheet)
        _publish(options, file)
    wrong = failures(read(file))
    for figure in wrong:
        say(f"FAILED {figure.phase}: {figure.name}: {figure.value} {figure.note}")
    say((options.out / "device.md").read_text())
    return 1 if wrong else 0


def _in_a_process(phase: Phase, seconds: float, options: Options, sheet: Sheet) -> None:
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--phase", phase.name, *options.words()],
        start_new_session=True,
    )
    try:
        status = process.wait(seconds)
        how = "ended" if status == 0 else f"failed with status {status}"
    except subprocess.TimeoutExpired:
        how = f"cut off after its {seconds:.0f} s; figures above are complete"
    finally:
        _end(process)
    took = time.monotonic() - started
    if how.startswith("failed"):
        sheet.add("phase", round(took, 1), "s", goal="ends well", met=False, note=how)
    else:
        sheet.add("phase", round(took, 1), "s", limit=seconds, limit_name="its time box", note=how)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The phase and all it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run_phase(options: Options) -> int:
    def stop(*_: object) -> None:
        sys.exit(0)  # through the context managers, which end what they started

    signal.signal(signal.SIGTERM, stop)
    sheet = Sheet(options.out / "device.jsonl", options.phase, options.device_name)
    try:
        import_module(f"bench.device.{options.phase}").run(sheet, options)
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        sheet.add("error", said, goal="ends well", met=False)
        return 1
    return 0


def _publish(options: Options, file: Path) -> None:
    """The JSON and the table after every phase: an interrupted run leaves both."""
    figures = read(file)
    conditions = _conditions(options)
    plain = [json.loads(line) for line in file.read_text().splitlines()]
    document = {"topic": "device", "conditions": conditions, "figures": plain}
    (options.out / "device.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "device.md").write_text(summary(figures, conditions))


def _conditions(options: Options) -> dict[str, Any]:
    return {
        "device": options.device_name,
        "sizes": "tiny: no figure counts" if options.tiny else "full",
        "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "numpy", "pillow",
                                             "simplejpeg", "nvidia-nvimgcodec-cu13")},
        "load_average": os.getloadavg()[0],
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _has_gpu() -> bool:
    try:
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _arguments() -> tuple[Options, set[str], float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes that prove the code, no figures")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--work", type=Path, default=Path("/tmp"), help="scratch folder")
    parser.add_argument("--only", default="", help="phases, separated by commas")
    parser.add_argument("--seconds", type=float, default=455, help="for all phases together")
    parser.add_argument("--phase", default="", help=argparse.SUPPRESS)
    parser.add_argument("--device-name", default="", help=argparse.SUPPRESS)
    found = parser.parse_args()
    options = Options(
        device=found.device, tiny=found.tiny, compiles=not found.no_compile,
        out=found.out.resolve(), work=found.work.resolve(), phase=found.phase,
        device_name=found.device_name,
    )  # fmt: skip
    only = {name for name in found.only.split(",") if name}
    if unknown := only - {phase.name for phase in PHASES}:
        parser.error(f"unknown phases: {', '.join(sorted(unknown))}")
    return options.on(found.device), only, found.seconds


if __name__ == "__main__":
    sys.exit(main())
