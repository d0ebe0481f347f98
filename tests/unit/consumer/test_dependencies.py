"""The gate in front of receiving, and what a refusal by S3 means."""

import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, cast

import pytest

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import (
    AccessDeniedError,
    BucketDownError,
    DependencyDownError,
    ObjectGoneError,
    PixsiftError,
    TransientError,
)
from pixsift.telemetry import Telemetry, make_logger
from pixsift_consumer.dependencies import (
    CALM_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Dependencies,
    SourceAccess,
)

ONE = ObjectVersion("b", "one", "v1")
OTHER = ObjectVersion("other", "one", "v1")
REFUSAL = AccessDeniedError("403")
LOGGER = make_logger("test", "CRITICAL")


class Probe:
    """Raises while the test wants it to."""

    def __init__(self) -> None:
        self.error: DependencyDownError | None = None
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.error:
            raise self.error


def gate(probe: Probe, judge: SourceAccess | None = None, clock: Any = monotonic) -> Dependencies:
    return Dependencies(
        {"it": probe}, judge or access(Bucket()), logger=LOGGER, telemetry=Telemetry("test"),
        first_pause_seconds=0.001, clock=clock,
    )  # fmt: skip


def test_are_up__asks_nobody_while_nothing_was_reported() -> None:
    probe = Probe()
    assert gate(probe).are_up(threading.Event())
    assert probe.asked == 0


def test_are_up__closed_until_every_probe_answers() -> None:
    probe, stop = Probe(), threading.Event()
    dependencies = gate(probe)
    dependencies.report(DependencyDownError("no database"))
    probe.error = DependencyDownError("still not")
    assert not dependencies.are_up(stop) and not dependencies.are_up(stop)
    probe.error = None
    assert dependencies.are_up(stop)
    assert probe.asked == 3
    assert dependencies.are_up(stop) and probe.asked == 3


def test_are_up__never_after_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    dependencies = gate(Probe())
    assert not dependencies.are_up(stop)
    dependencies.report(DependencyDownError("x"))
    assert not dependencies.are_up(stop)


def test_report__an_outage_that_comes_back_at_once_finds_the_long_pause() -> None:
    """The probe answers, the work fails: the gate must not open and close all the time."""
    now = [0.0]
    dependencies = gate(Probe(), clock=lambda: now[0])
    pauses = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return False

    stop = Stop()
    for _ in range(6):
        dependencies.report(DependencyDownError("disk full"))
        assert dependencies.are_up(stop)
    assert pauses == [0.001 * 2**n for n in range(6)]
    now[0] += CALM_SECONDS + 1
    dependencies.report(DependencyDownError("disk full"))
    assert dependencies.are_up(stop) and pauses[-1] == 0.001


class Bucket:
    """S3 by a table: what is missing here is refused, or fails in another way."""

    def __init__(self, *readable: ObjectVersion, error: PixsiftError = REFUSAL) -> None:
        self.readable = set(readable)
        self.error = error
        self.lists = True

    def read_first_byte(self, version: ObjectVersion) -> None:
        if version not in self.readable:
            raise self.error

    def list_versions(self, bucket: str, key: str) -> list[object]:
        if not self.lists:
            raise self.error
        return []


ERRORS = [REFUSAL, TransientError("503"), DependencyDownError("no route")]


def failing(error: PixsiftError) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def access(bucket: Bucket, clock: Any = monotonic) -> SourceAccess:
    return SourceAccess(
        cast(S3Objects, bucket), logger=LOGGER, telemetry=Telemetry("test"), clock=clock,
        first_pause_seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_failed__one_object_while_another_still_answers(error: PixsiftError) -> None:
    judge = access(Bucket(ONE))
    judge.succeeded(ONE, size_bytes=1)
    meaning = judge.failed("b", failing(error), error)
    assert isinstance(meaning, TransientError)
    assert meaning.reason == ("access_denied" if error is REFUSAL else "try_again")
    assert not judge.is_down("b")


@pytest.mark.parametrize("error", ERRORS)
def test_failed__everything_is_an_outage_until_something_answers(error: PixsiftError) -> None:
    bucket = Bucket(error=error)
    judge = access(bucket)
    judge.succeeded(ONE, size_bytes=1)
    assert isinstance(judge.failed("b", failing(error), error), BucketDownError)
    judge.probe_due()
    assert judge.is_down("b") and judge.nothing_answers
    with pytest.raises(BucketDownError):
        judge.check("b")
    bucket.readable.add(ONE)
    judge.probe_due()
    assert not judge.is_down("b") and not judge.nothing_answers


def test_failed__another_bucket_goes_on() -> None:
    judge = access(Bucket(OTHER))
    judge.succeeded(OTHER, size_bytes=1)
    judge.failed("b", failing(REFUSAL), REFUSAL)
    assert judge.is_down("b") and not judge.is_down("other")
    assert not judge.nothing_answers


def test_failed__a_listing_is_judged_by_a_listing() -> None:
    bucket = Bucket(ONE, error=TransientError("503"))
    bucket.lists = False
    judge = access(bucket)
    judge.succeeded(ONE, size_bytes=1)
    error = TransientError("503")
    meaning = judge.failed("b", failing(error), error, listing=True)
    assert isinstance(meaning, BucketDownError)


def test_probe_due__repeats_the_call_that_failed() -> None:
    """A canary that answers proves the bucket; without one, only the same call does."""
    judge = access(Bucket())
    answers = [TransientError("503"), TransientError("503"), None]

    def again() -> None:
        if (error := answers.pop(0)) is not None:
            raise error

    judge.failed("b", again, TransientError("503"))
    for left in (True, True, False):
        sleep(0.002)
        judge.probe_due()
        assert judge.is_down("b") is left


def test_probe_due__that_the_object_is_gone_is_an_answer() -> None:
    judge = access(Bucket())
    judge.failed("b", failing(ObjectGoneError("deleted")), TransientError("503"))
    judge.probe_due()
    assert not judge.is_down("b")


def test_probe_due__without_a_canary_other_objects_are_tried_after_a_while() -> None:
    now = [0.0]
    judge = access(Bucket(), clock=lambda: now[0])
    judge.failed("b", failing(REFUSAL), REFUSAL)
    now[0] = 60.0
    judge.probe_due()
    assert judge.is_down("b")
    now[0] = 301.0
    judge.probe_due()
    assert not judge.is_down("b"), "another object may fare better"


def test_are_up__with_no_bucket_that_answers_a_look_now_and_then() -> None:
    now = [0.0]
    judge = access(Bucket(), clock=lambda: now[0])
    dependencies = gate(Probe(), judge, clock=lambda: now[0])
    judge.failed("b", failing(REFUSAL), REFUSAL)
    stop = threading.Event()
    assert dependencies.are_up(stop), "the first look"
    assert not dependencies.are_up(stop)
    now[0] += LONGEST_PAUSE_SECONDS
    assert dependencies.are_up(stop)
