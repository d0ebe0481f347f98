"""Build hook of the wheel: puts the built console into it, where Node and npm's registry are."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of the wheel are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the console, except for an editable install: ``make console`` is for that."""
        path = Path(self.root) / "services" / "pixsift_server" / "console" / "build.py"
        if version == "editable" or not path.exists():  # an image's layer of dependencies has none
            return
        spec = spec_from_file_location("pixsift_console_build", path)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{path} cannot be loaded")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        obstacle = module.build(may_install_node=False)
        if obstacle:
            sys.stderr.write(f"the wheel has no console: {obstacle}\n")
