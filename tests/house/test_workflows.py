"""The public CI: actions pinned by digest, least rights, and only make targets that exist."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^ *(?:- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def jobs(workflow: Path) -> dict[str, Any]:
    """Jobs of a workflow by their name."""
    document: dict[str, Any] = yaml.safe_load(workflow.read_text("utf-8"))
    return dict(document["jobs"])


def commands(workflow: Path) -> Iterator[str]:
    """What the steps of a workflow run in a shell."""
    for job in jobs(workflow).values():
        for step in job["steps"]:
            yield step.get("run", "")


def test_workflows__are_there() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow__pins_every_action_by_digest(workflow: Path) -> None:
    lines = [line for line in workflow.read_text("utf-8").splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.match(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow__grants_nothing_by_default_and_limits_every_job(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text("utf-8"))["permissions"] == {}
    for name, job in jobs(workflow).items():
        assert job["permissions"], name
        assert job["timeout-minutes"] <= 120, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow__puts_no_expression_into_a_shell(workflow: Path) -> None:
    """A branch named like a command would run: values reach a shell as variables only."""
    assert [text for text in commands(workflow) if "${{" in text] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow__runs_make_targets_that_exist(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = {
        target for text in commands(workflow) for target in re.findall(r"\bmake ([a-z-]+)", text)
    }
    assert named
    assert named <= targets


def test_ci__tests_every_python_that_the_package_allows() -> None:
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={matrix[0]}"
    assert matrix == ["3.11", "3.12", "3.13"]


def test_ci__builds_every_image() -> None:
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["images"]["strategy"]["matrix"][
        "image"
    ]
    assert sorted(matrix) == sorted(path.suffix[1:] for path in ROOT.glob("Dockerfile.*"))


def test_renovate__reads_as_json_and_leaves_the_locks_to_make() -> None:
    rules = json.loads((ROOT / "renovate.json").read_text("utf-8"))["packageRules"]
    assert {"requirements/*.lock"} in [set(rule.get("matchFileNames", ())) for rule in rules]
