"""The observability stack: the alarms that docs/operations.md names, and a dashboard."""

import json
from dataclasses import dataclass
from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from pixsift_infra.stage import Stage

NAMESPACE = "pixsift"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One metric, and the limit at which an alarm is raised."""

    name: str
    namespace: str
    metric: str
    dimensions: dict[str, str]
    threshold: float
    minutes: int
    why: str
    statistic: str = "Maximum"
    below: bool = False


def alarms(stage: Stage) -> list[Alarm]:
    """Every alarm of the stage."""
    prefix = stage.resource_prefix
    found = []
    for space in stage.events.spaces:
        queue = f"{prefix}-{stage.ingest_queue(space)}"
        found += [
            Alarm(f"{space}-oldest-message", "AWS/SQS", "ApproximateAgeOfOldestMessage",
                  {"QueueName": queue}, 900, 5, "an outcome comes within seconds, in normal times"),
            _dlq(f"{space}-dead-letters", f"{queue}-dlq",
                 "the slow lane takes them within seconds"),
        ]  # fmt: skip
    found.append(_dlq("snapshot-dead-letters", f"{prefix}-snapshot-requests-dlq",
                      "the curator takes them when nothing else waits: it does not run, or an "
                      "outage keeps it from them"))  # fmt: skip
    for metric, service, minutes, why in (
        ("outcome_failed", "pixsift-consumer", 1, "an image that nobody judged"),
        ("access_denied", "pixsift-consumer", 1, "permissions, not data"),
        ("dependency_down", "pixsift-consumer", 5, "PostgreSQL, SQS, S3 or the decoder"),
        ("snapshots_failed", "pixsift-curator", 1, "a snapshot that failed for good"),
    ):
        where = {"service": service, "stage": stage.name}
        found.append(
            Alarm(metric.replace("_", "-"), NAMESPACE, metric, where, 1, minutes, why, "Sum")
        )
    found.append(
        Alarm("consumers-at-most", "ECS/ContainerInsights", "RunningTaskCount",
              {"ClusterName": prefix, "ServiceName": "consumer"}, stage.compute.max_consumers, 30,
              "more comes in than may be started", "Average")
    )  # fmt: skip
    return found


def _dlq(name: str, queue: str, why: str) -> Alarm:
    return Alarm(name, "AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": queue}, 1, 15,
                 why)  # fmt: skip


class ObservabilityStack(Stack):
    """Alarms with an action, a dashboard, and notices of tasks that failed."""

    def __init__(self, scope: Construct, id: str, stage: Stage, **options: Any) -> None:
        super().__init__(scope, id, description="pixsift: alarms and dashboard", **options)
        settings, prefix = stage.observability, stage.resource_prefix
        topic = settings.alarm_topic_arn or self._topic(prefix, settings.alarm_email)
        for alarm in alarms(stage):
            cloudwatch.CfnAlarm(
                self, "".join(part.title() for part in alarm.name.split("-")),
                alarm_name=f"{prefix}-{alarm.name}", alarm_description=alarm.why,
                namespace=alarm.namespace, metric_name=alarm.metric, statistic=alarm.statistic,
                dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
                            for name, value in alarm.dimensions.items()],
                period=60, evaluation_periods=alarm.minutes, threshold=alarm.threshold,
                comparison_operator="GreaterThanOrEqualToThreshold",
                treat_missing_data="notBreaching", alarm_actions=[topic], ok_actions=[topic],
            )  # fmt: skip
        self._failed_jobs(prefix, topic)
        cloudwatch.CfnDashboard(
            self, "Dashboard", dashboard_name=prefix, dashboard_body=json.dumps(dashboard(stage))
        )
        CfnOutput(self, "AlarmTopicArn", value=topic)

    def _topic(self, prefix: str, email: str) -> str:
        key = kms.Key(self, "AlarmKey", enable_key_rotation=True, description="alarms on their way")
        for service in ("cloudwatch.amazonaws.com", "events.amazonaws.com"):
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(service)],
                    actions=["kms:GenerateDataKey", "kms:Decrypt"], resources=["*"],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )  # fmt: skip
        topic = sns.Topic(
            self, "Alarms", topic_name=f"{prefix}-alarms", master_key=key, enforce_ssl=True
        )
        for service in ("cloudwatch.amazonaws.com", "events.amazonaws.com"):
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(service)], actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )  # fmt: skip
        if email:
            sns.CfnSubscription(
                self, "AlarmEmail", protocol="email", endpoint=email, topic_arn=topic.topic_arn
            )
        return topic.topic_arn

    def _failed_jobs(self, prefix: str, topic: str) -> None:
        """reconcile and audit end with status 1 where something is wrong."""
        events.CfnRule(
            self, "FailedJobs", description="a job of pixsift that ended badly",
            event_pattern={
                "source": ["aws.ecs"], "detail-type": ["ECS Task State Change"],
                "detail": {
                    "lastStatus": ["STOPPED"],
                    "clusterArn": [{"suffix": f":cluster/{prefix}"}],
                    "group": [f"family:{prefix}-{job}" for job in
                              ("reconcile", "audit", "audit-sample", "migrate")],
                    "containers": {"exitCode": [{"anything-but": 0}]},
                },
            },
            targets=[events.CfnRule.TargetProperty(id="alarms", arn=topic)],
        )  # fmt: skip


def dashboard(stage: Stage) -> dict[str, Any]:
    """The body of the dashboard: backlog, outcomes, seconds, database."""

    def graph(
        title: str, x: int, y: int, metrics: list[list[Any]], stat: str = "Sum"
    ) -> dict[str, Any]:
        return {
            "type": "metric",
            "x": x,
            "y": y,
            "width": 12,
            "height": 6,
            "properties": {
                "title": title,
                "metrics": metrics,
                "stat": stat,
                "period": 60,
                "region": stage.region or "us-east-1",
                "view": "timeSeries",
            },
        }

    def ours(*names: str, service: str = "pixsift-consumer") -> list[list[Any]]:
        return [[NAMESPACE, name, "service", service, "stage", stage.name] for name in names]

    queue = f"{stage.resource_prefix}-{stage.ingest_queue(stage.events.spaces[0])}"
    waiting = [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", name]
               for name in (queue, f"{queue}-dlq")]  # fmt: skip
    kinds = ("kept", "duplicate", "rejected", "gone", "failed")
    return {"widgets": [
        graph("waiting", 0, 0, waiting, "Maximum"),
        graph("outcomes", 12, 0, ours(*(f"outcome_{kind}" for kind in kinds))),
        graph("seconds from upload to outcome", 0, 6, ours("queue_age_seconds"), "p95"),
        graph("seconds of a batch", 12, 6,
              ours("fetch_seconds", "decode_seconds", "embed_seconds", "commit_seconds"), "p95"),
        graph("snapshots", 0, 12,
              ours("snapshots_published", "snapshots_failed", service="pixsift-curator")),
        graph("trouble", 12, 12, ours("access_denied", "dependency_down", "anomalies")),
    ]}  # fmt: skip
