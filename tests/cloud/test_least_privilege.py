"""The consumer under its own policy, enforced: with it all works, without any part it shows.

The statements are those that CDK writes into the role (``tests/infra`` compares them). Consumers
run at the same time, each with a role, queues and buckets of its own. What counts as noticed is a
refusal that the process itself reports, never that it is slow.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud.conftest import Cloud
from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from faults.images import jpeg
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule
from pixsift_infra.policies import Places, Statement, consumer

ACCOUNT = "000000000000"
BATCH_QUIRKS = {
    "sqs:DeleteMessage": "sqs:DeleteMessageBatch",
    "sqs:ChangeMessageVisibility": "sqs:ChangeMessageVisibilityBatch",
    "sqs:SendMessage": "sqs:SendMessageBatch",
}
"""MiniStack asks for actions of these names, which AWS does not have."""
_REFUSED = re.compile(r"AccessDenied|access_denied|not authorized|thumbnail_failures|403")

Change = Callable[[list[Statement]], list[Statement]]


def without(sid: str) -> Change:
    return lambda statements: [s for s in statements if s["Sid"] != sid]


def less(sid: str, action: str) -> Change:
    return lambda statements: [
        {**s, "Action": [a for a in s["Action"] if a != action]} if s["Sid"] == sid else s
        for s in statements
    ]


def elsewhere(sid: str) -> Change:
    return lambda statements: [
        {**s, "Resource": f"{s['Resource']}".replace("-raw", "-other").replace("-ingest", "-other")}
        if s["Sid"] == sid
        else s
        for s in statements
    ]


MUTATIONS: dict[str, Change] = {
    "no-read": without("ReadRaw"),
    "no-derived": without("FindDerived"),
    "no-ingest": without("Ingest"),
    "no-dlq": without("DeadLetters"),
    "no-version": less("ReadRaw", "s3:GetObjectVersion"),
    "no-send": less("Ingest", "sqs:SendMessage"),
    "no-delete": less("Ingest", "sqs:DeleteMessage"),
    "other-raw": elsewhere("ReadRaw"),
}
"""Not among them: ListRaw, as MiniStack answers 404 for what is missing, with or without the right
to list, where AWS answers 403; and WriteThumbnails, whose loss no process reported there."""


@dataclass
class World:
    """One consumer's surroundings."""

    cloud: Cloud
    name: str

    def __post_init__(self) -> None:
        s3, sqs = self.cloud.client("s3"), self.cloud.client("sqs")
        for role in ("raw", "derived"):
            s3.create_bucket(Bucket=f"{self.name}-{role}")
        s3.put_bucket_versioning(
            Bucket=f"{self.name}-raw", VersioningConfiguration={"Status": "Enabled"}
        )
        dlq = sqs.create_queue(QueueName=f"{self.name}-ingest-dlq")["QueueUrl"]
        names = ["QueueArn"]
        arn = sqs.get_queue_attributes(QueueUrl=dlq, AttributeNames=names)["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"})
        self.queue = sqs.create_queue(
            QueueName=f"{self.name}-ingest", Attributes={"RedrivePolicy": redrive}
        )["QueueUrl"]

    @property
    def places(self) -> Places:
        def queue(name: str) -> str:
            return f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}-{name}"

        return Places(
            raw=f"arn:aws:s3:::{self.name}-raw", curated=f"arn:aws:s3:::{self.name}-curated",
            derived=f"arn:aws:s3:::{self.name}-derived", ingest=queue("ingest"),
            ingest_dlq=queue("ingest-dlq"), requests=queue("snapshot-requests"),
            event_bus=f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default",
            database_secret=f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:ledger",
        )  # fmt: skip

    def login(self, statements: list[Statement]) -> dict[str, str]:
        """Credentials of a role with these statements, as variables."""
        iam, sts = self.cloud.client("iam"), self.cloud.client("sts")
        anybody = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        trust = {"Version": "2012-10-17", "Statement": [anybody]}
        role = iam.create_role(
            RoleName=self.name, AssumeRolePolicyDocument=json.dumps(trust)
        )["Role"]["Arn"]  # fmt: skip
        enforced = [_for_emulator(s) for s in statements if s["Action"]]
        policy = {"Version": "2012-10-17", "Statement": enforced}
        iam.put_role_policy(
            RoleName=self.name, PolicyName="least", PolicyDocument=json.dumps(policy)
        )
        given = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.cloud.url,
            "PIXSIFT_INGEST_QUEUE": f"{self.name}-ingest",
            "PIXSIFT_INGEST_DLQ": f"{self.name}-ingest-dlq",
            "PIXSIFT_DERIVED_BUCKET": f"{self.name}-derived",
            "NO_PROXY": urlsplit(self.cloud.url).hostname or "", "PIXSIFT_POLL_SECONDS": "1",
            "PYTHONUNBUFFERED": "1",  # as in the images: metrics are printed
            "PIXSIFT_DECODE_WORKERS": "1",
        }  # fmt: skip

    def upload(self) -> set[str]:
        """Two images in one message that was received before, and one that is gone by now."""
        s3, sqs = self.cloud.client("s3"), self.cloud.client("sqs")
        records, expected = [], set()
        for number, key in enumerate(("one.jpg", "two.jpg", "gone.jpg")):
            version = s3.put_object(Bucket=f"{self.name}-raw", Key=key, Body=jpeg(number))[
                "VersionId"
            ]
            records.append(_record(f"{self.name}-raw", key, version))
            expected.add(f"{key}@{version}")
            if key == "gone.jpg":
                s3.delete_object(Bucket=f"{self.name}-raw", Key=key, VersionId=version)
        for part in (records[:2], records[2:]):
            sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps({"Records": part}))
        # Received before, so that the consumer parts the message of two: it needs to send.
        for message in sqs.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=0
        ).get("Messages", []):
            sqs.change_message_visibility(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return expected


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with Database(database_url) as database:
        yield Ledger(database, actor="test")


def test_consumer__works_with_its_policy_and_shows_the_loss_of_any_part(
    ministack: Cloud, database_url: str, ledger: Ledger, tmp_path: Path
) -> None:
    space = load_embedder("stub").space
    ledger.ensure_space(space)
    with ExitStack() as stack:

        def start(name: str, change: Change) -> tuple[ConsumerProcess, set[str]]:
            world = World(ministack, name)
            ledger.create_collection(
                name, sources=[SourceRule(f"{name}-raw")], space_id=space.space_id, epsilon=0.02
            )
            environment = world.login(change(consumer(world.places)))
            expected = world.upload()
            environment["PIXSIFT_DATABASE_URL"] = database_url
            process = ConsumerProcess(environment, log=tmp_path / name)
            return stack.enter_context(process), expected

        sound, expected = start("whole", lambda statements: statements)
        mutants = {name: start(name, change)[0] for name, change in MUTATIONS.items()}
        wait_until(lambda: set(outcomes(database_url, "whole")) == expected, seconds=240,
                   what=sound.log_text)  # fmt: skip
        found = {k.partition("@")[0]: o[0] for k, o in outcomes(database_url, "whole").items()}
        assert found == {"one.jpg": "kept", "two.jpg": "kept", "gone.jpg": "gone"}
        assert not _REFUSED.search(sound.log_text()), sound.log_text()

        def silent() -> dict[str, str]:
            logs = {name: mutant.log_text() for name, mutant in mutants.items()}
            return {name: log for name, log in logs.items() if not _REFUSED.search(log)}

        wait_until(lambda: not silent(), seconds=90, what=lambda: str(silent()))


def _for_emulator(statement: Statement) -> Statement:
    more = [BATCH_QUIRKS[action] for action in statement["Action"] if action in BATCH_QUIRKS]
    return {**statement, "Action": [*statement["Action"], *more]}


def _record(bucket: str, key: str, version: str) -> dict[str, Any]:
    return {
        "eventVersion": "2.1", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "versionId": version}},
    }  # fmt: skip
