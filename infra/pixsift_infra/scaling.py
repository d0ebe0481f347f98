"""The arithmetic of how many consumers run; nothing here needs CDK.

From zero to one as soon as a message waits, in the queue or in its dead-letter queue (only
consumers read it); up to n so that the backlog is a minute's work for each; back to zero when both
are empty for a quarter of an hour. CloudWatch learns of an idle queue's first message up to 15
minutes late after six quiet hours, so a rule asks for the queue's attributes hourly.
"""

from typing import Any

BACKLOG_SECONDS = 60
"""A consumer is added when the present ones would need longer for the backlog."""
IDLE_MINUTES = 15
SCALE_OUT_COOLDOWN_SECONDS = 120

Metric = tuple[str, str, str, str]
"""Id, namespace, metric name, statistic."""


def backlog_per_consumer(images_per_second: int) -> int:
    """Messages per running consumer that target tracking holds: 450/s make 27,000."""
    return images_per_second * BACKLOG_SECONDS


WAKE = "IF(FILL(running, 0) < 1 AND FILL(visible, 0) + FILL(dead, 0) >= 1, 1, 0)"
"""1 if a message waits and no consumer runs."""
IDLE = "IF(FILL(visible, 0) + FILL(hidden, 0) + FILL(dead, 0) > 0, 0, 1)"
"""1 if there is nothing to do."""
LOAD = "(FILL(visible, 0) + FILL(hidden, 0)) / IF(FILL(running, 0) < 1, 1, running)"
"""Messages per running consumer; never divided by zero."""


def wanted(now: int, *, visible: int, hidden: int, dead: int, per_consumer: int, most: int) -> int:
    """How many consumers the policies lead to from ``now``, by the expressions above."""
    if now < 1:
        return 1 if visible + dead >= 1 else 0
    if visible + hidden + dead == 0:
        return 0
    load = visible + hidden
    return max(now, min(most, -(-load // per_consumer)))


def queries(expression: str, queue: str, service: dict[str, str]) -> list[dict[str, Any]]:
    """Metric queries of CloudWatch: the named inputs, and ``expression`` as the answer."""
    dimensions = {"QueueName": queue}
    inputs: list[tuple[str, str, str, str, dict[str, str]]] = [
        ("visible", "AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", dimensions),
        ("hidden", "AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "Maximum", dimensions),
        ("dead", "AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum",
         {"QueueName": f"{queue}-dlq"}),
        ("running", "ECS/ContainerInsights", "RunningTaskCount", "Average", service),
    ]  # fmt: skip
    used = [row for row in inputs if row[0] in expression]
    found = [
        {"id": name, "return_data": False, "namespace": space, "metric": metric, "stat": stat,
         "dimensions": where}
        for name, space, metric, stat, where in used
    ]  # fmt: skip
    return [*found, {"id": "answer", "return_data": True, "expression": expression}]
