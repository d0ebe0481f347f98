"""The S3 adapter on moto, and what S3's errors mean, code by code."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody
from moto import mock_aws

from pixsift.adapters.aws.client import aws_errors
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import (
    AccessDeniedError,
    DependencyDownError,
    ObjectGoneError,
    PermanentError,
    TransientError,
)

KEY = "robot 2/a+b %25 näher.jpg"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        for bucket in ("plain", "versioned"):
            client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(
            Bucket="versioned", VersioningConfiguration={"Status": "Enabled"}
        )
        yield client


@pytest.fixture
def objects(client: Any) -> S3Objects:
    return S3Objects(client=client, sleep=lambda seconds: None)


def put(client: Any, body: bytes, bucket: str = "versioned", key: str = KEY) -> ObjectVersion:
    answer = client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"Robot": "r2"})
    etag = answer["ETag"].strip('"')
    return ObjectVersion(bucket, key, answer.get("VersionId", f"etag:{etag}"))


def test_fetch__the_exact_version(client: Any, objects: S3Objects) -> None:
    first = put(client, b"first")
    put(client, b"second")
    fetched = objects.fetch(first)
    assert (fetched.body, dict(fetched.metadata)) == (b"first", {"robot": "r2"})


def test_fetch__an_overwritten_etag_is_gone(client: Any, objects: S3Objects) -> None:
    first = put(client, b"first", "plain")
    assert objects.get(first) == b"first"
    put(client, b"second", "plain")
    with pytest.raises(ObjectGoneError) as caught:
        objects.get(first)
    assert caught.value.reason == "overwritten"


def test_fetch__gone_is_asked_twice(client: Any) -> None:
    version = put(client, b"late")
    client.delete_object(Bucket="versioned", Key=KEY, VersionId=version.version_id)
    pauses: list[float] = []

    def arrive(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(ObjectGoneError) as caught:
        S3Objects(client=client, sleep=arrive).get(version)
    assert caught.value.reason == "deleted"
    assert pauses == [0.5]


def test_fetch__size_limit_and_reservation_before_the_body(client: Any, objects: S3Objects) -> None:
    version = put(client, b"x" * 100)
    with pytest.raises(PermanentError) as caught:
        objects.fetch(version, max_bytes=99)
    assert caught.value.reason == "too_large"
    sizes: list[int] = []
    objects.fetch(version, max_bytes=100, reserve=sizes.append)
    assert sizes == [100]


class CutBody:
    """A client whose first answers break off in the middle."""

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        self.meta = boto3.client("s3", region_name="us-east-1").meta

    def get_object(self, **_: Any) -> dict[str, Any]:
        self.cuts -= 1
        raw = BytesIO(b"12345" if self.cuts >= 0 else b"1234567890")
        return {"Body": StreamingBody(raw, 10), "ContentLength": 10, "ETag": '"e"'}


def test_fetch__a_cut_body_is_asked_for_again() -> None:
    version = ObjectVersion("b", "k", "v")
    assert S3Objects(client=CutBody(2)).get(version) == b"1234567890"  # type: ignore[arg-type]
    with pytest.raises(TransientError, match="broke off"):
        S3Objects(client=CutBody(3)).get(version)  # type: ignore[arg-type]


def test_list_versions__one_key_newest_first(client: Any, objects: S3Objects) -> None:
    one, two = put(client, b"1", key="a"), put(client, b"2", key="a")
    put(client, b"other", key="a.jpg")
    client.delete_object(Bucket="versioned", Key="a")
    three = put(client, b"3", key="a")
    listing = objects.list_versions("versioned", "a")
    assert {line.version_id for line in listing if not line.is_delete_marker} == {
        one.version_id, two.version_id, three.version_id,
    }  # fmt: skip
    # moto lists markers after versions: tests/faults has a stub with S3's order.
    assert listing[0].version_id == three.version_id
    assert len(listing) == 4
    client.delete_object(Bucket="versioned", Key="a")
    assert objects.list_versions("versioned", "a")[0].is_delete_marker


def test_put__only_if_absent(objects: S3Objects) -> None:
    assert objects.put("plain", "k", b"1", only_if_absent=True)
    assert not objects.put("plain", "k", b"2", only_if_absent=True)
    head = objects.head("plain", "k")
    assert head is not None and head.size_bytes == 1


def test_head__nothing_there_is_none(objects: S3Objects) -> None:
    assert objects.head("plain", "absent") is None


def test_copy__the_exact_version(client: Any, objects: S3Objects) -> None:
    first = put(client, b"first")
    put(client, b"second")
    objects.copy(first, "plain", "copy")
    assert client.get_object(Bucket="plain", Key="copy")["Body"].read() == b"first"


def test_check_bucket__absent_is_down(objects: S3Objects) -> None:
    objects.check_bucket("plain")
    with pytest.raises(DependencyDownError, match="nowhere"):
        objects.check_bucket("nowhere")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, ObjectGoneError),
        ("NoSuchVersion", 404, ObjectGoneError),
        ("404", 404, ObjectGoneError),
        ("MethodNotAllowed", 405, ObjectGoneError),  # the version is a delete marker
        ("PreconditionFailed", 412, ObjectGoneError),
        ("NoSuchBucket", 404, DependencyDownError),  # a wrong setting: nothing is gone
        ("AccessDenied", 403, AccessDeniedError),
        ("403", 403, AccessDeniedError),
        ("RequestTimeTooSkewed", 403, AccessDeniedError),
        ("KMS.DisabledException", 400, AccessDeniedError),
        ("InvalidObjectState", 403, PermanentError),  # Glacier: a 403, but not a refusal
        ("KMS.ThrottlingException", 400, TransientError),
        ("SlowDown", 503, TransientError),
        ("InternalError", 500, TransientError),
        ("RequestTimeout", 400, TransientError),
        ("InvalidArgument", 400, PermanentError),  # a version id that S3 cannot read
        ("Teapot", 418, TransientError),  # unknown: the DLQ decides in the end
    ],
)
def test_aws_errors__reaction_to_every_code(
    code: str, status: int, expected: type[Exception]
) -> None:
    error = ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )
    with pytest.raises(expected) as caught, aws_errors("get"):
        raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error


def test_aws_errors__unreachable_is_down_and_silence_is_transient() -> None:
    with pytest.raises(DependencyDownError), aws_errors("get"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TransientError), aws_errors("get"):
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1:9")
