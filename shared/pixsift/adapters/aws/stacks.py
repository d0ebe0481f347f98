"""CloudFormation stacks, changed through change sets: what would change is known beforehand."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from pixsift.adapters.aws.admin import admin_client, admin_errors, error_code
from pixsift.core.deployment import MOST_TEMPLATE_BYTES, StackChange, state_of
from pixsift.errors import DependencyDownError, SettingError

_NOTHING = ("didn't contain changes", "No updates are to be performed")
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
_DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


@dataclass(frozen=True, slots=True)
class StackFacts:
    """A stack's present state."""

    name: str
    status: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change set that waits to be executed."""

    stack: str
    id: str
    changes: tuple[StackChange, ...]


class Stacks:
    """The stacks of one account and region. poll_seconds: between two requests for the state."""

    def __init__(self, region: str = "", *, poll_seconds: float = 3.0) -> None:
        self._client = admin_client("cloudformation", region)
        self._s3 = admin_client("s3", region)
        self._poll_seconds = poll_seconds

    def find(self, name: str) -> StackFacts | None:
        """The stack; None where there is none."""
        with admin_errors(f"stack {name}"):
            try:
                found = self._client.describe_stacks(StackName=name)["Stacks"][0]
            except ClientError as error:
                if error_code(error) == "ValidationError":
                    return None
                raise
        return StackFacts(
            name,
            found["StackStatus"],
            {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])},
            {p["ParameterKey"]: p.get("ParameterValue", "") for p in found.get("Parameters", [])},
        )

    def wait(self, name: str, *, timeout_seconds: float = 7200.0) -> StackFacts | None:
        """The stack, once no operation is in progress. Raises DependencyDownError after the
        timeout."""
        until = time.monotonic() + timeout_seconds
        while True:
            found = self.find(name)
            if found is None or state_of(found.status) != "busy":
                return found
            if time.monotonic() > until:
                raise DependencyDownError(
                    f"stack {name} is still {found.status} after {timeout_seconds:.0f} s"
                )
            time.sleep(self._poll_seconds)

    def propose(
        self,
        name: str,
        template: str | None,
        parameters: Mapping[str, str],
        *,
        bucket: str = "",
    ) -> Proposal | None:
        """A change set that brings the stack to this state; None if it has it already. template:
        None keeps the present template, and every parameter that is not given. bucket: for
        templates that are too long for a call.
        """
        new = self.find(name) is None
        wanted: dict[str, Any] = {
            "StackName": name,
            "ChangeSetName": f"pixsift-{time.time_ns()}",
            "ChangeSetType": "CREATE" if new else "UPDATE",
            "Capabilities": _CAPABILITIES,
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
        }
        if template is None:
            wanted["UsePreviousTemplate"] = True
            wanted["Parameters"] += self._kept(name, parameters)
        else:
            wanted |= self._template(name, template, bucket)
        with admin_errors(f"change set of stack {name}"):
            made = self._client.create_change_set(**wanted)["Id"]
            return self._reviewed(name, made)

    def _kept(self, name: str, given: Mapping[str, str]) -> list[dict[str, Any]]:
        found = self.find(name)
        every = found.parameters if found else {}
        return [
            {"ParameterKey": key, "UsePreviousValue": True} for key in every if key not in given
        ]

    def _template(self, name: str, template: str, bucket: str) -> dict[str, str]:
        body = template.encode()
        if len(body) <= MOST_TEMPLATE_BYTES:
            return {"TemplateBody": template}
        if not bucket:
            raise SettingError(
                f"the template of stack {name} has {len(body)} bytes, and {MOST_TEMPLATE_BYTES} "
                "are allowed in a call: fewer events.spaces make it shorter"
            )
        key = f"templates/{hashlib.sha256(body).hexdigest()}.json"
        with admin_errors(f"template of stack {name} in bucket {bucket}"):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
            url = self._s3.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=3600
            )
        return {"TemplateURL": url.partition("?")[0]}

    def _reviewed(self, name: str, change_set: str) -> Proposal | None:
        while True:
            pages = list(
                self._client.get_paginator("describe_change_set").paginate(ChangeSetName=change_set)
            )
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "CREATE_COMPLETE":
                changes = tuple(_change(each) for page in pages for each in page.get("Changes", []))
                return Proposal(name, change_set, changes)
            if status == "FAILED":
                self._client.delete_change_set(ChangeSetName=change_set)
                if any(words in reason for words in _NOTHING):
                    return None
                raise SettingError(f"stack {name} cannot be changed: {reason}")
            time.sleep(self._poll_seconds)

    def discard(self, proposal: Proposal) -> None:
        """Forget the change set."""
        with admin_errors(f"change set of stack {proposal.stack}"):
            self._client.delete_change_set(ChangeSetName=proposal.id)

    def apply(self, proposal: Proposal) -> StackFacts:
        """Change the stack and wait. Raises SettingError with AWS's reasons where it failed."""
        with admin_errors(f"stack {proposal.stack}"):
            self._client.execute_change_set(ChangeSetName=proposal.id)
        found = self._started(proposal)
        if found is None or found.status not in _DONE:
            status = found.status if found else "gone"
            raise SettingError(
                f"stack {proposal.stack} ended as {status}: {self.reasons(proposal.stack)}"
            )
        return found

    def _started(self, proposal: Proposal) -> StackFacts | None:
        """Wait until the change set has started: the stack is not busy immediately."""
        for _ in range(20):
            with admin_errors(f"stack {proposal.stack}"):
                try:
                    change_set = self._client.describe_change_set(ChangeSetName=proposal.id)
                except ClientError:
                    break  # removed with its execution
            if change_set["ExecutionStatus"] not in ("AVAILABLE", "EXECUTE_PENDING"):
                break
            time.sleep(self._poll_seconds)
        return self.wait(proposal.stack)

    def remove(self, name: str) -> None:
        """Delete what a failed first deployment left, and wait for it."""
        found = self.find(name)
        with admin_errors(f"stack {name}"):
            self._client.update_termination_protection(
                StackName=name, EnableTerminationProtection=False
            )
            self._client.delete_stack(StackName=name)
        found = self.wait(name)
        if found is not None and state_of(found.status) != "absent":
            raise SettingError(
                f"stack {name} cannot be removed ({found.status}): {self.reasons(name)}: remove it "
                "in CloudFormation's console, then deploy again"
            )

    def protect(self, name: str, *, protected: bool) -> None:
        """Whether it cannot be deleted."""
        with admin_errors(f"stack {name}"):
            self._client.update_termination_protection(
                StackName=name, EnableTerminationProtection=protected
            )

    def reasons(self, name: str) -> str:
        """Why its last change failed: the first three failures, in AWS's words."""
        failed: list[str] = []
        with admin_errors(f"events of stack {name}"):
            pages = self._client.get_paginator("describe_stack_events").paginate(StackName=name)
            for event in (event for page in pages for event in page["StackEvents"]):
                own = event.get("PhysicalResourceId") == event.get("StackId")
                status, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
                if own and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
                    break
                if status.endswith("_FAILED") and "cancelled" not in reason:
                    failed.append(f"{event['LogicalResourceId']}: {reason}")
        return "; ".join(reversed(failed[-3:])) or "CloudFormation's events give no reason"


def _change(entry: Mapping[str, Any]) -> StackChange:
    change = entry["ResourceChange"]
    return StackChange(
        change["Action"], change["LogicalResourceId"], change["ResourceType"],
        change.get("Replacement", ""),
    )  # fmt: skip
