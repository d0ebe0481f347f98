"""A stand-in for Docker's Python package, which MiniStack runs ECS tasks with.

There is no Docker engine on the machines that test pixsift. So a task whose command is ``pixsift``
runs here as a process of this machine, with the environment of its task definition and the exit
status and lines of a real one; a service "runs" without a process, until it is stopped. Images
are not looked at. Only what MiniStack's ECS calls is here.

``STAND_IN_PIXSIFT`` is the command to run, ``STAND_IN_ENVIRONMENT_FILE`` (JSON) has what the
machine adds.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from . import errors

_KNOWN: "dict[str, Container]" = {}


class Container:
    """A process, or for a service nothing at all."""

    def __init__(self, image: str, command: list[str], environment: dict[str, str]) -> None:
        self.id = self.name = uuid4().hex
        self.attrs: dict[str, Any] = {"Config": {"Image": image}, "NetworkSettings": {}}
        self.labels: dict[str, str] = {}
        self._log = Path(tempfile.mkdtemp()) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        if command[:1] == ["pixsift"]:
            given = json.loads(Path(os.environ["STAND_IN_ENVIRONMENT_FILE"]).read_text())
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [os.environ["STAND_IN_PIXSIFT"], *command[1:]],
                    env={**environment, **given}, stdout=log, stderr=log,
                )  # fmt: skip
        else:
            self._log.touch()

    @property
    def status(self) -> str:
        ended = self._process.poll() is not None if self._process else self._stopped
        return "exited" if ended else "running"

    def reload(self) -> None:
        pass

    def wait(self, **_: Any) -> dict[str, int]:
        return {"StatusCode": self._process.wait() if self._process else 0}

    def logs(self, *, stream: bool = False, **_: Any) -> Iterator[bytes] | bytes:
        return self._follow() if stream else self._log.read_bytes()

    def _follow(self) -> Iterator[bytes]:
        while self.status == "running":
            time.sleep(0.05)
        yield self._log.read_bytes()

    def stop(self, **_: Any) -> None:
        self._stopped = True
        if self._process:
            self._process.terminate()

    def remove(self, **_: Any) -> None:
        self.stop()


class _Containers:
    def run(self, image: str, *, command: Any = None, environment: Any = None,
            **_: Any) -> Container:  # fmt: skip
        container = Container(image, list(command or []), dict(environment or {}))
        _KNOWN[container.id] = container
        return container

    def get(self, name: str) -> Container:
        if name not in _KNOWN:
            raise errors.NotFound(name)
        return _KNOWN[name]

    def list(self, **_: Any) -> list[Container]:
        return []


class _Images:
    def pull(self, *_: Any, **__: Any) -> None:
        pass

    def get(self, name: str) -> str:
        return name


class _Client:
    containers = _Containers()
    images = _Images()

    def close(self) -> None:
        pass


def from_env(**_: Any) -> _Client:
    """A client without an engine behind it."""
    return _Client()
