"""What the tests of least privilege share: roles that an emulator enforces, and their loss."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cloud.conftest import Cloud
from faults.images import jpeg
from pixsift_infra.policies import Places, Statement

ACCOUNT = "000000000000"
BATCH_QUIRKS = {
    "sqs:DeleteMessage": "sqs:DeleteMessageBatch",
    "sqs:ChangeMessageVisibility": "sqs:ChangeMessageVisibilityBatch",
    "sqs:SendMessage": "sqs:SendMessageBatch",
}
"""MiniStack asks for actions of these names, which AWS does not have."""
REFUSED = re.compile(r"AccessDenied|access_denied|not authorized|thumbnail_failures|403")

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


@dataclass
class World:
    """One consumer's surroundings."""

    cloud: Cloud
    name: str

    def __post_init__(self) -> None:
        s3, sqs = self.cloud.client("s3"), self.cloud.client("sqs")
        for role in ("raw", "derived", "curated"):
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
            requests_dlq=queue("snapshot-requests-dlq"),
            event_bus=f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default",
            database_secret=f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:ledger",
        )  # fmt: skip

    def login(self, statements: list[Statement], role_name: str = "") -> dict[str, str]:
        """Credentials of a role with these statements, as variables."""
        name = role_name or self.name
        iam, sts = self.cloud.client("iam"), self.cloud.client("sts")
        anybody = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        trust = {"Version": "2012-10-17", "Statement": [anybody]}
        role = iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps(trust)
        )["Role"]["Arn"]  # fmt: skip
        enforced = [_for_emulator(s) for s in statements if s["Action"]]
        policy = {"Version": "2012-10-17", "Statement": enforced}
        iam.put_role_policy(RoleName=name, PolicyName="least", PolicyDocument=json.dumps(policy))
        given = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.cloud.url,
            "PIXSIFT_INGEST_QUEUE": f"{self.name}-ingest",
            "PIXSIFT_INGEST_DLQ": f"{self.name}-ingest-dlq",
            "PIXSIFT_DERIVED_BUCKET": f"{self.name}-derived",
            "PIXSIFT_CURATED_BUCKET": f"{self.name}-curated",
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


def _for_emulator(statement: Statement) -> Statement:
    more = [BATCH_QUIRKS[action] for action in statement["Action"] if action in BATCH_QUIRKS]
    return {**statement, "Action": [*statement["Action"], *more]}


def _record(bucket: str, key: str, version: str) -> dict[str, Any]:
    return {
        "eventVersion": "2.1", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "versionId": version}},
    }  # fmt: skip
