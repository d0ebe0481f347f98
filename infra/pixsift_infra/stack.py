"""The events stack: where images land, who hears of it, and who asks for snapshots.

Buckets, queues and the notification between them are one stack: apart they would refer to each
other in a circle (aws-cdk#5760). LocalStack gets the same template as AWS.
"""

import jsii
from aws_cdk import CfnOutput, CfnParameter, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk.interfaces.aws_events import IRuleRef
from constructs import Construct

from pixsift_infra.ingest import Bucket, QueueWithDlq, allow_sending

SCHEDULED_IMAGES = 1000
"""Images in a scheduled snapshot, at most."""


class EventsStack(Stack):
    """Raw, curated and derived bucket; ingest and snapshot-request queues; the schedule.

    Bucket and queue names start with the parameter ``Prefix`` (bucket names are unique in the
    whole world), and the schedule is a parameter too: one template serves every place.
    """

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id, description="pixsift: object events and snapshot requests")
        prefix = CfnParameter(
            self, "Prefix", default="pixsift", allowed_pattern="[a-z0-9][a-z0-9-]{1,30}",
            description="first part of every bucket and queue name",
        ).value_as_string  # fmt: skip
        ingest = QueueWithDlq(
            self, "Ingest", queue_name=f"{prefix}-ingest", visibility_timeout=Duration.minutes(2)
        )
        requests = QueueWithDlq(
            self, "SnapshotRequests", queue_name=f"{prefix}-snapshot-requests",
            visibility_timeout=Duration.minutes(5),
        )  # fmt: skip
        raw = Bucket(self, "Raw", bucket_name=f"{prefix}-raw", versioned=True)
        Bucket(self, "Curated", bucket_name=f"{prefix}-curated", versioned=True)
        # Thumbnails can be made again from the raw bucket: versions of them are worth nothing.
        Bucket(self, "Derived", bucket_name=f"{prefix}-derived", versioned=False)

        # The bucket's ARN by name: by reference, bucket and queue policy would wait for each other.
        policy = allow_sending(
            ingest.queue, "s3.amazonaws.com", f"arn:{self.partition}:s3:::{prefix}-raw",
            account=self.account,
        )  # fmt: skip
        raw.notify(ingest, policy=policy)
        self._schedule_snapshots(requests)
        CfnOutput(self, "IngestQueueUrl", value=ingest.queue.queue_url)
        CfnOutput(self, "SnapshotQueueUrl", value=requests.queue.queue_url)

    def _schedule_snapshots(self, requests: QueueWithDlq) -> None:
        schedule = CfnParameter(
            self, "SnapshotSchedule", default="rate(1 day)",
            description="when a snapshot is requested: rate(...) or cron(...)",
        ).value_as_string  # fmt: skip
        collection = CfnParameter(
            self, "SnapshotCollection", default="default",
            description="the collection that the scheduled snapshot is made of",
        ).value_as_string  # fmt: skip
        rule = events.Rule(
            self, "SnapshotSchedule-Rule", schedule=events.Schedule.expression(schedule),
            description="asks the curator for a snapshot",
        )  # fmt: skip
        rule.add_target(_QueueTarget(requests, message=scheduled_request(collection)))
        for queue in (requests.queue, requests.dlq):
            allow_sending(queue, "events.amazonaws.com", rule.rule_arn, account=self.account)


@jsii.implements(events.IRuleTarget)
class _QueueTarget:
    """A queue as the target of a rule; the library's own grants without ``aws:SourceAccount``."""

    def __init__(self, target: QueueWithDlq, *, message: dict[str, object]) -> None:
        self._target = target
        self._message = message

    def bind(self, rule: IRuleRef, id: str | None = None) -> events.RuleTargetConfig:
        """What CDK writes into the rule."""
        return events.RuleTargetConfig(
            arn=self._target.queue.queue_arn,
            input=events.RuleTargetInput.from_object(self._message),
            dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                arn=self._target.dlq.queue_arn
            ),
        )


def scheduled_request(collection: str) -> dict[str, object]:
    """The message of the schedule, a valid ``pixsift.messages.SnapshotRequest``.

    Its id is the event's own: a constant would make every later tick a repetition of the first.
    """
    return {
        "schema": "pixsift.snapshot-request/1",
        "request_id": events.EventField.event_id,
        "collection": collection,
        "name": "scheduled",
        "select": {"strategy": "k_center", "k": SCHEDULED_IMAGES, "at_most": True},
    }
