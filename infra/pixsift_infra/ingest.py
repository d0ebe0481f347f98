"""Buckets and queues, each with what makes it safe to run unattended."""

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

RECEIVES_BEFORE_DLQ = 5
"""An outage must not drive healthy messages there: the consumer stops receiving in one."""
INGEST_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")


class QueueWithDlq(Construct):
    """A queue, and the dead-letter queue its messages end in after too many receives."""

    def __init__(
        self, scope: Construct, id: str, *, queue_name: str, visibility_timeout: Duration
    ) -> None:
        super().__init__(scope, id)
        # The DLQ keeps the age of the original message: it must outlive the source by far.
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
        _acknowledge(self.dlq, "AwsSolutions-SQS3", "this is the dead-letter queue itself")


class Bucket(Construct):
    """A private bucket: TLS only, no public access, abandoned uploads cleaned up."""

    def __init__(self, scope: Construct, id: str, *, bucket_name: str, versioned: bool) -> None:
        super().__init__(scope, id)
        self.bucket = s3.Bucket(
            self, "Bucket", bucket_name=bucket_name, versioned=versioned,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True, removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(7))
            ],
        )  # fmt: skip
        _acknowledge(
            self.bucket, "AwsSolutions-S1",
            "who read what is asked of CloudTrail data events; server access logs of millions of "
            "frames would cost more than they tell",
        )  # fmt: skip

    def notify(self, target: QueueWithDlq, *, policy: iam.AddToResourcePolicyResult) -> None:
        """Send every creation and removal to ``target``.

        In L1: the L2 call makes a custom resource with a Lambda behind it, which LocalStack skips
        without a word, and whose permissions nobody needs.
        """
        resource = self.bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)  # noqa: S101 - what L2 buckets are made of
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(event=event, queue=target.queue.queue_arn)
                for event in INGEST_EVENTS
            ]
        )
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


def _acknowledge(construct: Construct, rule: str, reason: str) -> None:
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))
