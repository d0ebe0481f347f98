"""Images and containers without a Docker engine: debootstrap, buildah and podman, all as root."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/pixsift-test-base:bookworm"
TOOLS = ("debootstrap", "buildah", "podman")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_APT_FILES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")


def missing_tools() -> list[str]:
    """What must be installed first; and root is needed, as debootstrap makes a file system."""
    found = [name for name in TOOLS if shutil.which(name) is None]
    return found if os.geteuid() == 0 else ["root's rights", *found]


def run(*words: str, seconds: float = 1200, check: bool = True) -> str:
    """Standard output of a command. AssertionError with the end of what it wrote if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        wrote = f"{done.stdout}\n{done.stderr}"[-4000:]
        raise AssertionError(f"{shlex.join(words[:6])} ... ended with {done.returncode}:\n{wrote}")
    return done.stdout


def make_base() -> None:
    """Debian's Python in place of the Dockerfiles' base, which no registry serves everywhere.

    Kept between runs: `buildah rmi` removes it.
    """
    if run("buildah", "images", "--quiet", "--filter", f"reference={BASE}", check=False).strip():
        return
    with tempfile.TemporaryDirectory(prefix="px-base-") as folder:
        run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
            "bookworm", folder, *_debian_mirror())  # fmt: skip
        (Path(folder) / "usr/bin/python").symlink_to("python3")
        shutil.copy(_CERTIFICATES, f"{folder}/usr/local/share/ca-certificates/this-machine.crt")
        run("chroot", folder, "update-ca-certificates")
        run("chroot", folder, "sh", "-c", "apt-get clean && rm -rf /var/lib/apt/lists/*")
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "add", container, folder, "/")
        run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin", container)
        run("buildah", "commit", "--rm", container, BASE)


def build(dockerfile: str, tag: str, **arguments: str) -> None:
    """Build as the Dockerfile says. pip and apt are set up as on this machine."""
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    mounts = [f"--volume={path}:{path}:ro" for path in _settings_of_this_machine()]
    run("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", *mounts,
        f"--build-arg=PYTHON_IMAGE={BASE}", *options, "-f", str(ROOT / dockerfile), "-t", tag,
        str(ROOT))  # fmt: skip


def size_bytes(tag: str) -> int:
    """Bytes of an image, with its base."""
    return int(run("podman", "image", "inspect", "--format", "{{.Size}}", tag))


def documented_flags(dockerfile: str) -> list[str]:
    """The options of the `docker run` at the top of a Dockerfile, without GPU and environment."""
    text = re.sub(r"\\\n#", " ", (ROOT / dockerfile).read_text("utf-8"))
    words = shlex.split(re.findall(r"^# +docker run (.*)$", text, re.M)[-1])
    end = next(i for i, word in enumerate(words) if word.startswith("pixsift-"))
    flags, skipped = words[:end], ("--gpus", "-e")
    return [word for before, word in zip(["", *flags], flags, strict=False)
            if word not in skipped and before not in skipped]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Container:
    """A running container, by name."""

    name: str

    def execute(self, *words: str) -> int:
        """The exit status of a command inside it."""
        return subprocess.run(
            [*_podman(), "exec", self.name, *words], capture_output=True, timeout=60, check=False
        ).returncode

    def output(self, *words: str) -> str:
        """Standard output of a command inside it."""
        return run(*_podman(), "exec", self.name, *words)

    def status(self) -> dict[str, str]:
        """``/proc/1/status`` of its first process."""
        shown = self.output("cat", "/proc/1/status")
        return dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)

    def stop(self) -> tuple[float, int]:
        """Seconds that the stop took, and the exit status of the container."""
        begun = time.monotonic()
        run(*_podman(), "stop", self.name, seconds=120)
        took = time.monotonic() - begun
        shown = run(*_podman(), "inspect", "--format", "{{.State.ExitCode}}", self.name)
        return took, int(shown)

    def is_running(self) -> bool:
        shown = run(*_podman(), "inspect", "--format", "{{.State.Running}}", self.name)
        return shown.strip() == "true"

    def log(self) -> str:
        """What it has written, both streams."""
        done = subprocess.run([*_podman(), "logs", self.name], capture_output=True, text=True,
                              check=False)  # fmt: skip
        return done.stdout + done.stderr


@contextmanager
def container(
    tag: str, flags: Sequence[str], environment: Mapping[str, str], *, name: str,
    command: Sequence[str] = (), mounts: Sequence[Path] = (),
) -> Iterator[Container]:  # fmt: skip
    """Run with the documented flags, on this machine's network; removed at the end."""
    # This machine's limits, not the product's: no systemd for health checks, no higher limits.
    host = ["--network=host", "--no-healthcheck", "--ulimit=nofile=4096:4096",
            "--ulimit=nproc=4096:4096"]  # fmt: skip
    variables = [f"--env={key}={value}" for key, value in environment.items()]
    volumes = [f"--volume={path}:{path}" for path in mounts]
    try:
        run(*_podman(), "run", "--detach", "--replace", "--name", name, *host, *flags, *variables,
            *volumes, tag, *command)  # fmt: skip
        yield Container(name)
    finally:
        run(*_podman(), "rm", "--force", "--time", "1", name, check=False)


def _podman() -> list[str]:
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    return ["podman", *runtime, "--cgroup-manager", "cgroupfs"]


def _debian_mirror() -> list[str]:
    """The mirror of this machine's apt, if it is one for Debian."""
    for file in sorted(Path("/etc/apt").glob("sources.list*/*.sources")):
        if found := re.search(r"^URIs:\s*(\S+/debian)/?$", file.read_text("utf-8"), re.M):
            return [found[1]]
    return []


def _settings_of_this_machine() -> list[str]:
    """Files and folders that pip and apt read here: none on a machine without special settings."""
    shown = run(sys.executable, "-m", "pip", "config", "list", check=False)
    # The base has the certificates: a mount in their place would fail when apt updates them.
    lines = [line for line in shown.splitlines() if ".cert=" not in line]
    paths = re.findall(r"(?:file://|(?<=['\s]))(/[^\s']+)", "\n".join(lines))
    # The files of a local index are in the folder above it.
    named = [path.removesuffix("/simple") for path in paths]
    wanted = [*_pip_files(), *_APT_FILES, *named]
    return sorted({path for path in wanted if Path(path).exists()})


def _pip_files() -> list[str]:
    """Where pip's settings may lie; the build runs as root, as these tests do."""
    shown = run(sys.executable, "-m", "pip", "config", "debug", check=False)
    return re.findall(r"^\s*(/\S+), exists: True", shown, re.M)
