"""Scales one ECS service on the length of its queue; the arithmetic is in ``scaling``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aws_cdk import CfnResource
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from pixsift_infra import scaling
from pixsift_infra.tasks import Task


class ServiceScaling:
    """The scalable target, the policies and the alarms of one service."""

    def __init__(
        self, stack: Construct, task: Task, *, prefix: str,
        while_running: Callable[[CfnResource], None],
    ) -> None:  # fmt: skip
        """prefix: of the names. while_running: makes a resource depend on ``Running``."""
        self._stack = stack
        self._task = task
        self._prefix = prefix
        self._while_running = while_running

    def on_queue(self, service: ecs.CfnService, queue: str, *, most: int, least: int,
                 per_task: int) -> None:  # fmt: skip
        """most, least: tasks. per_task: messages; more start another task."""
        task = self._task
        where = {"ClusterName": self._prefix, "ServiceName": task.name}
        target = autoscaling.CfnScalableTarget(
            self._stack, f"{task.construct_id}Scaling", min_capacity=least, max_capacity=most,
            resource_id=f"service/{self._prefix}/{task.name}", service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
        )  # fmt: skip
        target.add_resource_dependency(service)
        self._while_running(target)
        self._step(target, "Wake", 1, scaling.queries(scaling.WAKE, queue, where), minutes=1)
        if least == 0:
            self._step(target, "Sleep", 0, scaling.queries(scaling.IDLE, queue, where),
                       minutes=scaling.IDLE_MINUTES)  # fmt: skip
        if most > 1:
            self._track(target, scaling.queries(scaling.LOAD, queue, where), per_task)

    def _step(self, target: autoscaling.CfnScalableTarget, name: str, count: int,
              queries: Sequence[dict[str, Any]], *, minutes: int) -> None:  # fmt: skip
        task = self._task
        property_ = autoscaling.CfnScalingPolicy
        policy = property_(
            self._stack, f"{task.construct_id}{name}",
            policy_name=f"{self._prefix}-{task.name}-{name}",
            policy_type="StepScaling", scaling_target_id=target.ref,
            step_scaling_policy_configuration=property_.StepScalingPolicyConfigurationProperty(
                adjustment_type="ExactCapacity", cooldown=60,
                step_adjustments=[property_.StepAdjustmentProperty(
                    metric_interval_lower_bound=0, scaling_adjustment=count
                )],
            ),
        )  # fmt: skip
        self._while_running(policy)
        alarm = cloudwatch.CfnAlarm(
            self._stack, f"{task.construct_id}{name}Alarm", evaluation_periods=minutes, threshold=1,
            alarm_name=f"{self._prefix}-{task.name}-{name.lower()}", alarm_actions=[policy.ref],
            alarm_description=f"scales {task.name} to {count}; no cause for alarm",
            comparison_operator="GreaterThanOrEqualToThreshold", treat_missing_data="notBreaching",
            metrics=[_metric_query(query) for query in queries],
        )  # fmt: skip
        self._while_running(alarm)

    def _track(self, target: autoscaling.CfnScalableTarget, queries: Sequence[dict[str, Any]],
               per_task: int) -> None:  # fmt: skip
        task = self._task
        property_ = autoscaling.CfnScalingPolicy
        metrics = [
            property_.TargetTrackingMetricDataQueryProperty(
                id=query["id"], expression=query.get("expression"),
                return_data=query["return_data"],
                metric_stat=None if "expression" in query else
                property_.TargetTrackingMetricStatProperty(
                    stat=query["stat"],
                    metric=property_.TargetTrackingMetricProperty(
                        namespace=query["namespace"], metric_name=query["metric"],
                        dimensions=[property_.TargetTrackingMetricDimensionProperty(
                            name=name, value=value
                        ) for name, value in query["dimensions"].items()],
                    ),
                ),
            )
            for query in queries
        ]  # fmt: skip
        tracking = property_.TargetTrackingScalingPolicyConfigurationProperty
        policy = property_(
            self._stack, f"{task.construct_id}Track",
            policy_name=f"{self._prefix}-{task.name}-track",
            policy_type="TargetTrackingScaling", scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=tracking(
                target_value=per_task, disable_scale_in=True,
                scale_out_cooldown=scaling.SCALE_OUT_COOLDOWN_SECONDS,
                customized_metric_specification=property_.CustomizedMetricSpecificationProperty(
                    metrics=metrics
                ),
            ),
        )  # fmt: skip
        self._while_running(policy)


def _metric_query(query: Mapping[str, Any]) -> cloudwatch.CfnAlarm.MetricDataQueryProperty:
    """One query of an alarm."""
    property_ = cloudwatch.CfnAlarm
    if "expression" in query:
        return property_.MetricDataQueryProperty(
            id=query["id"], expression=query["expression"], return_data=query["return_data"]
        )
    return property_.MetricDataQueryProperty(
        id=query["id"], return_data=query["return_data"],
        metric_stat=property_.MetricStatProperty(
            period=60, stat=query["stat"],
            metric=property_.MetricProperty(
                namespace=query["namespace"], metric_name=query["metric"],
                dimensions=[property_.DimensionProperty(name=name, value=value)
                            for name, value in query["dimensions"].items()],
            ),
        ),
    )  # fmt: skip
