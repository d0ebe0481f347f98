"""Whether to receive at all: an outage must not use up the receives of healthy messages.

There are two kinds of outage. Of *everything* (PostgreSQL, SQS, the decoder): receiving stops until
each dependency answers. Of *one bucket*: its messages wait, and the other buckets continue;
receiving stops only if no bucket is known to answer.

What S3 answers to one object may concern that object or its whole bucket, whatever the answer is: a
refusal (403), 5xx, a time-out, no connection. The last objects that could be read are the canaries
of their bucket: as long as one of them answers the same kind of call, the error concerns only the
object. The probe of an outage repeats the call that failed.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import (
    AccessDeniedError,
    BucketDownError,
    DependencyDownError,
    LoginRefusedError,
    PixsiftError,
    TransientError,
)
from pixsift.telemetry import Telemetry
from pixsift.threads import Clock

Probe = Callable[[], object]
LONGEST_PAUSE_SECONDS: Final = 15.0
CALM_SECONDS: Final = 60.0
"""How long a dependency must answer before its next outage starts with the short pause again."""
_CANARIES: Final = 8
_HEALTHY_SECONDS: Final = 600.0
"""A bucket that answered within this time counts as up until it is asked again."""


class Dependencies:
    """A gate in front of receiving. Open until an outage is reported."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        access: "SourceAccess",
        *,
        logger: Logger,
        telemetry: Telemetry,
        first_pause_seconds: float = 0.5,
        clock: Clock = time.monotonic,
    ) -> None:
        """probes: of what everything needs; each raises PixsiftError while it is down."""
        self._probes = probes
        self._access = access
        self._logger = logger
        self._telemetry = telemetry
        self._first_pause = first_pause_seconds
        self._pause = first_pause_seconds
        self._clock = clock
        self._opened_at = float("-inf")
        self._trial_at = 0.0
        self._down = threading.Event()
        self.lost: LoginRefusedError | None = None
        """Set once only a new process can continue."""

    @property
    def are_down(self) -> bool:
        """Whether an outage of everything was reported and has not yet passed."""
        return self._down.is_set()

    def report(self, error: DependencyDownError) -> None:
        """Stop receiving until every probe answers. A bucket's outage is known already."""
        if isinstance(error, BucketDownError) or self._down.is_set():
            return
        if self._clock() - self._opened_at > CALM_SECONDS:
            self._pause = self._first_pause  # else the pause keeps its length: no flapping
        self._down.set()
        self._telemetry.count("dependency_down")
        self._logger.error("a dependency is down: receiving stops", extra={"error": str(error)})

    def are_up(self, stop: threading.Event) -> bool:
        """Whether to receive. During an outage: after a pause that grows, and another probe."""
        if self._down.is_set() and not self._try_again(stop):
            return False
        if self._access.nothing_answers and not self._trial_is_due():
            stop.wait(self._first_pause)
            return False
        return not stop.is_set()

    def _try_again(self, stop: threading.Event) -> bool:
        if stop.wait(self._pause) or not self._all_answer():
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            return False
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._opened_at = self._clock()
        self._down.clear()
        self._logger.info("all dependencies respond again")
        return True

    def _trial_is_due(self) -> bool:
        """No bucket is known to answer, but another one may: process a few messages now and
        then."""
        now = self._clock()
        if now < self._trial_at:
            return False
        self._trial_at = now + LONGEST_PAUSE_SECONDS
        return True

    def _all_answer(self) -> bool:
        for name, probe in self._probes.items():
            try:
                probe()
            except PixsiftError as error:
                if isinstance(error, LoginRefusedError):
                    self.lost = error
                self._logger.warning("still down", extra={"probe": name, "error": str(error)})
                return False
        return True


@dataclass(slots=True)
class _Outage:
    """A bucket that does not answer."""

    error: PixsiftError
    again: Probe
    """The call that failed; raises PixsiftError while it does."""
    since: float
    pause: float
    ask_at: float


@dataclass(slots=True)
class _Bucket:
    canaries: deque[ObjectVersion] = field(default_factory=lambda: deque(maxlen=_CANARIES))
    answered_at: float = float("-inf")
    outage: _Outage | None = None
    last_pause: float = 0.0
    up_since: float = float("-inf")


class SourceAccess:
    """Which buckets answer, and whether an error concerns one object or its bucket. Thread-safe."""

    def __init__(
        self,
        objects: S3Objects,
        *,
        logger: Logger,
        telemetry: Telemetry,
        first_pause_seconds: float = 0.5,
        give_up_after_seconds: float = 300.0,
        clock: Clock = time.monotonic,
    ) -> None:
        """give_up_after_seconds: with no canary at all (a fresh start, and the first object is
        refused), the bucket is tried with other objects after this long."""
        self._objects = objects
        self._logger = logger
        self._telemetry = telemetry
        self._first_pause = first_pause_seconds
        self._give_up_after = give_up_after_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)

    @property
    def nothing_answers(self) -> bool:
        """Whether a bucket is down, and no other is known to be up."""
        now = self._clock()
        with self._lock:
            states = list(self._buckets.values())
        if not any(state.outage for state in states):
            return False
        return not any(
            state.outage is None and now - state.answered_at < _HEALTHY_SECONDS for state in states
        )

    def is_down(self, bucket: str) -> bool:
        """Whether the bucket's messages have to wait."""
        with self._lock:
            return bucket in self._buckets and self._buckets[bucket].outage is not None

    def check(self, bucket: str) -> None:
        """Raise BucketDownError while the bucket is down, without waiting for it again."""
        if self.is_down(bucket):
            raise BucketDownError(bucket, f"bucket {bucket} does not respond")

    def succeeded(self, version: ObjectVersion, *, size_bytes: int) -> None:
        """Remember a version that S3 has just returned."""
        with self._lock:
            state = self._buckets[version.bucket]
            state.answered_at = self._clock()
            if size_bytes:  # an empty object has no first byte
                state.canaries.append(version)

    def failed(
        self, bucket: str, again: Probe, error: PixsiftError, *, listing: bool = False
    ) -> PixsiftError:
        """The error to raise: of the object alone (TransientError), or of its bucket (an outage).
        again: repeats the failed call. listing: the call listed versions.
        """
        if self._a_canary_answers(bucket, listing=listing):
            if isinstance(error, AccessDeniedError):
                return TransientError(f"access denied: {error}", reason="access_denied")
            return error if isinstance(error, TransientError) else TransientError(str(error))
        self._close(bucket, again, error)
        return BucketDownError(bucket, f"bucket {bucket}: {error}")

    def probe_due(self) -> None:
        """Ask the buckets that are down, each when its pause is over."""
        now = self._clock()
        with self._lock:
            due = [(name, state.outage) for name, state in self._buckets.items()
                   if state.outage is not None and now >= state.outage.ask_at]  # fmt: skip
        for bucket, outage in due:
            self._probe(bucket, outage)

    def _close(self, bucket: str, again: Probe, error: PixsiftError) -> None:
        now = self._clock()
        with self._lock:
            state = self._buckets[bucket]
            if state.outage is not None:
                return
            calm = now - state.up_since > CALM_SECONDS
            pause = self._first_pause if calm else min(2 * state.last_pause, LONGEST_PAUSE_SECONDS)
            state.outage = _Outage(error, again, now, pause, now + pause)
        self._telemetry.count("dependency_down")
        self._logger.error("a bucket is down: its messages wait",
                           extra={"bucket": bucket, "error": str(error)})  # fmt: skip

    def _probe(self, bucket: str, outage: _Outage) -> None:
        error = self._still_down(bucket, outage)
        now = self._clock()
        if error is not None:
            self._logger.warning("still down", extra={"bucket": bucket, "error": str(error)})
            outage.pause = min(2 * outage.pause, LONGEST_PAUSE_SECONDS)
            outage.ask_at = now + outage.pause
            return
        with self._lock:
            state = self._buckets[bucket]
            state.outage = None
            state.up_since = state.answered_at = now
            state.last_pause = outage.pause
        self._logger.info("a bucket responds again", extra={"bucket": bucket})

    def _still_down(self, bucket: str, outage: _Outage) -> PixsiftError | None:
        if self._a_canary_answers(bucket):
            return None
        error = self._repeat(outage)
        with self._lock:
            unknown = not self._buckets[bucket].canaries
        tried_long_enough = self._clock() - outage.since >= self._give_up_after
        return None if error is not None and unknown and tried_long_enough else error

    def _repeat(self, outage: _Outage) -> PixsiftError | None:
        """Repeat the failed call; "gone" and "unreadable" count as answers."""
        try:
            outage.again()
        except (TransientError, DependencyDownError) as error:
            return error
        except PixsiftError:
            return None
        return None

    def _a_canary_answers(self, bucket: str, *, listing: bool = False) -> bool:
        with self._lock:
            canaries = list(self._buckets[bucket].canaries)
        for canary in reversed(canaries):
            try:
                if listing:
                    self._objects.list_versions(canary.bucket, canary.key)
                else:
                    self._objects.read_first_byte(canary)
            except AccessDeniedError:
                continue  # we may have lost access to this one: ask the next
            except (TransientError, DependencyDownError):
                return False  # without an answer each canary costs seconds
            except PixsiftError:
                return True  # for example deleted in the meantime: that is an answer
            return True
        return False
