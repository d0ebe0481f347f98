"""Reads what exists in an account, for the checks before a deployment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from pixsift.adapters.aws.admin import admin_client, admin_errors, error_code
from pixsift.errors import AccessDeniedError

_ABSENT = ("404", "NoSuchBucket", "NotFound")


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """A bucket that exists. Region and further facts are None where we may not read them."""

    tells_event_bridge: bool | None
    other_targets: int
    region: str | None


class Account:
    """Reads only."""

    def __init__(self, region: str = "") -> None:
        self._region = region

    def identity(self) -> tuple[str, str]:
        """Account and region that the credentials and the variables lead to."""
        client = admin_client("sts", self._region)
        with admin_errors("who the AWS credentials are of"):
            account = client.get_caller_identity()["Account"]
        return str(account), str(client.meta.region_name)

    def subnets(self, ids: Sequence[str]) -> list[tuple[str, str, str]]:
        """Id, VPC and zone of those that exist."""
        client = admin_client("ec2", self._region)
        with admin_errors("network.subnet_ids"):
            found = client.describe_subnets(
                Filters=[{"Name": "subnet-id", "Values": list(ids)}]
            )["Subnets"]  # fmt: skip
        return [(s["SubnetId"], s["VpcId"], s["AvailabilityZone"]) for s in found]

    def bucket(self, name: str) -> BucketFacts | Literal["absent", "refused"]:
        """refused: it exists, and we may not read it."""
        client = admin_client("s3", self._region)
        with admin_errors(f"bucket {name}"):
            try:
                head = client.head_bucket(Bucket=name)
            except ClientError as error:
                return "absent" if error_code(error) in _ABSENT else "refused"
            try:
                notices = client.get_bucket_notification_configuration(Bucket=name)
            except ClientError:
                return BucketFacts(None, 0, head.get("BucketRegion"))
        targets = sum(len(notices.get(f"{kind}Configurations", []))
                      for kind in ("Queue", "Topic", "LambdaFunction"))  # fmt: skip
        return BucketFacts("EventBridgeConfiguration" in notices, targets, head.get("BucketRegion"))

    def has_secret(self, arn: str) -> bool | None:
        """None where we may not ask."""
        client = admin_client("secretsmanager", self._region)
        try:
            with admin_errors(f"secret {arn}"):
                try:
                    client.describe_secret(SecretId=arn)
                except ClientError as error:
                    if error_code(error) == "ResourceNotFoundException":
                        return False
                    raise
        except AccessDeniedError:
            return None
        return True

    def quota(self, code: str) -> float | None:
        """The account's quota of EC2 with that code; None where it cannot be read."""
        client = admin_client("service-quotas", self._region)
        try:
            found = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
        except (ClientError, BotoCoreError):
            return None
        return float(found["Quota"]["Value"])
