"""The events stack: buckets for images, queues for their events, schedules for snapshots.

Buckets, queues and the notification between them are one stack: in separate stacks they would refer
to each other in a circle (aws-cdk#5760). LocalStack gets the stage ``local`` of the same code.
"""

from collections.abc import Sequence
from typing import Any

import jsii
from aws_cdk import CfnOutput, CfnParameter, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk.interfaces.aws_events import IRuleRef
from constructs import Construct

from pixsift_infra.ingest import Bucket, QueueWithDlq, allow_sending
from pixsift_infra.stage import COLLECTION, Schedule, Stage

_S3 = "s3.amazonaws.com"
_OBJECT_EVENTS = ("Object Created", "Object Deleted", "Object Restore Completed")


class EventsStack(Stack):
    """Raw, curated and derived bucket; ingest and snapshot-request queues; the schedules.

    Names start with the parameter ``Prefix``, and the schedules are parameters too: one template
    serves every place. The raw bucket may exist already; then its events come by EventBridge, in
    addition to its other notifications.
    """

    def __init__(self, scope: Construct, id: str, stage: Stage, **options: Any) -> None:
        super().__init__(
            scope, id, description="pixsift: object events and snapshot requests", **options
        )
        self._stage = stage
        self._prefix = CfnParameter(
            self, "Prefix", default=stage.resource_prefix,
            allowed_pattern="[a-z0-9][a-z0-9-]{1,23}",
            description="first part of every bucket and queue name",
        ).value_as_string  # fmt: skip
        ingest = [
            QueueWithDlq(
                self, _id("Ingest", index), visibility_timeout=Duration.minutes(2),
                queue_name=f"{self._prefix}-{stage.ingest_queue(space)}",
            )
            for index, space in enumerate(stage.events.spaces)
        ]  # fmt: skip
        requests = QueueWithDlq(
            self, "SnapshotRequests", queue_name=f"{self._prefix}-snapshot-requests",
            visibility_timeout=Duration.minutes(5),
        )  # fmt: skip
        self._buckets(ingest)
        for index, schedule in enumerate(stage.events.schedules):
            self._schedule(requests, schedule, index)
        for index, queue in enumerate(ingest):
            self._output(_id("IngestQueue", index), queue)
        self._output("SnapshotQueue", requests)

    def _buckets(self, ingest: Sequence[QueueWithDlq]) -> None:
        settings = self._stage.events
        raw_name = settings.raw_bucket or self._bucket_name("raw")
        if settings.raw_bucket:
            self._listen(ingest)
        else:
            raw = Bucket(
                self, "Raw", bucket_name=raw_name, versioned=True,
                noncurrent_days=settings.raw_noncurrent_days,
                intelligent=settings.raw_storage == "intelligent", key_arn=settings.raw_key_arn,
            )  # fmt: skip
            self._notify(raw, raw_name, ingest)
        curated = self._bucket_name("curated")
        Bucket(
            self, "Curated", bucket_name=curated, versioned=True,
            noncurrent_days=settings.curated_noncurrent_days,
        )  # fmt: skip
        # Thumbnails can be made again from the raw bucket, so their versions are not kept.
        derived = self._bucket_name("derived")
        Bucket(
            self, "Derived", bucket_name=derived, versioned=False,
            expire_days=settings.thumbnail_days,
        )  # fmt: skip
        names = {
            "RawBucketName": raw_name,
            "CuratedBucketName": curated,
            "DerivedBucketName": derived,
        }
        for output, value in names.items():
            CfnOutput(self, output, value=value)

    def _bucket_name(self, role: str) -> str:
        if self._stage.events.bucket_names == "plain":
            return f"{self._prefix}-{role}"
        return f"{self._prefix}-{role}-{self.account}-{self.region}"

    def _notify(self, raw: Bucket, raw_name: str, ingest: Sequence[QueueWithDlq]) -> None:
        """To the one queue, or through a topic to several: S3 notifies one target per event."""
        # The bucket's ARN by name: by reference, bucket and policy would wait for each other.
        arn = f"arn:{self.partition}:s3:::{raw_name}"
        if len(ingest) == 1:
            policy = allow_sending(ingest[0].queue, _S3, arn, account=self.account)
            raw.notify(ingest[0].queue, policy=policy)
            return
        topic = self._topic()
        policy = topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(_S3)], actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={
                    "ArnLike": {"aws:SourceArn": arn},
                    "StringEquals": {"aws:SourceAccount": self.account},
                },
            )
        )  # fmt: skip
        raw.notify(topic, policy=policy)
        for queue in ingest:
            subscription = subscriptions.SqsSubscription(
                queue.queue, raw_message_delivery=True, dead_letter_queue=queue.dlq
            )
            topic.add_subscription(subscription)

    def _topic(self) -> sns.Topic:
        local = self._stage.events.bucket_names == "plain"  # LocalStack in host mode has no keys
        key = None if local else kms.Key(
            self, "ObjectEventsKey", enable_key_rotation=True,
            description="names of objects on their way to the ingest queues",
        )  # fmt: skip
        if key is not None:
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(_S3)],
                    actions=["kms:GenerateDataKey", "kms:Decrypt"], resources=["*"],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )  # fmt: skip
        return sns.Topic(
            self, "ObjectEvents", topic_name=f"{self._prefix}-object-events", master_key=key,
            enforce_ssl=True,
        )  # fmt: skip

    def _listen(self, ingest: Sequence[QueueWithDlq]) -> None:
        settings = self._stage.events
        account = settings.raw_account or self.account
        rule = events.Rule(
            self, "ObjectRule", description=f"objects of {settings.raw_bucket}",
            event_pattern=events.EventPattern(
                source=["aws.s3"], account=[account], detail_type=list(_OBJECT_EVENTS),
                detail={"bucket": {"name": [settings.raw_bucket]}},
            ),
        )  # fmt: skip
        for queue in ingest:
            rule.add_target(_QueueTarget(queue))
            for one in (queue.queue, queue.dlq):
                allow_sending(one, "events.amazonaws.com", rule.rule_arn, account=self.account)
        if settings.raw_account:
            # The other account forwards them with a rule of its own (docs/deploy.md).
            events.CfnEventBusPolicy(
                self, "OtherAccount", statement_id=f"{self._stage.resource_prefix}-objects",
                statement={
                    "Effect": "Allow", "Action": "events:PutEvents",
                    "Principal": {"AWS": f"arn:{self.partition}:iam::{account}:root"},
                    "Resource": self.format_arn(
                        service="events", resource="event-bus", resource_name="default"
                    ),
                    "Condition": {"StringEquals": {"events:source": "aws.s3"}},
                },
            )  # fmt: skip

    def _schedule(self, requests: QueueWithDlq, schedule: Schedule, index: int) -> None:
        expression = CfnParameter(
            self, _id("SnapshotSchedule", index), default=schedule.expression,
            description="when a snapshot is requested: rate(...) or cron(...), UTC",
        ).value_as_string  # fmt: skip
        collection = CfnParameter(
            self, _id("SnapshotCollection", index), default=schedule.collection,
            allowed_pattern=COLLECTION.strip("^$"),
            description="the collection that the scheduled snapshot is made of",
        ).value_as_string  # fmt: skip
        state = CfnParameter(
            self, _id("SnapshotState", index), allowed_values=["ENABLED", "DISABLED"],
            default="ENABLED" if schedule.enabled else "DISABLED",
            description="whether the schedule fires",
        ).value_as_string  # fmt: skip
        rule = events.Rule(
            self, _id("SnapshotSchedule-Rule", index),
            schedule=events.Schedule.expression(expression),
            description="asks the curator for a snapshot",
        )  # fmt: skip
        resource = rule.node.default_child
        assert isinstance(resource, events.CfnRule)  # noqa: S101 - what L2 rules are made of
        resource.state = state
        message = scheduled_request(collection, schedule.images)
        rule.add_target(_QueueTarget(requests, message=message))
        for queue in (requests.queue, requests.dlq):
            allow_sending(queue, "events.amazonaws.com", rule.rule_arn, account=self.account)

    def _output(self, name: str, queue: QueueWithDlq) -> None:
        CfnOutput(self, f"{name}Url", value=queue.queue.queue_url)
        CfnOutput(self, f"{name}Arn", value=queue.queue.queue_arn)
        CfnOutput(self, f"{name}DlqUrl", value=queue.dlq.queue_url)
        CfnOutput(self, f"{name}DlqArn", value=queue.dlq.queue_arn)


@jsii.implements(events.IRuleTarget)
class _QueueTarget:
    """A queue as the target of a rule; the library's own grants without ``aws:SourceAccount``."""

    def __init__(self, target: QueueWithDlq, *, message: dict[str, object] | None = None) -> None:
        self._target = target
        self._message = message

    def bind(self, rule: IRuleRef, id: str | None = None) -> events.RuleTargetConfig:
        """What CDK writes into the rule; without a message, the event itself."""
        message = self._message
        return events.RuleTargetConfig(
            arn=self._target.queue.queue_arn,
            input=None if message is None else events.RuleTargetInput.from_object(message),
            dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                arn=self._target.dlq.queue_arn
            ),
        )


def scheduled_request(collection: str, images: int) -> dict[str, object]:
    """The message of the schedule, a valid ``pixsift.messages.SnapshotRequest``.

    Its id is the event's own: a constant would make every later tick a repetition of the first.
    """
    return {
        "schema": "pixsift.snapshot-request/1",
        "request_id": events.EventField.event_id,
        "collection": collection,
        "name": "scheduled",
        "select": {"strategy": "k_center", "k": images, "at_most": True},
    }


def _id(name: str, index: int) -> str:
    """The first of a list keeps its plain id: a second one must not rename it."""
    return name if index == 0 else f"{name}{index + 1}"
