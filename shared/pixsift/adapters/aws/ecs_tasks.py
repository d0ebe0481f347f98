"""One-off ECS tasks: started, waited for, and their last lines read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from pixsift.adapters.aws.admin import admin_client, admin_errors
from pixsift.answers.deployment import TaskReport
from pixsift.errors import DependencyDownError, SettingError


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where tasks run. public: with an address of their own, which a network without NAT needs."""

    cluster: str
    subnets: Sequence[str]
    security_group: str
    public: bool


class EcsTasks:
    """Runs tasks on Fargate. poll_seconds: between two requests for the state."""

    def __init__(self, region: str = "", *, poll_seconds: float = 3.0) -> None:
        self._ecs = admin_client("ecs", region)
        self._logs = admin_client("logs", region)
        self._poll_seconds = poll_seconds

    def run(
        self, definition: str, place: TaskPlace, *, timeout_seconds: float = 7200.0
    ) -> TaskReport:
        """Run a task of that definition to its end.

        Raises SettingError where ECS does not start it, DependencyDownError after the timeout; the
        task goes on then.
        """
        with admin_errors(f"task {definition}"):
            answer = self._ecs.run_task(
                cluster=place.cluster, taskDefinition=definition, launchType="FARGATE", count=1,
                startedBy="pixsift-deploy",
                networkConfiguration={"awsvpcConfiguration": {
                    "subnets": list(place.subnets), "securityGroups": [place.security_group],
                    "assignPublicIp": "ENABLED" if place.public else "DISABLED",
                }},
            )  # fmt: skip
        if not answer["tasks"]:
            reasons = ", ".join(each.get("reason", "?") for each in answer.get("failures", []))
            raise SettingError(f"ECS does not start {definition}: {reasons}")
        task = self._ended(answer["tasks"][0]["taskArn"], place.cluster, timeout_seconds)
        (container,) = task["containers"]
        reason = container.get("reason") or task.get("stoppedReason", "")
        return TaskReport(
            status=container.get("exitCode"), reason=reason,
            lines=list(self._lines(definition, task["taskArn"])),
        )  # fmt: skip

    def _ended(self, task: str, cluster: str, timeout_seconds: float) -> dict[str, Any]:
        until = time.monotonic() + timeout_seconds
        while True:
            with admin_errors(f"task {task}"):
                found = self._ecs.describe_tasks(cluster=cluster, tasks=[task])["tasks"]
            # A new task may not be visible at once.
            if found and found[0]["lastStatus"] == "STOPPED":
                return dict(found[0])
            if time.monotonic() > until:
                raise DependencyDownError(
                    f"task {task} has not ended after {timeout_seconds:.0f} s, and goes on"
                )
            time.sleep(self._poll_seconds)

    def _lines(self, definition: str, task: str) -> list[str]:
        """The last lines that it wrote; none where they cannot be read."""
        try:
            described = self._ecs.describe_task_definition(taskDefinition=definition)
            (container,) = described["taskDefinition"]["containerDefinitions"]
            options = container["logConfiguration"]["options"]
            stream = "/".join(
                (options["awslogs-stream-prefix"], container["name"], task.rsplit("/", 1)[-1])
            )
            events = self._logs.get_log_events(
                logGroupName=options["awslogs-group"], logStreamName=stream, limit=50,
                startFromHead=False,
            )["events"]  # fmt: skip
        except (ClientError, KeyError):
            return []
        return [event["message"].rstrip() for event in events]
