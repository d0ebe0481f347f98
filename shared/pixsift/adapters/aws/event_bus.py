"""Events out: what happened to snapshots and watches, on EventBridge, source ``pixsift``.

Telling is not publishing: a bus that refuses us is logged by the caller and changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import boto3

from pixsift.adapters.aws.client import aws_errors, client_errors
from pixsift.errors import TransientError

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE = "pixsift"


class EventBus:
    """One event bus by name or ARN."""

    def __init__(self, name: str = "default", *, client: "EventBridgeClient | None" = None) -> None:
        self._name = name
        with client_errors("EventBridge client"):
            self._client = client or boto3.client("events")

    def announce(self, detail_type: str, detail: dict[str, Any]) -> None:
        """Put one event. Raises TransientError or DependencyDownError when it was not taken."""
        self.announce_all(detail_type, [detail])

    def announce_all(self, detail_type: str, details: Sequence[Mapping[str, Any]]) -> None:
        """Put up to ten events; raises as ``announce`` does when one of them was not taken."""
        with aws_errors(f"event {detail_type}"):
            answer = self._client.put_events(
                Entries=[
                    {
                        "EventBusName": self._name, "Source": SOURCE, "DetailType": detail_type,
                        "Detail": json.dumps(detail, default=str),
                    }
                    for detail in details
                ]
            )  # fmt: skip
        if answer.get("FailedEntryCount"):
            why = [
                f"{e.get('ErrorCode')}: {e.get('ErrorMessage')}"
                for e in answer["Entries"]
                if e.get("ErrorCode")
            ]
            raise TransientError(f"event {detail_type}: {'; '.join(why[:1])}")
