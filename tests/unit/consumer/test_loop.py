"""The loop around its parts: when the health check hears of it."""

import threading
from typing import Any, cast

from pixsift.adapters.sqs import Message
from pixsift.telemetry import Telemetry, make_logger
from pixsift_consumer.arrivals import Delivery
from pixsift_consumer.faults import FaultPoints
from pixsift_consumer.loop import Loop


class Parts:
    """Ten messages that were received before, then the end; every other part does nothing."""

    last_chance = False
    are_down = False

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.log: list[str] = []

    def current(self) -> list[str]:
        return ["a collection"]

    def are_up(self, stop: threading.Event) -> bool:
        return True

    def receive(self, most: int, *, wait_seconds: int) -> list[Message]:
        return [Message(str(number), "", "", receive_count=2) for number in range(most)]

    def read(self, inbox: Any, messages: list[Message]) -> list[tuple[Delivery, list[Any]]]:
        return [(Delivery(message, inbox), []) for message in messages]

    def submit(self, delivery: Delivery, arrivals: list[Any], stop: threading.Event) -> None:
        self.log.append("processed")

    def drain(self, stop: threading.Event) -> None:
        if self.log.count("processed") == 10:
            stop.set()

    def turned(self) -> None:
        self.log.append("beat")


def test_run__each_message_processed_alone_is_a_heartbeat() -> None:
    """Ten of them in one turn may take minutes, and a consumer at work is not to be killed."""
    parts = Parts()
    anything = cast(Any, parts)
    Loop(
        inbox=anything, slow_lane=anything, intake=anything, collections=anything,
        pipeline=anything, dependencies=anything, faults=FaultPoints(),
        logger=make_logger("test", "CRITICAL"), telemetry=Telemetry("test"),
        turned=parts.turned,
    ).run(parts.stop)  # fmt: skip
    assert parts.log == ["beat", *["beat", "processed"] * 10]
