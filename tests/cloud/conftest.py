"""MiniStack: an emulator from pip that enforces IAM policies, on loopback.

Named by ``MINISTACK_PYTHON``, or found in ``.venv-ministack``; without either its tests skip.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.config import Config

if TYPE_CHECKING:
    from cloud.scene import Scene

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where it answers, and clients with the right to everything."""

    url: str

    def client(self, service: str) -> Any:
        """As the root of the account."""
        return boto3.client(
            cast(Any, service), endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 2}),
        )  # fmt: skip


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Cloud]:
    """A MiniStack with that environment, in a folder of its own; skips where it is absent."""
    python = os.environ.get("MINISTACK_PYTHON", str(ROOT / ".venv-ministack" / "bin" / "python"))
    if not Path(python).exists():
        pytest.skip("no MiniStack: make .venv-ministack/ready")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "ministack"], cwd=folder, stdout=log, stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "AUTH": "true",
                 "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), **environment},
        )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < until, (
                folder / "log"
            ).read_text()[-2000:]
            time.sleep(0.2)
        yield Cloud(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running(tmp_path_factory.mktemp("ministack")) as cloud:
        yield cloud


@pytest.fixture
def scene(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, tmp_path: Path
) -> "Iterator[Scene]":
    """A world whose consumer, with every right, has kept two images; in an emulator of its own."""
    from cloud.scene import made_scene  # it imports this module

    with (
        running(tmp_path_factory.mktemp("ministack")) as cloud,
        made_scene(cloud, database_url, tmp_path) as made,
    ):
        yield made
