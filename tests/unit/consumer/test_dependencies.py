"""The gate in front of receiving, and what a refusal by S3 means."""

import threading
from typing import Any, cast

from pixsift.adapters.aws.s3 import ObjectHead, S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import AccessDeniedError, DependencyDownError, TransientError
from pixsift.telemetry import Telemetry, make_logger
from pixsift_consumer.dependencies import Dependencies, SourceAccess

ONE = ObjectVersion("b", "one", "v1")
REFUSAL = AccessDeniedError("403")


class Probe:
    """Raises while it is told to."""

    def __init__(self) -> None:
        self.error: DependencyDownError | None = None
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.error:
            raise self.error


def gate(probe: Probe) -> Dependencies:
    return Dependencies(
        {"it": probe}, logger=make_logger("test", "CRITICAL"), telemetry=Telemetry("test"),
        first_pause_seconds=0.001,
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


class Bucket:
    """HEAD by a table: missing here means refused."""

    def __init__(self, *readable: ObjectVersion) -> None:
        self.readable = set(readable)

    def head(self, bucket: str, key: str, *, version: ObjectVersion) -> ObjectHead | None:
        if version not in self.readable:
            raise REFUSAL
        return None


def refused() -> None:
    raise REFUSAL


def access(bucket: Bucket, clock: Any = lambda: 0.0) -> SourceAccess:
    return SourceAccess(cast(S3Objects, bucket), clock=clock)


def test_refused__one_object_while_another_still_answers() -> None:
    judge = access(Bucket(ONE))
    judge.succeeded(ONE)
    meaning = judge.refused(refused, REFUSAL)
    assert isinstance(meaning, TransientError) and meaning.reason == "access_denied"
    judge.probe()  # and receiving goes on


def test_refused__everything_is_an_outage_until_something_answers() -> None:
    bucket = Bucket()
    judge = access(bucket)
    judge.succeeded(ONE)
    assert judge.refused(refused, REFUSAL) is REFUSAL
    assert raises_refusal(judge)
    bucket.readable.add(ONE)
    assert not raises_refusal(judge)


def test_refused__without_a_canary_the_object_itself_is_asked_for_a_while() -> None:
    now = [0.0]
    judge = access(Bucket(), clock=lambda: now[0])
    assert judge.refused(refused, REFUSAL) is REFUSAL
    assert raises_refusal(judge)
    now[0] = 301.0
    assert not raises_refusal(judge), "another object may fare better"


def raises_refusal(judge: SourceAccess) -> bool:
    try:
        judge.probe()
    except AccessDeniedError:
        return True
    return False
