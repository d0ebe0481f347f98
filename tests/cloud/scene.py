"""One world with kept images, in which every process has a role and queues of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from cloud.conftest import Cloud
from cloud.enforced import ACCOUNT, Change, World
from cloud.s3_rules import s3_rules
from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule
from pixsift_infra.policies import ROLES, Places, curator
from pixsift_infra.tasks import JOBS


@dataclass
class Scene:
    cloud: Cloud
    world: World
    database_url: str
    folder: Path
    s3_url: str

    def places(self, name: str) -> Places:
        """The world's buckets, with queues called after ``name``."""
        queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}-"
        return replace(
            self.world.places, ingest=f"{queue}ingest", ingest_dlq=f"{queue}ingest-dlq",
            requests=f"{queue}requests", requests_dlq=f"{queue}requests-dlq",
        )  # fmt: skip

    def environment(self, name: str, statements: list[dict[str, Any]]) -> dict[str, str]:
        return {
            **self.world.login(statements, name), "PIXSIFT_DATABASE_URL": self.database_url,
            "AWS_ENDPOINT_URL_S3": self.s3_url,
            "PIXSIFT_SNAPSHOT_QUEUE": f"{name}-requests", "PIXSIFT_INGEST_QUEUE": f"{name}-ingest",
            "PIXSIFT_INGEST_DLQ": f"{name}-ingest-dlq", "PIXSIFT_REQUEST_POLL_SECONDS": "1",
            "PIXSIFT_STATE_DIR": str(self.folder / "no-loop"),
            "PIXSIFT_SPILL_DIR": str(self.folder),
        }  # fmt: skip

    def make_queues(self, name: str) -> dict[str, str]:
        """URL of each, by the end of its name."""
        sqs = self.cloud.client("sqs")
        return {end: sqs.create_queue(QueueName=f"{name}-{end}")["QueueUrl"]
                for end in ("requests", "requests-dlq", "ingest", "ingest-dlq")}  # fmt: skip

    def curator(self, name: str, change: Change) -> ConsumerProcess:
        sqs = self.cloud.client("sqs")
        url = self.make_queues(name)["requests"]
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
        self.make_queues(name)
        environment = self.environment(name, change(ROLES[task.role](self.places(name))))
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "pixsift"), *task.command[1:],
             *(["--older-than", "0"] if job == "reconcile" else [])],
            env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr


def same(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nothing is taken away."""
    return statements


@contextmanager
def made_scene(ministack: Cloud, database_url: str, tmp_path: Path) -> Iterator[Scene]:
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
            assert process.stop() == 0  # not killed: its thumbnails are written after the decisions
        yield Scene(ministack, world, database_url, tmp_path, s3_url)
