"""Curator and jobs under their own policies, enforced; each part that is taken away is noticed.

One world with kept images; every curator has a role and a queue of its own.
Jobs are the commands of their task definitions, so that command and policy are tried together.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud.conftest import Cloud
from cloud.enforced import ACCOUNT, REFUSED, Change, World, elsewhere, less, without
from cloud.s3_rules import s3_rules
from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule
from pixsift_infra.policies import ROLES, Places, curator
from pixsift_infra.tasks import JOBS

CURATORS: dict[str, Change] = {
    "cur-read": without("ReadRaw"),
    "cur-version": less("ReadRaw", "s3:GetObjectVersion"),
    "cur-write": less("WriteSnapshots", "s3:PutObject"),
    "cur-receive": less("Requests", "sqs:ReceiveMessage"),
    "cur-delete": less("Requests", "sqs:DeleteMessage"),
    "cur-url": less("Requests", "sqs:GetQueueUrl"),
    "cur-tell": without("Tell"),
    "cur-raw": elsewhere("ReadRaw"),
}
"""Not among them: FindCurated and ListRaw tell missing from refused, which MiniStack does not; tags
of copies, which it copies without asking; AbortMultipartUpload, for copies above 5 GB."""
JOB_LOSSES: dict[str, tuple[str, Change]] = {
    "rec-list": ("reconcile", less("ListRaw", "s3:ListBucketVersions")),
    "rec-send": ("reconcile", less("Send", "sqs:SendMessage")),
    "rec-url": ("reconcile", less("Send", "sqs:GetQueueUrl")),
    "rec-raw": ("reconcile", elsewhere("ListRaw")),
    "aud-read": ("audit", without("ReadSnapshots")),
}
"""Not among them: ListSnapshots, see above; Password, as these jobs log in without the secret."""


@dataclass
class Scene:
    cloud: Cloud
    world: World
    database_url: str
    folder: Path
    s3_url: str

    def places(self, name: str) -> Places:
        """The world's, with a queue of requests called after ``name``."""
        requests = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}-requests"
        return replace(self.world.places, requests=requests)

    def environment(self, name: str, statements: list[dict[str, Any]]) -> dict[str, str]:
        return {
            **self.world.login(statements, name), "PIXSIFT_DATABASE_URL": self.database_url,
            "AWS_ENDPOINT_URL_S3": self.s3_url,
            "PIXSIFT_SNAPSHOT_QUEUE": f"{name}-requests", "PIXSIFT_REQUEST_POLL_SECONDS": "1",
            "PIXSIFT_STATE_DIR": str(self.folder / "no-loop"),
            "PIXSIFT_SPILL_DIR": str(self.folder),
        }  # fmt: skip

    def curator(self, name: str, change: Change) -> ConsumerProcess:
        sqs = self.cloud.client("sqs")
        url = sqs.create_queue(QueueName=f"{name}-requests")["QueueUrl"]
        request = {
            "schema": "pixsift.snapshot-request/1", "request_id": name, "collection": "roles",
            "name": name, "select": {"strategy": "k_center", "k": 2, "seed": 7},
        }  # fmt: skip
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(request))
        environment = self.environment(name, change(curator(self.places(name))))
        return ConsumerProcess(environment, log=self.folder / name, module="pixsift_curator.main")

    def is_published(self, name: str) -> bool:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(
                "SELECT state FROM snapshot WHERE name = %s", (name,)
            ).fetchone()
        return row is not None and row[0] == "published"

    def waiting(self, name: str) -> int:
        sqs = self.cloud.client("sqs")
        url = sqs.get_queue_url(QueueName=f"{name}-requests")["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[each]) for each in names)

    def job(self, name: str, job: str, change: Change) -> tuple[int, str]:
        """Exit status and lines of a job's command under its own role."""
        task = next(each for each in JOBS if each.name == job)
        environment = self.environment(name, change(ROLES[task.role](self.places(name))))
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "pixsift"), *task.command[1:],
             *(["--older-than", "0"] if job == "reconcile" else [])],
            env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def scene(ministack: Cloud, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    """A world whose consumer, with every right, has kept two images."""
    space = load_embedder("stub").space
    with ExitStack() as stack:
        s3_url, _ = stack.enter_context(s3_rules(ministack.url))
        database = stack.enter_context(Database(database_url))
        ledger = Ledger(database, actor="test")
        ledger.ensure_space(space)
        ledger.create_collection(
            "roles", sources=[SourceRule("roles-raw")], space_id=space.space_id, epsilon=0.02
        )
        world = World(ministack, "roles")
        expected = world.upload()
        environment = {
            **world.login(ROLES["consumer"](world.places)), "PIXSIFT_DATABASE_URL": database_url,
        }  # fmt: skip
        with ConsumerProcess(environment, log=tmp_path / "consumer") as process:
            wait_until(lambda: set(outcomes(database_url, "roles")) == expected, seconds=90,
                       what=process.log_text)  # fmt: skip
        yield Scene(ministack, world, database_url, tmp_path, s3_url)


def same(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return statements


@pytest.mark.full
def test_curator_and_jobs__work_with_their_policies_and_show_the_loss_of_any_part(
    scene: Scene,
) -> None:
    with ExitStack() as stack:
        sound = stack.enter_context(scene.curator("cur-whole", same))
        mutants = {name: stack.enter_context(scene.curator(name, change))
                   for name, change in CURATORS.items()}  # fmt: skip
        wait_until(lambda: scene.is_published("cur-whole"), seconds=240, what=sound.log_text)
        wait_until(lambda: scene.waiting("cur-whole") == 0, seconds=60, what=sound.log_text)
        assert not REFUSED.search(sound.log_text()), sound.log_text()

        def silent() -> dict[str, str]:
            logs = {name: mutant.log_text() for name, mutant in mutants.items()}
            return {name: log for name, log in logs.items() if not REFUSED.search(log)}

        wait_until(lambda: not silent(), seconds=120, what=lambda: str(silent()))

    # An object that no event told of: reconcile sends it.
    scene.cloud.client("s3").put_object(Bucket="roles-raw", Key="late.jpg", Body=b"late")
    for job in ("audit", "audit-sample"):
        status, lines = scene.job(f"job-{job}", job, same)
        assert status == 0, lines
    status, lines = scene.job("job-reconcile", "reconcile", same)
    assert status == 1 and not REFUSED.search(lines), lines  # something differed, and was sent
    for name, (job, change) in JOB_LOSSES.items():
        status, lines = scene.job(name, job, change)
        assert status != 0 and REFUSED.search(lines), (name, status, lines)
