"""Clients and errors for calls with a person's own credentials: to deploy, not to judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from pixsift.adapters.aws.client import client_errors
from pixsift.errors import AccessDeniedError, DependencyDownError, Remedy, SettingError

_CONFIG = Config(
    connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5}
)
_REFUSED = ("AccessDenied", "UnauthorizedOperation", "Forbidden", "403")


def admin_client(service: str, region: str = "") -> Any:
    """A client of a service in ``region``; empty: the region of the AWS variables."""
    with client_errors(f"{service} client"):
        return boto3.client(cast(Any, service), region_name=region or None, config=_CONFIG)


@contextmanager
def admin_errors(what: str) -> Iterator[None]:
    """Translate what botocore raises inside: refused or wrong (SettingError), or not reachable."""
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        words = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
        if code.startswith(_REFUSED):
            raise AccessDeniedError(words) from error
        raise SettingError(words) from error
    except NoRegionError as error:
        raise DependencyDownError(
            f"{what}: no region", remedy=Remedy("set_aws", {"variable": "AWS_DEFAULT_REGION"})
        ) from error
    except BotoCoreError as error:
        raise DependencyDownError(f"{what}: {error}") from error


def error_code(error: ClientError) -> str:
    """AWS's name of the error."""
    return str(error.response.get("Error", {}).get("Code", ""))
