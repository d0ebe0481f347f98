"""The two ways to run LocalStack, from pip and in Docker, are the same release."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "localstack"


def test_compose__has_the_pinned_release_on_loopback_only() -> None:
    compose = (FOLDER / "compose.yaml").read_text("utf-8")
    pins = (FOLDER / "requirements.txt").read_text("utf-8")
    pinned = re.search(r"^localstack-core==(.+)$", pins, re.M)
    assert pinned is not None
    assert f"image: localstack/localstack:{pinned.group(1)}\n" in compose
    published = re.findall(r'ports: \["([^"]+)"\]', compose)
    assert len(published) == compose.count("ports:") == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_requirements__are_all_exact() -> None:
    lines = (FOLDER / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
