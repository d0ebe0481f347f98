"""Deploys a template through CloudFormation's API, and checks what an emulator reports as
complete."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pixsift.adapters.aws.client import client_errors
from pixsift.errors import DependencyDownError, SettingError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef

_SKIPPED = "deployed as a fallback"
"""LocalStack reports this for an unknown type, but reports the stack as complete."""
_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard"})


def deploy(
    template: str,
    *,
    stack: str,
    parameters: Mapping[str, str] | None = None,
    client: "CloudFormationClient | None" = None,
    timeout_seconds: float = 120.0,
) -> dict[str, str]:
    """Create or update ``stack`` from ``template`` (JSON text); returns its outputs.

    Raises UserError when the deployment fails or a resource type was skipped silently.
    """
    with client_errors("CloudFormation client"):
        cloudformation = client or boto3.client("cloudformation", config=_CONFIG)
    try:
        changed = _create_or_update(cloudformation, template, stack, parameters or {})
        if changed:
            _wait(cloudformation, stack, timeout_seconds)
        _refuse_skipped_types(cloudformation, stack)
        described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as exc:
        raise SettingError(f"stack {stack} cannot be deployed: {exc}") from exc
    except BotoCoreError as exc:
        raise DependencyDownError(f"CloudFormation does not respond: {exc}") from exc
    return {o["OutputKey"]: o["OutputValue"] for o in described.get("Outputs", [])}


def _create_or_update(
    cloudformation: "CloudFormationClient",
    template: str,
    stack: str,
    parameters: Mapping[str, str],
) -> bool:
    """Whether the stack has a change to wait for."""
    values = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
    ]  # fmt: skip
    call = cloudformation.update_stack if _exists(cloudformation, stack) else (
        cloudformation.create_stack
    )  # fmt: skip
    try:
        call(StackName=stack, TemplateBody=template, Parameters=values,  # type: ignore[arg-type]
             Capabilities=["CAPABILITY_IAM"])  # fmt: skip
    except ClientError as exc:
        if "No updates are to be performed" in str(exc):
            return False
        raise
    return True


def _exists(cloudformation: "CloudFormationClient", stack: str) -> bool:
    try:
        cloudformation.describe_stacks(StackName=stack)
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ValidationError":
            return False
        raise
    return True


def _wait(cloudformation: "CloudFormationClient", stack: str, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        status = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return
        if "IN_PROGRESS" not in status:
            raise SettingError(
                f"stack {stack} ended as {status}: {_reasons(cloudformation, stack)}"
            )
        if time.monotonic() > deadline:
            raise DependencyDownError(f"stack {stack} is still {status} after {timeout_seconds} s")
        time.sleep(0.2)


def _reasons(cloudformation: "CloudFormationClient", stack: str) -> str:
    return "; ".join(
        f"{event.get('LogicalResourceId')}: {event.get('ResourceStatusReason')}"
        for event in _events(cloudformation, stack)
        if "FAILED" in event.get("ResourceStatus", "")
    )


def _refuse_skipped_types(cloudformation: "CloudFormationClient", stack: str) -> None:
    skipped = {
        event.get("ResourceType", "?")
        for event in _events(cloudformation, stack)
        if _SKIPPED in event.get("ResourceStatusReason", "")
    }
    if skipped:
        raise SettingError(
            f"stack {stack}: these resource types were skipped silently: {sorted(skipped)}"
        )


def _events(cloudformation: "CloudFormationClient", stack: str) -> list["StackEventTypeDef"]:
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
    return [event for page in pages for event in page["StackEvents"]]
