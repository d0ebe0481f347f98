"""The GPU consumer's Dockerfile, read as text: no Docker is needed, and none is run."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from pixsift.config import ConsumerSettings
from pixsift_consumer.health import MAX_AGE_SECONDS, problem

ROOT = Path(__file__).resolve().parents[2]
Instruction = tuple[str, str]


def read() -> list[Instruction]:
    """(keyword, arguments) in order; comments dropped, continued lines joined."""
    lines = (ROOT / "Dockerfile.gpu-consumer").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(keyword, " ".join(rest.split())) for keyword, _, rest in pairs]


def final_stage() -> list[Instruction]:
    instructions = read()
    last = max(i for i, (keyword, _) in enumerate(instructions) if keyword == "FROM")
    return instructions[last:]


def of(keyword: str, instructions: list[Instruction]) -> list[str]:
    return [arguments for found, arguments in instructions if found == keyword]


def test_base__is_a_slim_python_given_by_a_build_argument() -> None:
    instructions = read()
    assert instructions[0][0] == "ARG"
    name, _, default = instructions[0][1].partition("=")
    assert "slim" in default
    bases = [base.split()[0] for base in of("FROM", instructions)]
    assert all(base in (f"${{{name}}}", "build") for base in bases)
    version = re.search(r"python:(\d+)\.(\d+)", default)
    assert version
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_user__is_not_root() -> None:
    users = of("USER", final_stage())
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    after = final_stage()[final_stage().index(("USER", users[-1])) :]
    assert not of("RUN", after)


def test_process__gets_sigterm() -> None:
    """Exec form throughout: a shell as process 1 would keep the signal to itself."""
    stage = final_stage()
    entry, command = json.loads(of("ENTRYPOINT", stage)[-1]), json.loads(of("CMD", stage)[-1])
    assert entry == ["/usr/bin/tini", "--"]
    assert "tini" in of("RUN", stage)[0]
    assert command == ["pixsift-consumer"]
    assert of("STOPSIGNAL", stage) == ["SIGTERM"]


def test_environment__names_existing_settings_and_writes_to_tmp_only() -> None:
    environment = dict(
        pair.split("=", 1) for block in of("ENV", final_stage()) for pair in block.split()
    )
    ours = {name for name in environment if name.startswith("PIXSIFT_")}
    assert ours <= {f"PIXSIFT_{name.upper()}" for name in ConsumerSettings.model_fields}
    assert environment["PIXSIFT_DEVICE"] == "cuda"
    for name in ("HOME", "PIXSIFT_HEALTH_FILE", "TORCHINDUCTOR_CACHE_DIR"):
        assert environment[name].startswith("/tmp")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert not re.search(r"(?i)secret|password|token|aws_", " ".join(environment))


def test_weights__are_pinned_and_dependencies_constrained() -> None:
    runs = of("RUN", read())
    assert any("-c constraints.txt" in run and "[gpu]" in run for run in runs)
    assert any("--no-deps ." in run for run in runs)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    made = next(run for run in runs if run.startswith("mkdir -p shared"))
    assert set(packages) <= set(made.split("&&")[0].split())  # or the layer would not build
    bake = next(run for run in runs if "locate" in run)
    assert '[ -n "${MODEL_REVISION}" ]' in bake
    code = re.search(r"-c '(.*?)'", bake)
    assert code
    compile(code[1], "Dockerfile", "exec")
    assert not of("ADD", read())


def test_build_context__holds_what_is_copied_and_no_more() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for arguments in of("COPY", read())
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert "*" in rules
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_problem__tells_a_fresh_heartbeat_from_a_stale_one(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    assert "no heartbeat" in (problem(str(file), now=0) or "")
    assert "PIXSIFT_HEALTH_FILE" in (problem("", now=0) or "")
    file.touch()
    touched = file.stat().st_mtime
    assert problem(str(file), now=touched + MAX_AGE_SECONDS) is None
    assert "121 s ago" in (problem(str(file), now=touched + 121) or "")


@pytest.mark.parametrize(("age", "status"), [(0.0, 0), (500.0, 1)])
def test_health__command_of_the_image_exits_by_the_heartbeat(
    tmp_path: Path, age: float, status: int
) -> None:
    arguments = of("HEALTHCHECK", final_stage())[0]
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
