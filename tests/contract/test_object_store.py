"""What every place where objects are must do: S3 (moto) and a folder of this machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.local.folder_objects import FolderObjects
from pixsift.core.files import folder_bucket
from pixsift.core.identity import ObjectVersion, version_id_of
from pixsift.errors import DependencyDownError, ObjectGoneError, PermanentError, TransientError
from pixsift.ports import FetchedObject, ObjectStore

Place = tuple[ObjectStore, str]
"""A store, and an empty bucket of it."""


@pytest.fixture(params=["s3", "s3 without versions", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield FolderObjects(), folder_bucket(str(tmp_path))
        return
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="raw")
        if request.param == "s3":
            client.put_bucket_versioning(
                Bucket="raw", VersioningConfiguration={"Status": "Enabled"}
            )
        yield S3Objects(client=client, sleep=lambda seconds: None), "raw"


def listed(place: Place, prefix: str = "", after: str = "") -> list[ObjectVersion]:
    store, bucket = place
    return [
        ObjectVersion(bucket, line.key, identity)
        for line in store.iter_versions(bucket, prefix, after=after)
        if (identity := version_id_of(line.version.version_id, line.version.etag))
    ]


def exactly(fetched: FetchedObject, asked: ObjectVersion) -> ObjectVersion:
    return fetched.version or asked


def test_put__what_was_put_is_listed_and_read(place: Place) -> None:
    store, bucket = place
    assert store.put(bucket, "a/b.jpg", b"bytes", content_type="image/jpeg")
    (version,) = listed(place)
    assert (version.bucket, version.key) == (bucket, "a/b.jpg")
    assert store.fetch(version).body == store.get(version) == store.read(bucket, "a/b.jpg")
    store.read_first_byte(version)


def test_put__only_if_absent_leaves_what_is_there(place: Place) -> None:
    store, bucket = place
    assert store.put(bucket, "k", b"first", only_if_absent=True)
    assert not store.put(bucket, "k", b"second", only_if_absent=True)
    assert store.read(bucket, "k") == b"first"


def test_put__overwrites(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"first")
    store.put(bucket, "k", b"the second")
    assert store.read(bucket, "k") == b"the second"


def test_iter_versions__in_the_order_of_bytes_below_a_prefix_behind_a_key(place: Place) -> None:
    store, bucket = place
    keys = ["a-c", "a.d", "a/b", "a/ü", "a0", "b/c/d", "b/c.e", "é"]
    for key in reversed(keys):
        store.put(bucket, key, key.encode())
    ordered = sorted(keys, key=str.encode)
    assert [version.key for version in listed(place)] == ordered
    assert [v.key for v in listed(place, prefix="a/")] == ["a/b", "a/ü"]
    assert [v.key for v in listed(place, prefix="b/c")] == ["b/c.e", "b/c/d"]
    for index, key in enumerate(ordered):
        assert [v.key for v in listed(place, after=key)] == ordered[index + 1 :]


def test_fetch__knows_the_size_before_the_bytes_and_refuses_too_many(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"12345")
    (version,) = listed(place)
    told: list[int] = []
    assert store.fetch(version, max_bytes=5, reserve=told.append).body == b"12345"
    assert told == [5]
    with pytest.raises(PermanentError, match="too_large"):
        store.fetch(version, max_bytes=4)


def test_fetch__an_exact_version_stays_exact(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"one")
    asked = listed(place)[0]
    first = exactly(store.fetch(asked), asked)
    assert store.fetch(first).body == b"one"
    store.put(bucket, "k", b"another")
    if first.is_versioned:
        assert store.fetch(first).body == b"one"
    else:
        for version in (asked, first):
            with pytest.raises(ObjectGoneError):
                store.fetch(version)


def test_fetch__what_is_deleted_is_gone(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"one")
    (version,) = listed(place)
    store.delete(bucket, "k", version_id=version.version_id if version.is_versioned else None)
    store.delete(bucket, "never-there")
    with pytest.raises(ObjectGoneError):
        store.fetch(version)
    with pytest.raises(ObjectGoneError):
        store.read(bucket, "k")
    assert store.head(bucket, "k") is None
    assert store.list_versions(bucket, "k") == []


def test_head__tells_the_version_that_fetch_takes(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"12345")
    head = store.head(bucket, "k")
    assert head is not None and head.size_bytes == 5
    identity = version_id_of(head.version_id, head.etag)
    assert identity is not None
    version = ObjectVersion(bucket, "k", identity)
    assert store.fetch(version).body == b"12345"
    if version.etag is None:  # moto 5.2 compares the ETag of a HEAD with its quotes
        assert store.head(bucket, "k", version=version) is not None
    (line,) = store.list_versions(bucket, "k")
    assert version_id_of(line.version_id, line.etag) == identity


def test_head__of_another_version_than_the_one_there(place: Place) -> None:
    store, bucket = place
    store.put(bucket, "k", b"12345")
    (version,) = listed(place)
    if version.is_versioned:
        pytest.skip("this store keeps older versions")
    store.put(bucket, "k", b"123456")
    assert store.head(bucket, "k", version=version) is None


def test_check_bucket__of_one_that_is_not_there(place: Place) -> None:
    store, bucket = place
    store.check_bucket(bucket)
    with pytest.raises((DependencyDownError, TransientError)):
        store.check_bucket(bucket + "-missing")


# Folders alone: what only a file system has.

Make = Callable[[Path, Path], object]
"""Makes something at the first path, given a file outside of the folder."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    (made / "a.jpg").write_bytes(b"a")
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda path, outside: path.symlink_to(outside),
        lambda path, outside: path.symlink_to(outside.parent),
        lambda path, outside: path.symlink_to("nowhere"),
        lambda path, outside: path.symlink_to(path.parent),  # a circle
        lambda path, outside: os.mkfifo(path),
    ],
)
def test_folder__links_out_of_it_and_special_files_are_passed_over(
    make: Make, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    make(folder / "z.jpg", outside)
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    assert [line.key for line in store.iter_versions(bucket)] == ["a.jpg"]
    with pytest.raises(PermanentError):
        store.fetch(ObjectVersion(bucket, "z.jpg", "file:6-0"))


def test_folder__a_link_to_a_file_inside_is_an_object(folder: Path) -> None:
    (folder / "z.jpg").symlink_to("a.jpg")
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    assert [line.key for line in store.iter_versions(bucket)] == ["a.jpg", "z.jpg"]


@pytest.mark.parametrize("key", ["../secret.jpg", "x/../../secret.jpg", ""])
def test_folder__no_key_leads_out_of_it(key: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    with pytest.raises(PermanentError, match="leads out"):
        store.read(bucket, key)
    with pytest.raises(PermanentError, match="leads out"):
        store.put(bucket, key, b"")


def test_folder__names_that_are_not_utf8_come_back(folder: Path) -> None:
    names = [b"caf\xe9.jpg", rb"caf\xe9.jpg", b"new\nline.jpg", "ü.jpg".encode(), rb"a\xb"]
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(name)
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    read = {store.read(bucket, line.key) for line in store.iter_versions(bucket)}
    assert read == {*names, b"a"}


def test_folder__the_same_size_and_time_with_other_bytes_is_another_version(folder: Path) -> None:
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    listed_as = ObjectVersion(bucket, "a.jpg", next(store.iter_versions(bucket)).version.version_id)
    first = exactly(store.fetch(listed_as), listed_as)
    before = (folder / "a.jpg").stat()
    (folder / "a.jpg").write_bytes(b"b")
    os.utime(folder / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ObjectGoneError, match="overwritten"):
        store.fetch(first)
    assert exactly(store.fetch(listed_as), listed_as) != first


def test_folder__a_file_that_changes_while_it_is_read_is_tried_again_later(folder: Path) -> None:
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    (line,) = store.iter_versions(bucket)

    def grow(size: int) -> None:
        """Asked for room between the look at the file and its bytes."""
        with (folder / "a.jpg").open("ab") as file:
            file.write(b"more")

    listed_as = ObjectVersion(bucket, "a.jpg", line.version.version_id)
    with pytest.raises(TransientError, match="changed while it was read"):
        store.fetch(listed_as, reserve=grow)
    with pytest.raises(ObjectGoneError, match="overwritten"):
        store.fetch(listed_as)


def test_folder__a_folder_that_vanishes_is_down_and_loses_no_file(folder: Path) -> None:
    store, bucket = FolderObjects(), folder_bucket(str(folder))
    store.check_bucket(bucket)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DependencyDownError, match="is it mounted"):
        store.check_bucket(bucket)
    with pytest.raises(DependencyDownError):
        list(store.iter_versions(bucket))


def test_folder__a_file_system_that_hangs_ends_each_call_and_then_all(folder: Path) -> None:
    """A pipe without a writer, opened so that it waits, stands in for a share that is gone."""
    os.mkfifo(folder / "pipe")
    store = FolderObjects(patience_seconds=0.05)

    def hang() -> int:
        return os.open(folder / "pipe", os.O_RDONLY)

    for _ in range(8):
        with pytest.raises(TransientError, match="no answer within"):
            store._call("x", hang)
    with pytest.raises(DependencyDownError, match="does not respond"):
        store.read(folder_bucket(str(folder)), "a.jpg")
    for _ in range(8):  # let the threads that were left behind go
        os.close(os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK))
