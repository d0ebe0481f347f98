"""Container images: built with docker, podman or buildah, stored in ECR by digest."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from botocore.exceptions import ClientError

from pixsift.adapters.aws.admin import admin_client, admin_errors, error_code
from pixsift.errors import SettingError

ENGINES = ("docker", "podman", "buildah")
_KEEP = 20
"""Releases that a repository keeps; a roll-back needs the one before."""


class EcrImages:
    """Repositories of one account and region."""

    def __init__(self, region: str = "") -> None:
        self._client = admin_client("ecr", region)

    def ensure(self, repository: str) -> str:
        """The repository's URI; it is created if missing, with scans and immutable tags."""
        with admin_errors(f"ECR repository {repository}"):
            try:
                made = self._client.create_repository(
                    repositoryName=repository, imageTagMutability="IMMUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                )  # fmt: skip
            except ClientError as error:
                if error_code(error) != "RepositoryAlreadyExistsException":
                    raise
                found = self._client.describe_repositories(repositoryNames=[repository])
                return str(found["repositories"][0]["repositoryUri"])
            rule = {
                "rulePriority": 1, "action": {"type": "expire"},
                "selection": {"tagStatus": "any", "countType": "imageCountMoreThan",
                              "countNumber": _KEEP},
            }  # fmt: skip
            self._client.put_lifecycle_policy(
                repositoryName=repository, lifecyclePolicyText=json.dumps({"rules": [rule]})
            )
        return str(made["repository"]["repositoryUri"])

    def digest(self, repository: str, reference: str) -> str | None:
        """The digest of a tag or digest in the repository; None where it is not there."""
        kind = "imageDigest" if reference.startswith("sha256:") else "imageTag"
        with admin_errors(f"ECR repository {repository}"):
            try:
                found = self._client.describe_images(
                    repositoryName=repository, imageIds=[{kind: reference}]
                )["imageDetails"]
            except ClientError as error:
                if error_code(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
                    return None
                raise
        return str(found[0]["imageDigest"]) if found else None

    def password(self) -> str:
        """Of the user AWS, for twelve hours."""
        with admin_errors("login to ECR"):
            (given,) = self._client.get_authorization_token()["authorizationData"]
        return base64.b64decode(given["authorizationToken"]).decode().partition(":")[2]


class Engine:
    """A command that builds and pushes. What it prints goes to standard error."""

    def __init__(self, command: str) -> None:
        self._command = command

    @classmethod
    def find(cls, wanted: str = "") -> "Engine":
        """The one wanted, or the first that is installed. Raises SettingError without any."""
        for name in (wanted,) if wanted else ENGINES:
            if path := shutil.which(name):
                return cls(path)
        looked_for = wanted or ", ".join(ENGINES)
        raise SettingError(
            f"images cannot be built here: {looked_for} not found: install one, or name images "
            "that were built elsewhere"
        )

    def build(self, dockerfile: str, tag: str, context: Path, arguments: Mapping[str, str]) -> None:
        """Build ``dockerfile`` of ``context`` for the tasks' processors."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        self._run(
            "build", "--platform=linux/amd64", "-f", str(context / dockerfile), "-t", tag, *options,
            str(context),
        )  # fmt: skip

    def push(self, tag: str, password: str) -> None:
        """Push ``tag`` to its registry."""
        registry = tag.partition("/")[0]
        self._run("login", "--username=AWS", "--password-stdin", registry, given=password)
        self._run("push", tag)

    def _run(self, *arguments: str, given: str = "") -> None:
        command = [self._command, *arguments]
        ended = subprocess.run(  # noqa: S603 - the engine that was found
            command, input=given.encode(), stdout=sys.stderr, check=False
        )
        if ended.returncode:
            words = " ".join((Path(self._command).name, *arguments))
            raise SettingError(
                f"{words!r} ended with status {ended.returncode}: see its lines above"
            )


def checkout_version(checkout: Path) -> str | None:
    """The commit of a checkout that has no changes; None otherwise."""
    if _git(checkout, "status", "--porcelain") != "":
        return None
    return _git(checkout, "rev-parse", "HEAD")


def _git(checkout: Path, *arguments: str) -> str | None:
    command: Sequence[str] = ("git", "-C", str(checkout), *arguments)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
