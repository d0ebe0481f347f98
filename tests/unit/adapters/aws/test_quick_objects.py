"""Whole objects through obstore: the same answers as boto3, and when to step aside."""

from collections.abc import Iterator

import pytest

from faults.stub_aws import RAW, Fault, StubAws
from pixsift.adapters.aws.client import s3_client
from pixsift.adapters.aws.quick_objects import _PAUSE_SECONDS, QuickObjects
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import AccessDeniedError, ObjectGoneError, PermanentError, TransientError

KEYS = (
    "robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg", "a b+c.jpg", "n\u00e4her \u4e2d.jpg",
    "a%20b%2525.jpg", "a#b?c=d&e.jpg", "a//b.jpg", "/a.jpg", "a.jpg", "a.jpg/", "a/../b.jpg",
    "~*:@,(){}[]|^`'.jpg",
)  # fmt: skip


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubAws]:
    with StubAws() as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def quick_objects() -> S3Objects:
    return S3Objects(quick=True, sleep=lambda seconds: None)


def test_fetch__every_key_as_boto3_does(aws: StubAws) -> None:
    versions = [
        ObjectVersion(RAW, key, aws.raw.put(key, f"{number}".encode(), {"robot": "r2"}).version_id)
        for number, key in enumerate(KEYS)
    ]
    for version in versions:
        mine, theirs = quick_objects().fetch(version), S3Objects().fetch(version)
        assert (mine.body, mine.etag, mine.metadata) == (theirs.body, theirs.etag, theirs.metadata)


def test_fetch__the_exact_version_or_the_exact_etag(aws: StubAws) -> None:
    first = aws.raw.put("a.jpg", b"first")
    aws.raw.put("a.jpg", b"second")
    objects = quick_objects()
    assert objects.get(ObjectVersion(RAW, "a.jpg", first.version_id)) == b"first"
    with pytest.raises(ObjectGoneError) as caught:
        objects.get(ObjectVersion(RAW, "a.jpg", f"etag:{first.etag}"))
    assert caught.value.reason == "overwritten"


def test_fetch__plain_success_needs_one_call(aws: StubAws) -> None:
    version = ObjectVersion(RAW, "a.jpg", aws.raw.put("a.jpg", b"1").version_id)
    quick_objects().get(version)
    assert aws.calls["GetObject"] == 1


def test_fetch__size_is_told_before_the_body_and_may_be_refused(aws: StubAws) -> None:
    version = ObjectVersion(RAW, "a.jpg", aws.raw.put("a.jpg", b"x" * 100).version_id)
    sizes: list[int] = []
    assert quick_objects().fetch(version, max_bytes=100, reserve=sizes.append).body == b"x" * 100
    assert sizes == [100]
    with pytest.raises(PermanentError) as caught:
        quick_objects().fetch(version, max_bytes=99)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("GetObject", 403, "AccessDenied"), AccessDeniedError),
        (Fault("GetObject", 403, "InvalidObjectState"), PermanentError),
        (Fault("GetObject", 404, "NoSuchVersion"), ObjectGoneError),
        (Fault("GetObject", 503, "SlowDown"), TransientError),
        (Fault("GetObject", cut_at=3), TransientError),
    ],
)
def test_fetch__errors_are_told_apart_by_boto3(
    aws: StubAws, fault: Fault, error: type[Exception]
) -> None:
    version = ObjectVersion(RAW, "a.jpg", aws.raw.put("a.jpg", b"1234567890").version_id)
    aws.faults.append(fault)
    with pytest.raises(error):
        quick_objects().fetch(version)


def test_fetch__a_cut_body_is_asked_for_again(aws: StubAws) -> None:
    version = ObjectVersion(RAW, "a.jpg", aws.raw.put("a.jpg", b"1234567890").version_id)
    aws.faults.append(Fault("GetObject", cut_at=3, times=2))
    assert quick_objects().get(version) == b"1234567890"


def test_put__type_and_bytes_arrive(aws: StubAws) -> None:
    objects = quick_objects()
    assert objects.put("pixsift-derived", "thumbnails/a.webp", b"1", content_type="image/webp")
    assert aws.derived.keys["thumbnails/a.webp"][0].body == b"1"
    assert objects.put("pixsift-derived", "a//b", b"2")
    assert aws.derived.keys["a//b"][0].body == b"2"


def test_get__a_bucket_that_only_boto3_gets_through_to_is_left_to_it(aws: StubAws) -> None:
    version = ObjectVersion(RAW, "a.jpg", aws.raw.put("a.jpg", b"1").version_id)
    now = [1000.0]
    quick = QuickObjects(s3_client(), clock=lambda: now[0])

    def ask(*, works: bool) -> bool:
        aws.faults[:] = [] if works else [Fault("GetObject", 503, "SlowDown")]
        found = quick.get(version, lambda size: None) is not None
        if not found:
            quick.boto3_succeeded(RAW)
        return found

    for _ in range(3):
        assert [ask(works=False), ask(works=False), ask(works=True)] == [False, False, True]
    for _ in range(3):  # in a row
        ask(works=False)
    calls = aws.calls["GetObject"]
    for _ in range(9):  # traffic goes on meanwhile, and does not prolong the pause
        now[0] += _PAUSE_SECONDS / 10
        assert not ask(works=True)
    assert aws.calls["GetObject"] == calls
    now[0] += _PAUSE_SECONDS / 10
    quick.boto3_succeeded(RAW)  # of a call that was begun during the pause
    assert ask(works=True)
