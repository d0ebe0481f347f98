"""Buckets and queues, with the settings that make them safe to run unattended."""

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

RECEIVES_BEFORE_DLQ = 5
"""An outage must not drive healthy messages there: the consumer stops receiving in one."""
INGEST_EVENTS = (
    "s3:ObjectCreated:*",
    "s3:ObjectRemoved:*",
    "s3:LifecycleExpiration:*",
    "s3:ObjectRestore:Completed",
)


class QueueWithDlq(Construct):
    """A queue, and the dead-letter queue its messages end in after too many receives."""

    def __init__(
        self, scope: Construct, id: str, *, queue_name: str, visibility_timeout: Duration
    ) -> None:
        super().__init__(scope, id)
        # Messages keep their age in the DLQ: its retention must be much longer than the source's.
        self.dlq = sqs.Queue(
            self, "Dlq", queue_name=f"{queue_name}-dlq", retention_period=Duration.days(14),
            visibility_timeout=visibility_timeout,
            encryption=sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True,
        )  # fmt: skip
        self.queue = sqs.Queue(
            self, "Queue", queue_name=queue_name, retention_period=Duration.days(7),
            visibility_timeout=visibility_timeout, receive_message_wait_time=Duration.seconds(20),
            encryption=sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True,
            dead_letter_queue=sqs.DeadLetterQueue(
                queue=self.dlq, max_receive_count=RECEIVES_BEFORE_DLQ
            ),
        )  # fmt: skip
        acknowledge(self.dlq, "AwsSolutions-SQS3", "this is the dead-letter queue itself")


class Bucket(Construct):
    """A private bucket: TLS only, no public access, and every kind of leftover expires.

    Kept when the stack is deleted, but not when its first creation fails, so that it can be tried
    again.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        bucket_name: str,
        versioned: bool,
        noncurrent_days: int | None = None,
        expire_days: int | None = None,
        intelligent: bool = False,
        key_arn: str = "",
    ) -> None:
        super().__init__(scope, id)
        key = kms.Key.from_key_arn(self, "Key", key_arn) if key_arn else None
        transitions = (
            [s3.Transition(storage_class=s3.StorageClass.INTELLIGENT_TIERING,
                           transition_after=Duration.days(0))]
            if intelligent else None
        )  # fmt: skip
        self.bucket = s3.Bucket(
            self, "Bucket", bucket_name=bucket_name, versioned=versioned,
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=key, bucket_key_enabled=True if key else None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True, removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="tidy",
                    abort_incomplete_multipart_upload_after=Duration.days(7),
                    noncurrent_version_expiration=_days(noncurrent_days),
                    expired_object_delete_marker=True if versioned else None,
                    transitions=transitions,
                ),
                *([s3.LifecycleRule(id="expire", expiration=_days(expire_days))]
                  if expire_days else []),
            ],
        )  # fmt: skip
        acknowledge(
            self.bucket, "AwsSolutions-S1",
            "who read what is asked of CloudTrail data events; server access logs of millions of "
            "frames would cost more than they tell",
        )  # fmt: skip

    def notify(
        self, target: sqs.Queue | sns.Topic, *, policy: iam.AddToResourcePolicyResult
    ) -> None:
        """Send every creation and removal to ``target``.

        In L1: the L2 call makes a custom resource with a Lambda behind it, which LocalStack skips
        silently, and whose permissions are not needed.
        """
        resource = self.bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)  # noqa: S101 - what L2 buckets are made of
        configuration = s3.CfnBucket.NotificationConfigurationProperty
        if isinstance(target, sns.Topic):
            topics = [
                s3.CfnBucket.TopicConfigurationProperty(event=event, topic=target.topic_arn)
                for event in INGEST_EVENTS
            ]
            resource.notification_configuration = configuration(topic_configurations=topics)
        else:
            queues = [
                s3.CfnBucket.QueueConfigurationProperty(event=event, queue=target.queue_arn)
                for event in INGEST_EVENTS
            ]
            resource.notification_configuration = configuration(queue_configurations=queues)
        # S3 sends a test message when the configuration is set, and refuses it if it may not.
        assert policy.policy_dependable is not None  # noqa: S101
        resource.node.add_dependency(policy.policy_dependable)


def allow_sending(
    queue: sqs.Queue, service: str, source_arn: str, *, account: str
) -> iam.AddToResourcePolicyResult:
    """Let ``service`` send on behalf of ``source_arn`` in ``account``, and of nothing else."""
    return queue.add_to_resource_policy(
        iam.PolicyStatement(
            principals=[iam.ServicePrincipal(service)],
            actions=["sqs:SendMessage"],
            resources=[queue.queue_arn],
            conditions={
                "ArnLike": {"aws:SourceArn": source_arn},
                "StringEquals": {"aws:SourceAccount": account},
            },
        )
    )


def acknowledge(construct: Construct, rule: str, reason: str) -> None:
    """Say why a finding of cdk-nag is meant."""
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def _days(count: int | None) -> Duration | None:
    return None if count is None else Duration.days(count)
