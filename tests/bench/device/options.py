"""The options of every phase."""

import platform
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Device, sizes, and where things go."""

    device: str
    """cuda or cpu."""
    tiny: bool
    """Sizes that prove the code on any machine."""
    compiles: bool
    out: Path
    work: Path
    phase: str
    device_name: str
    """As the figures carry it."""

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def patience(self) -> float:
        """Seconds to wait for a process; a busy CPU machine takes its time."""
        return 300.0 if self.tiny else 60.0

    def on(self, device: str) -> "Options":
        """The same on a device, named unless it was before."""
        name = self.device_name or (gpu_name() if device.startswith("cuda") else cpu_name())
        return replace(self, device=device, device_name=name if device else "")

    def words(self) -> list[str]:
        """As arguments for the process of a phase."""
        flags = (["--tiny"] if self.tiny else []) + ([] if self.compiles else ["--no-compile"])
        return ["--device", self.device, "--out", str(self.out), "--work", str(self.work),
                "--device-name", self.device_name, *flags]  # fmt: skip


def gpu_name() -> str:
    """The first GPU, as the driver calls it."""
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "GPU (nvidia-smi does not answer)"
    return told.splitlines()[0].strip() if told.strip() else "GPU (nvidia-smi names none)"


def cpu_name() -> str:
    """The processor, marked as one."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"CPU only: {line.partition(':')[2].strip()}"
    return f"CPU only: {platform.machine()}"
