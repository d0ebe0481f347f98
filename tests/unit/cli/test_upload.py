"""``pixsift upload`` against moto: what is sent, what is left alone, what is said of mistakes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner, Result

from pixsift.adapters.aws.uploads import FolderUploads, S3Location
from pixsift.errors import TransientError, UserError
from pixsift_cli.main import app


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", "unused")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="raw")
        client.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cam" / "ä b+c").mkdir(parents=True)
    (tmp_path / "cam" / "1.jpg").write_bytes(b"one")
    (tmp_path / "cam" / "ä b+c" / "2.jpg").write_bytes(b"two")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["upload", *arguments], catch_exceptions=True)


def test_upload__keeps_relative_keys_below_the_prefix(s3: Any, folder: Path) -> None:
    result = run(str(folder), "s3://raw/robot-1/", "--json")
    assert json.loads(result.stdout)["uploaded"] == 2
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="raw")["Contents"]}
    assert keys == {"robot-1/cam/1.jpg", "robot-1/cam/ä b+c/2.jpg"}
    assert s3.head_object(Bucket="raw", Key="robot-1/cam/1.jpg")["ContentType"] == "image/jpeg"


def test_upload__again_sends_only_what_is_missing_or_changed(s3: Any, folder: Path) -> None:
    run(str(folder), "s3://raw")
    (folder / "cam" / "1.jpg").write_bytes(b"uno")  # same size, other bytes
    (folder / "cam" / "3.jpg").write_bytes(b"three")

    facts = json.loads(run(str(folder), "s3://raw", "--json").stdout)

    assert (facts["uploaded"], facts["skipped"], facts["bytes"]) == (2, 1, 8)
    versions = s3.list_object_versions(Bucket="raw", Prefix="cam/ä b+c/2.jpg")["Versions"]
    assert len(versions) == 1


def test_upload__one_file_that_fails_stops_no_other(
    s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FolderUploads.put

    def throttled_once(self: FolderUploads, bucket: str, key: str, body: bytes | Path) -> str:
        if key == "cam/1.jpg":
            raise TransientError("SlowDown")
        return put(self, bucket, key, body)

    monkeypatch.setattr(FolderUploads, "put", throttled_once)
    result = run(str(folder), "s3://raw", "--json")

    facts = json.loads(result.stdout)
    assert result.exit_code == 1
    assert facts["uploaded"] == 1
    assert facts["failed"] == {"cam/1.jpg": "SlowDown"}


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("raw/robot-1", "s3://bucket/prefix"),
        ("s3://", "s3://bucket/prefix"),
        ("s3://absent/x", "the bucket does not exist"),
    ],
)
def test_upload__a_wrong_location_is_named_with_the_remedy(
    s3: Any, folder: Path, location: str, words: str
) -> None:
    error = run(str(folder), location).exception
    assert isinstance(error, UserError)
    assert words in str(error)


def test_upload__an_empty_folder_is_a_mistake(s3: Any, tmp_path: Path) -> None:
    error = run(str(tmp_path), "s3://raw").exception
    assert isinstance(error, UserError)
    assert "has no files" in str(error)


def test_download__brings_back_what_was_put_and_stays_in_its_folder(
    s3: Any, tmp_path: Path
) -> None:
    s3.put_object(Bucket="raw", Key="snap/a/1.jpg", Body=b"1")
    s3.put_object(Bucket="raw", Key="evil/../../2.jpg", Body=b"2")
    uploads = FolderUploads()
    (written,) = uploads.download(S3Location("raw", "snap"), tmp_path / "out")
    assert written.read_bytes() == b"1"
    assert written.relative_to((tmp_path / "out").resolve()).as_posix() == "a/1.jpg"
    with pytest.raises(UserError, match="outside"):
        uploads.download(S3Location("raw", "evil"), tmp_path / "out")


def test_upload__a_file_whose_name_is_not_utf8_fails_alone(s3: Any, folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(b"latin")
    result = run(str(folder), "s3://raw", "--json")
    facts = json.loads(result.stdout)
    assert (facts["uploaded"], result.exit_code) == (2, 1)
    assert list(facts["failed"]) == ["caf\\udce9.jpg"]
    assert "rename the file" in facts["failed"]["caf\\udce9.jpg"]


def test_upload__a_bucket_name_s3_would_never_allow_is_the_users_mistake(
    s3: Any, folder: Path
) -> None:
    error = run(str(folder), "s3://Bad_Bucket!/x").exception
    assert isinstance(error, UserError)
    assert "check the bucket" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("bucket", ["pixsift-derived", "pixsift-curated"])
def test_upload__into_a_bucket_that_pixsift_writes_to_is_refused(
    s3: Any, folder: Path, bucket: str
) -> None:
    s3.create_bucket(Bucket=bucket)
    result = run(str(folder), f"s3://{bucket}/robot-1")
    assert isinstance(result.exception, UserError)
    assert "choose a source bucket" in str(result.exception)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
