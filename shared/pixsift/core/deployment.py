"""Decides about a deployment from what exists and what is asked for. Pure.

A deployment is five CloudFormation stacks that pass values as parameters of an earlier stack's
output names, two images by digest, and a migration between them (docs/adr/0161). Nothing here calls
AWS.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pixsift.errors import SettingError

State = Literal["absent", "half_made", "ready", "busy", "stuck"]
"""half_made: its first deployment failed, so that it can only be removed; stuck: needs a person."""
COMPUTE: Final = "Compute"
GPU_IMAGE, SERVICES_IMAGE = "GpuImage", "ServicesImage"
KEEPS_DATA: Final = frozenset({
    "AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::RDS::DBInstance", "AWS::RDS::DBCluster",
    "AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::KMS::Key",
})  # fmt: skip
"""Resources that hold data, or that such resources need: never removed or replaced without being
asked."""
MOST_TEMPLATE_BYTES: Final = 51_200
"""What CloudFormation takes in a call; longer templates are read from S3 (its quotas page)."""
_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^@]+)@")
_GPU_QUOTAS: Final = {False: "L-DB2E81BA", True: "L-3819A6DF"}
"""vCPUs of G and VT instances, on demand and Spot (Service Quotas, ec2)."""
VCPUS_PER_CONSUMER: Final = 8


@dataclass(frozen=True, slots=True)
class Images:
    """The two images of a release, each as ``repository@sha256:...``."""

    gpu: str
    services: str

    def parameters(self) -> dict[str, str]:
        """As the compute stack names them."""
        return {GPU_IMAGE: self.gpu, SERVICES_IMAGE: self.services}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a stage asks for. templates: CloudFormation's JSON by stack name, in order.

    own_buckets: names of the buckets that the events stack makes, with ``{account}`` and
    ``{region}`` where those belong. gpu_instances: empty for consumers without a GPU.
    """

    stage: str
    prefix: str
    templates: Mapping[str, str]
    account: str = ""
    region: str = ""
    protected: bool = True
    public_tasks: bool = False
    closed_network: bool = False
    own_buckets: tuple[str, ...] = ()
    raw_bucket: str = ""
    raw_account: str = ""
    vpc_id: str = ""
    subnet_ids: tuple[str, ...] = ()
    secret_arn: str = ""
    security_group_id: str = ""
    gpu_instances: tuple[str, ...] = ()
    spot: bool = True
    most_consumers: int = 1

    def stack(self, part: str) -> str:
        """Name of the stack of that part, such as Compute."""
        return next(name for name in self.templates if name.endswith(f"-{part}"))


@dataclass(frozen=True, slots=True)
class StackChange:
    """One line of a change set. replacement: True, False or Conditional, as AWS says."""

    action: str
    logical_id: str
    type: str
    replacement: str = ""

    def loses_data(self) -> bool:
        """Whether something that holds data is removed or replaced."""
        goes = self.action == "Remove" or self.replacement == "True"
        return goes and self.type in KEEPS_DATA

    def __str__(self) -> str:
        anew = {"True": ", made anew", "Conditional": ", perhaps made anew"}
        return (
            f"{self.action.lower()} {self.logical_id} ({self.type}{anew.get(self.replacement, '')})"
        )


@dataclass(frozen=True, slots=True)
class PlannedStack:
    """What would happen to a stack. action: create, update, nothing, or why it cannot be said."""

    stack: str
    action: str
    changes: tuple[StackChange, ...] = ()
    types: tuple[tuple[str, int], ...] = ()


def state_of(status: str | None) -> State:
    """What can be done with a stack of that CloudFormation status; None where there is none."""
    if status is None or status == "DELETE_COMPLETE":
        return "absent"
    if status in ("REVIEW_IN_PROGRESS", "CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        return "half_made"
    if status.endswith("_IN_PROGRESS"):
        return "busy"
    if status.endswith("_FAILED"):
        return "stuck"
    return "ready"


def compact(template: str) -> str:
    """The template without what only CDK reads, in as few bytes as it takes.

    Raises ValueError for text that is not JSON.
    """
    document = json.loads(template)
    for resource in document.get("Resources", {}).values():
        resource.pop("Metadata", None)
    return json.dumps(document, separators=(",", ":"))


def parameters_for(
    stack: str, template: str, known: Mapping[str, str], chosen: Mapping[str, str]
) -> dict[str, str]:
    """Values of the template's parameters: chosen ones first, then outputs of earlier stacks.

    Raises SettingError for one that has no default and that neither has.
    """
    found = {}
    for name, parameter in json.loads(template).get("Parameters", {}).items():
        if name in chosen:
            found[name] = chosen[name]
        elif name in known:
            found[name] = known[name]
        elif "Default" not in parameter:
            raise SettingError(f"parameter {name} of stack {stack} is an output of no stack before")
    return found


def losses(changes: Iterable[StackChange]) -> list[StackChange]:
    """The changes that would lose data."""
    return [change for change in changes if change.loses_data()]


def types_of(template: str) -> list[tuple[str, int]]:
    """Resource types of a template, and how many of each."""
    types = [resource["Type"] for resource in json.loads(template)["Resources"].values()]
    return [(name, types.count(name)) for name in sorted(set(types))]


def check_image(image: str, setting: str) -> str:
    """The image itself. Raises SettingError unless it names a digest."""
    if not _IMAGE.fullmatch(image):
        raise SettingError(f"{setting} {image!r} has no digest: repository@sha256:<64 hex digits>")
    return image


def check_registry(image: str, deployment: Deployment, account: str, region: str) -> str | None:
    """The ECR repository that tasks pull it from; None for another registry.

    Raises SettingError where the tasks could not pull it.
    """
    place = _ECR.match(image)
    if place is None:
        if deployment.closed_network:
            raise SettingError(
                f"image {image} is outside AWS, and network.egress = 'endpoints' leads nowhere "
                "else: push it to ECR"
            )
        return None
    owner, where, repository = place.groups()
    if (owner, where) != (account, region) or not repository.startswith(f"{deployment.prefix}/"):
        raise SettingError(
            f"image {image}: the tasks may pull from repositories {deployment.prefix}/* of account "
            f"{account} in {region} only: push it there"
        )
    return repository


def check_subnets(deployment: Deployment, found: Sequence[tuple[str, str, str]]) -> None:
    """Raises SettingError unless they are in the VPC and in two zones.

    found: id, VPC and zone of each subnet that exists.
    """
    zones = {zone for _, _, zone in found}
    missing = sorted(set(deployment.subnet_ids) - {name for name, _, _ in found})
    strangers = sorted(name for name, vpc, _ in found if vpc != deployment.vpc_id)
    if missing:
        raise SettingError(
            f"network.subnet_ids: there is no {', '.join(missing)} in this account and region"
        )
    if strangers:
        raise SettingError(
            f"network.subnet_ids: {', '.join(strangers)} is not in {deployment.vpc_id}: name "
            "subnets of network.vpc_id"
        )
    if len(zones) < 2:
        raise SettingError(
            f"network.subnet_ids are all in {', '.join(zones)}: a database needs two zones"
        )


def gpu_quota(deployment: Deployment) -> str | None:
    """Code of the quota that limits the consumers; None without GPU instances of family G."""
    if not any(name.startswith("g") for name in deployment.gpu_instances):
        return None
    return _GPU_QUOTAS[deployment.spot]


def check_quota(deployment: Deployment, vcpus: float | None) -> str | None:
    """A note where the quota is too small for the largest number of consumers, or could not be
    read.

    Raises SettingError if it does not allow a single consumer.
    """
    code = gpu_quota(deployment)
    if code is None:
        return None
    if vcpus is None:
        return f"the quota {code} of GPU instances could not be read, and was not checked"
    if vcpus < VCPUS_PER_CONSUMER:
        raise SettingError(
            f"compute.instance_types: this account may run {vcpus:.0f} vCPUs of them, one consumer "
            f"needs {VCPUS_PER_CONSUMER}: ask Service Quotas for more of {code} (ec2), or set "
            "compute.consumer = 'cpu'"
        )
    room = int(vcpus // VCPUS_PER_CONSUMER)
    if room < deployment.most_consumers:
        return f"the quota {code} has room for {room} of {deployment.most_consumers} consumers"
    return None


def after_roll_back(parameters: Mapping[str, str], stack: str) -> dict[str, str]:
    """The image parameters that a roll-back sets: the previous release runs, and the present one
    becomes the previous one. Raises SettingError if there is no previous release.
    """
    before = Images(parameters.get("PreviousGpuImage", ""),
                    parameters.get("PreviousServicesImage", ""))  # fmt: skip
    if not before.gpu or not before.services:
        raise SettingError(
            f"stack {stack} knows of no release before: there is nothing to go back to"
        )
    return {**before.parameters(), **previous(parameters)}


def previous(parameters: Mapping[str, str]) -> dict[str, str]:
    """What runs now, recorded as the previous release."""
    return {
        "PreviousGpuImage": parameters.get(GPU_IMAGE, ""),
        "PreviousServicesImage": parameters.get(SERVICES_IMAGE, ""),
    }


def release_parameters(current: Mapping[str, str], images: Images) -> dict[str, str]:
    """The compute stack's own parameters once all runs at ``images``.

    current: what they are now; empty on the first deployment. The previous release stays recorded
    when the same release is deployed again.
    """
    now = {GPU_IMAGE: current.get(GPU_IMAGE, ""), SERVICES_IMAGE: current.get(SERVICES_IMAGE, "")}
    was_running = current.get("Running") == "yes"
    kept = {name: current.get(name, "") for name in ("PreviousGpuImage", "PreviousServicesImage")}
    before = previous(current) if was_running and now != images.parameters() else kept
    return {**images.parameters(), **before, "MigrateImage": images.services, "Running": "yes"}
