"""A wrong setting ends the consumer with one line that names it and the remedy."""

import os
import subprocess
import sys

import pytest

from faults.consumer_process import ROOT
from faults.stub_aws import StubAws


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    folders = os.pathsep.join(str(ROOT / name) for name in ("shared", "services"))
    return subprocess.run(
        [sys.executable, "-m", "pixsift_consumer.main"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": folders, "PIXSIFT_MODEL": "stub",
             "AWS_DEFAULT_REGION": "us-east-1", **settings},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({}, 2, "PIXSIFT_DATABASE_URL"),
        ({"PIXSIFT_MODEL": "no-such-model"}, 2, "no-such-model"),
        ({"PIXSIFT_FAULT_POINT": "nowhere", "PIXSIFT_DATABASE_URL": "postgresql:///x"}, 2,
         "PIXSIFT_FAULT_POINT"),
        ({"PIXSIFT_VISIBILITY_TIMEOUT_SECONDS": "soon"}, 2, "PIXSIFT_VISIBILITY_TIMEOUT_SECONDS"),
    ],
)  # fmt: skip
def test_start__a_mistake_is_one_line(settings: dict[str, str], status: int, words: str) -> None:
    ended = start(**settings)
    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_start__a_dependency_that_does_not_answer(database_url: str) -> None:
    with StubAws() as aws:
        nobody = aws.environment()
    ended = start(PIXSIFT_DATABASE_URL=database_url, **nobody)
    assert ended.returncode == 3
    assert "pixsift-ingest" in ended.stderr and "Traceback" not in ended.stderr
