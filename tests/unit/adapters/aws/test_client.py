"""Clients where the standard AWS variables are wrong: a line for the user, never a traceback."""

from collections.abc import Callable

import boto3
import pytest

from pixsift.adapters.aws.client import s3_client, sqs_client
from pixsift.adapters.aws.event_bus import EventBus
from pixsift.adapters.aws.quick_objects import QuickObjects
from pixsift.errors import UserError


@pytest.mark.parametrize("make", [s3_client, sqs_client, EventBus])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", "localhost:4566"),
        ("AWS_PROFILE", "nosuch"),
        ("AWS_DEFAULT_REGION", "us east"),
    ],
)
def test_clients__a_wrong_variable_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object], variable: str, value: str
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{value}.*AWS_"):
        make()


@pytest.mark.parametrize("make", [s3_client, sqs_client])
def test_clients__a_port_that_is_no_number_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:port")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        make()


def test_quick_objects__an_unknown_profile_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    with pytest.raises(UserError, match="nosuch"):
        QuickObjects(client)
