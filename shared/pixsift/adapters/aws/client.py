"""What the SQS and S3 adapters share: how clients are made, and what their errors mean.

Endpoints come only from the standard variables (``AWS_ENDPOINT_URL`` and others), so no code here
knows an emulator.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    EndpointConnectionError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
)

from pixsift.errors import (
    AccessDeniedError,
    DependencyDownError,
    ObjectGoneError,
    PermanentError,
    Remedy,
    SettingError,
    TransientError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_UNREACHABLE = (
    EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError,
    NoCredentialsError, PartialCredentialsError,
)  # fmt: skip
_MISCONFIGURED = (ConfigParseError, InvalidConfigError, InvalidRegionError, ProfileNotFound)
_THROTTLED = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled",
    "TooManyRequestsException", "KMS.ThrottlingException", "RequestTimeout",
    "RequestTimeoutException",
    "OperationAborted", "ConditionalRequestConflict",
})  # fmt: skip
_REFUSED = frozenset({
    "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken", "InvalidToken",
    "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "403", "Forbidden",
    "KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException",
})  # fmt: skip
_ABSENT = frozenset({
    "NoSuchBucket", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue",
})  # fmt: skip
_GONE = {
    "NoSuchKey": "deleted", "NoSuchVersion": "deleted", "404": "deleted", "NotFound": "deleted",
    "405": "deleted", "MethodNotAllowed": "deleted",  # the version is a delete marker
    "412": "overwritten", "PreconditionFailed": "overwritten",
}  # fmt: skip


def s3_client(
    *, connections: int = 32, read_timeout_seconds: int = 10, attempts: int = 2
) -> "S3Client":
    """A thread-safe S3 client; ``connections`` bounds its pool.

    A bucket that hangs holds each of its callers for at most attempts x read_timeout_seconds.
    """
    config = _config(
        connections,
        attempts,
        read_timeout=read_timeout_seconds,
        request_checksum_calculation="when_required",
        signature_version="s3v4",  # links too, which would be signed the old way in old regions
    )
    with client_errors("S3 client"):
        client = boto3.client("s3", config=config)
        _read_port(client.meta.endpoint_url)
    return client


def sqs_client(
    *, connections: int = 8, read_timeout_seconds: float = 4.0, attempts: int = 2
) -> "SQSClient":
    """A thread-safe SQS client; by default with short waits, so that a stop is quick."""
    config = _config(connections, attempts, connect_timeout=3, read_timeout=read_timeout_seconds)
    with client_errors("SQS client"):
        client = boto3.client("sqs", config=config)
        _read_port(client.meta.endpoint_url)
    return client


def plain_client(service: str) -> Any:
    """A client of a service that is called rarely: short waits, few connections."""
    with client_errors(f"{service} client"):
        return boto3.client(cast(Any, service), config=_config(4, connect_timeout=3))


def _read_port(endpoint: str) -> None:
    """ValueError for a port that is not a number; boto3 looks at it only when it signs a call."""
    _ = urlsplit(endpoint).port


def _config(connections: int, attempts: int = 3, **more: Any) -> Config:
    # Standard retries cover throttling and cut connections before the first byte of a body.
    defaults: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 20}
    return Config(
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        **(defaults | more),
    )


@contextmanager
def client_errors(what: str) -> Iterator[None]:
    """``aws_errors`` around the creation of a client, where ValueError means a wrong variable."""
    try:
        with aws_errors(what):
            yield
    except ValueError as error:
        raise SettingError(
            f"{what}: {error}: check the AWS_ variables; AWS_ENDPOINT_URL starts with http"
        ) from error


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise what botocore raised inside as pixsift's own errors; ``what`` names the call."""
    try:
        yield
    except ClientError as error:
        _reraise(error, what)
    except NoRegionError as error:
        raise DependencyDownError(
            f"{what}: no region", remedy=Remedy("set_aws", {"variable": "AWS_DEFAULT_REGION"})
        ) from error
    except _MISCONFIGURED as error:
        raise SettingError(f"{what}: {error}: check the AWS_ variables") from error
    except _UNREACHABLE as error:
        raise DependencyDownError(f"{what}: {error}") from error
    except BotoCoreError as error:
        raise TransientError(f"{what}: {error}") from error


def _reraise(error: ClientError, what: str) -> NoReturn:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    detail = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if code in _ABSENT:
        raise DependencyDownError(detail) from error
    if code in _THROTTLED or status >= 500 or status == 429:
        raise TransientError(detail) from error
    if code in _GONE:
        raise ObjectGoneError(_GONE[code], what) from error
    if code == "InvalidObjectState":
        raise PermanentError("archived", detail) from error
    if code in _REFUSED or status == 403:
        raise AccessDeniedError(detail) from error
    if status == 400:
        # A malformed version id, or SSE-C without its key: the request can never succeed.
        raise PermanentError("unreadable", detail) from error
    raise TransientError(detail) from error
