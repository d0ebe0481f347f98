"""The checks of the doctor answer as data, whatever they find."""

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.aws.uploads import FolderUploads
from pixsift.adapters.ledger.login import ledger_login
from pixsift.errors import DependencyDownError
from pixsift.operations.doctor import (
    check_embedder,
    check_ledger,
    check_queue,
    check_versioning,
)


def test_check_ledger__well(database_url: str) -> None:
    ledger, schema = check_ledger(lambda: database_url)
    assert (ledger.state, schema.state) == ("ok", "ok")
    assert ledger.detail.startswith("PostgreSQL ") and "pgvector" in ledger.detail


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("", "set_database_url"), ("postgresql://localhost:1/x", "check_database")],
)
def test_check_ledger__what_does_not_answer_has_its_remedy(url: str, remedy: str) -> None:
    [check] = check_ledger(lambda: ledger_login(url))
    assert check.state == "wrong"
    assert check.remedy is not None and check.remedy.code == remedy


def test_check_queue__names_the_setting() -> None:
    def refuse(name: str) -> SqsQueue:
        raise DependencyDownError(f"no queue {name}")

    check = check_queue("ingest queue", "absent", "PIXSIFT_INGEST_QUEUE", refuse)
    assert (check.state, check.detail) == ("wrong", "no queue absent")
    assert check.remedy is not None
    assert dict(check.remedy.arguments) == {"variable": "PIXSIFT_INGEST_QUEUE"}


@mock_aws
def test_check_versioning__warns_of_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    client = boto3.client("s3")
    for bucket in ("plain", "kept"):
        client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    buckets = ["kept", "plain", "plain", "absent", "file:///photos"]
    checks = list(check_versioning(buckets, FolderUploads))
    assert [(c.name, c.state, c.detail.split(":")[0]) for c in checks] == [
        ("versions of kept", "ok", "kept"),
        ("versions of plain", "note", "not kept"),
        ("versions of absent", "note", "not known"),
    ]
    assert checks[1].remedy is not None and checks[1].remedy.code == "enable_versioning"


def test_check_embedder__the_stub_is_a_note() -> None:
    assert check_embedder("stub", revision="").state == "note"
