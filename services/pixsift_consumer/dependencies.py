"""Whether to receive at all: an outage must not use up the receive counts of healthy messages.

A refusal (403) by S3 is the hard case, since it may concern one object or everything. The last
objects that could be read are the canaries: as long as one of them still answers, the refusal is
the object's own affair, and its message goes round until the DLQ ends it as ``failed``.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.core.identity import ObjectVersion
from pixsift.errors import AccessDeniedError, DependencyDownError, PixsiftError, TransientError
from pixsift.telemetry import Telemetry

Probe = Callable[[], object]
_LONGEST_PAUSE_SECONDS = 15.0
_CANARIES = 8


class Dependencies:
    """A gate in front of receiving. Open until somebody reports an outage."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        *,
        logger: Logger,
        telemetry: Telemetry,
        first_pause_seconds: float = 0.5,
    ) -> None:
        self._probes = probes
        self._logger = logger
        self._telemetry = telemetry
        self._first_pause = first_pause_seconds
        self._pause = first_pause_seconds
        self._down = threading.Event()

    @property
    def are_down(self) -> bool:
        """Whether an outage was reported and has not yet passed."""
        return self._down.is_set()

    def report(self, error: DependencyDownError) -> None:
        """Stop receiving until every probe answers."""
        if not self._down.is_set():
            self._down.set()
            self._telemetry.count("dependency_down")
            self._logger.error("a dependency is down: receiving stops", extra={"error": str(error)})

    def are_up(self, stop: threading.Event) -> bool:
        """Whether to receive. During an outage: after a pause that grows, and another probe."""
        if self._down.is_set() and not stop.wait(self._pause) and self._all_answer():
            self._down.clear()
            self._logger.info("all dependencies answer again")
        up = not self._down.is_set()
        self._pause = self._first_pause if up else min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return up and not stop.is_set()

    def _all_answer(self) -> bool:
        for name, probe in self._probes.items():
            try:
                probe()
            except PixsiftError as error:
                self._logger.warning("still down", extra={"probe": name, "error": str(error)})
                return False
        return True


class SourceAccess:
    """Tells a refused object from a refusal of everything."""

    def __init__(
        self,
        objects: S3Objects,
        *,
        give_up_after_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """give_up_after_seconds: with no canary at all (a fresh start, and the first object is
        refused), receiving goes on after this long to see whether others fare better."""
        self._objects = objects
        self._give_up_after = give_up_after_seconds
        self._clock = clock
        self._canaries: deque[ObjectVersion] = deque(maxlen=_CANARIES)
        self._refused: tuple[Probe, float] | None = None

    def succeeded(self, version: ObjectVersion) -> None:
        """Remember a version that S3 has just handed out."""
        self._canaries.append(version)

    def refused(self, again: Probe, error: AccessDeniedError) -> PixsiftError:
        """What a refusal means: the object's own trouble (TransientError), or an outage.

        again: makes the refused call once more; raises AccessDeniedError while it is refused.
        """
        if self._a_canary_answers():
            return TransientError(f"access_denied: {error}", reason="access_denied")
        if self._refused is None:
            self._refused = (again, self._clock())
        return error

    def probe(self) -> None:
        """Raise the refusal while it stands."""
        if self._refused is None or self._a_canary_answers():
            return
        again, since = self._refused
        try:
            again()
        except AccessDeniedError:
            if self._canaries or self._clock() - since < self._give_up_after:
                raise
        self._refused = None

    def _a_canary_answers(self) -> bool:
        for canary in list(self._canaries):
            with suppress(AccessDeniedError):
                # Deleted in the meantime is an answer as well.
                self._objects.head(canary.bucket, canary.key, version=canary)
                return True
        return False
