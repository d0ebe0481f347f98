"""The Dockerfiles, read as text: no Docker is needed. What they copy is copied, and built from."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixsift.config import ConsumerSettings, CuratorSettings
from pixsift.health import MAX_AGE_SECONDS, Heartbeat, problem

ROOT = Path(__file__).resolve().parents[2]
GPU, SERVICES = "Dockerfile.gpu-consumer", "Dockerfile.services"
COMMANDS = {GPU: "pixsift-consumer", SERVICES: "pixsift-curator"}
Instruction = tuple[str, str]

pytestmark = pytest.mark.parametrize("name", [GPU, SERVICES])


def read(name: str) -> list[Instruction]:
    """(keyword, arguments) in order; comments dropped, continued lines joined."""
    lines = (ROOT / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(keyword, " ".join(rest.split())) for keyword, _, rest in pairs]


def final_stage(name: str) -> list[Instruction]:
    instructions = read(name)
    last = max(i for i, (keyword, _) in enumerate(instructions) if keyword == "FROM")
    return instructions[last:]


def of(keyword: str, instructions: list[Instruction]) -> list[str]:
    return [arguments for found, arguments in instructions if found == keyword]


def copied(name: str) -> list[tuple[list[str], str]]:
    """(sources, destination) of every COPY from the build context."""
    found = (a.split() for a in of("COPY", read(name)) if not a.startswith("--from"))
    return [(words[:-1], words[-1]) for words in found]


def test_base__is_a_slim_python_pinned_by_digest(name: str) -> None:
    instructions = read(name)
    assert instructions[0][0] == "ARG"
    argument, _, default = instructions[0][1].partition("=")
    assert re.fullmatch(r"python:3\.1[1-9]-slim-\w+@sha256:[0-9a-f]{64}", default)
    bases = [base.split()[0] for base in of("FROM", instructions)]
    assert all(base in (f"${{{argument}}}", "build") for base in bases)


def test_dependencies__are_installed_by_hash(name: str) -> None:
    """Only torch's CPU build has no hash: it is in no lock (requirements/README.md)."""
    locks = {GPU: {"${LOCK}", "build"}, SERVICES: {"services", "build"}}
    steps = [step for run in of("RUN", read(name)) for step in re.split(r"&&|;", run)]
    installs = [step for step in steps if "pip install" in step]
    found = {re.findall(r"requirements/(\S+)\.lock", step)[0] for step in installs
             if "--no-deps --require-hashes" in step}  # fmt: skip
    assert found == locks[name]
    rest = [step for step in installs if "--require-hashes" not in step]
    assert all("--no-deps" in step and re.search(r"torch|dist/", step) for step in rest)


def test_user__is_not_root(name: str) -> None:
    users = of("USER", final_stage(name))
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    after = final_stage(name)[final_stage(name).index(("USER", users[-1])) :]
    assert not of("RUN", after)


def test_process__gets_sigterm(name: str) -> None:
    """Exec form throughout: a shell as process 1 would keep the signal to itself."""
    stage = final_stage(name)
    entry, command = json.loads(of("ENTRYPOINT", stage)[-1]), json.loads(of("CMD", stage)[-1])
    assert entry == ["/usr/bin/tini", "--"]
    assert "tini" in of("RUN", stage)[0]
    assert command == [COMMANDS[name]]
    assert of("STOPSIGNAL", stage) == ["SIGTERM"]


def test_environment__names_existing_settings_and_writes_to_tmp_only(name: str) -> None:
    environment = dict(
        pair.split("=", 1) for block in of("ENV", final_stage(name)) for pair in block.split()
    )
    ours = {variable for variable in environment if variable.startswith("PIXSIFT_")}
    settings = ConsumerSettings if name == GPU else CuratorSettings
    assert ours <= {f"PIXSIFT_{field.upper()}" for field in settings.model_fields}
    for variable in ("HOME", "PIXSIFT_HEALTH_FILE"):
        assert environment[variable].startswith("/tmp")
    assert not re.search(r"(?i)secret|password|token|aws_", " ".join(environment))
    if name == GPU:
        assert environment["HF_HUB_OFFLINE"] == "1"
        defaults = {a.partition("=")[0]: a.partition("=")[2] for a in of("ARG", read(name))}
        assert environment["PIXSIFT_DEVICE"] == "${DEVICE}" and defaults["DEVICE"] == "cuda"
        # As documented, without arguments, it must start: a model that needs no pin.
        assert defaults["MODEL"] == "efficientnet-lite0"


def test_build_context__holds_what_is_copied_and_no_more(name: str) -> None:
    folders = {"localstack", "requirements"}  # of each, only the files that are named
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {rule[1:] for rule in rules if rule.startswith("!")} - folders
    taken = {source for other in COMMANDS for sources, _ in copied(other) for source in sources}
    assert {"*", *(f"{folder}/*" for folder in folders)} <= set(rules)
    assert taken == allowed
    assert all((ROOT / source).exists() for source in taken)


def test_build__of_what_is_copied_makes_the_whole_wheel(name: str, tmp_path: Path) -> None:
    """Links that lead out of what is copied end the build; here that takes seconds to see."""
    for sources, destination in copied(name):
        for source in sources:
            target = tmp_path / destination.strip("/")
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, target, symlinks=True, ignore=ignore)
            else:
                target = target / source if destination == "./" else target / Path(source).name
                target.parent.mkdir(exist_ok=True)
                shutil.copy2(ROOT / source, target, follow_symlinks=False)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert list((tmp_path / "out").glob("*.whl"))


def test_heartbeat__is_told_from_a_stale_one_and_from_a_refused_login(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "heartbeat"
    assert "no heartbeat" in (problem(str(file), now=0) or "")
    assert "PIXSIFT_HEALTH_FILE" in (problem("", now=0) or "")
    heart = Heartbeat(str(file))
    heart.touch()
    touched = file.stat().st_mtime
    assert problem(str(file), now=touched + MAX_AGE_SECONDS) is None
    assert "121 s ago" in (problem(str(file), now=touched + 121) or "")
    heart.refuse(f"{name}: the login is refused")
    assert problem(str(file), now=time.time()) == f"{name}: the login is refused"
    heart.touch()
    assert problem(str(file), now=time.time()) is None


def test_heartbeat__beats_through_long_work_but_not_for_ever(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with Heartbeat(str(file)).busy(longest_seconds=60, every=0.01):
        until = time.monotonic() + 30
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.01)
    file.unlink()
    with Heartbeat(str(file)).busy(longest_seconds=0, every=0.01):
        time.sleep(0.1)
    assert not file.exists()


@pytest.mark.parametrize(("age", "status"), [(0.0, 0), (500.0, 1)])
def test_health__command_of_the_image_exits_by_the_heartbeat(
    name: str, tmp_path: Path, age: float, status: int
) -> None:
    arguments = of("HEALTHCHECK", final_stage(name))[0]
    command = json.loads(arguments[arguments.index("[") :])
    assert command[0] == "python"
    file = tmp_path / "heartbeat"
    file.touch()
    os.utime(file, (time.time() - age, time.time() - age))
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env={"PIXSIFT_HEALTH_FILE": str(file), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("option", ["--help", "--nonsense"])
def test_command__of_a_service_explains_itself_instead_of_starting(name: str, option: str) -> None:
    module = COMMANDS[name].replace("-", "_")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module}.main import main; main()", option],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == (0 if option == "--help" else 2)
    assert "docs/settings.md" in done.stdout if option == "--help" else "usage" in done.stderr
