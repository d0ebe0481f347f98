"""The events stack on LocalStack: the template that CDK made, and the names in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from pixsift.adapters.local.cloudformation import deploy

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

STACK = "PixsiftEvents"


@dataclass(frozen=True, slots=True)
class EventsStack:
    """Names of the stack's buckets and queues, which all start with ``prefix``."""

    prefix: str = "pixsift"

    @property
    def raw_bucket(self) -> str:
        return f"{self.prefix}-raw"

    @property
    def derived_bucket(self) -> str:
        return f"{self.prefix}-derived"

    @property
    def curated_bucket(self) -> str:
        return f"{self.prefix}-curated"

    @property
    def ingest_queue(self) -> str:
        return f"{self.prefix}-ingest"

    @property
    def ingest_dlq(self) -> str:
        return f"{self.prefix}-ingest-dlq"

    @property
    def shadow_queue(self) -> str:
        """The ingest queue of a second embedding space, where the stack has one."""
        return f"{self.prefix}-ingest-shadow"

    @property
    def snapshot_queue(self) -> str:
        return f"{self.prefix}-snapshot-requests"

    @property
    def snapshot_dlq(self) -> str:
        return f"{self.prefix}-snapshot-requests-dlq"

    def shadow_environment(self) -> dict[str, str]:
        """Settings of a consumer of the second embedding space alone."""
        return {
            "PIXSIFT_INGEST_QUEUE": self.shadow_queue,
            "PIXSIFT_INGEST_DLQ": f"{self.shadow_queue}-dlq",
            "PIXSIFT_OWN_QUEUE": "true",
        }

    def environment(self) -> dict[str, str]:
        """The settings that make pixsift's processes use this stack."""
        return {
            "PIXSIFT_INGEST_QUEUE": self.ingest_queue,
            "PIXSIFT_INGEST_DLQ": self.ingest_dlq,
            "PIXSIFT_SNAPSHOT_QUEUE": self.snapshot_queue,
            "PIXSIFT_SNAPSHOT_DLQ": self.snapshot_dlq,
            "PIXSIFT_DERIVED_BUCKET": self.derived_bucket,
            "PIXSIFT_CURATED_BUCKET": self.curated_bucket,
        }


def deploy_events_stack(
    prefix: str = "pixsift",
    *,
    shadow: bool = False,
    parameters: Mapping[str, str] | None = None,
    client: "CloudFormationClient | None" = None,
) -> EventsStack:
    """Deploy the committed template, with the prefix and the template's ``parameters``.

    shadow: the one whose events go through a topic to two queues, one per embedding space.
    """
    name = STACK if prefix == "pixsift" else f"{STACK}-{prefix}"
    deploy(
        events_template(shadow=shadow), stack=name,
        parameters={"Prefix": prefix, **(parameters or {})}, client=client,
    )  # fmt: skip
    return EventsStack(prefix)


def events_template(*, shadow: bool = False) -> str:
    """The template as committed under ``localstack/``; the package links to it."""
    name = "events-shadow.template.json" if shadow else "events.template.json"
    return files("pixsift").joinpath("localstack", name).read_text("utf-8")
