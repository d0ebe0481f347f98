"""Chooses how long messages wait that an outage has interrupted. One message costs three batched
requests each time it is received too early. So the delays are spread such that a consumer receives
about ``_LOOKS_PER_SECOND`` of them per second: a few messages are back seconds after the outage, a
thousand within forty seconds, and a hundred thousand do not crowd out healthy buckets.
"""

import random
import threading
import time
from typing import Final

from pixsift.adapters.aws.sqs import MAX_DELAY_SECONDS
from pixsift.threads import Clock

SHORTEST_SECONDS: Final = 4.0
_LOOKS_PER_SECOND: Final = 25.0


class WaitingRoom:
    """Counts the messages that wait, per outage, by how many were sent away in one delay."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rounds: dict[str, tuple[float, int, int]] = {}
        """Name of the outage -> start of its round, count in it, count in the round before."""

    def delay_seconds(self, outage: str, messages: int) -> int:
        """The delay for ``messages`` that are sent away now; spread by up to a quarter."""
        now = self._clock()
        with self._lock:
            started, count, before = self._rounds.get(outage, (now, 0, 0))
            if now - started > self._delay(max(count, before)):
                started, count, before = now, 0, count
            count += messages
            self._rounds[outage] = started, count, before
        delay = self._delay(max(count, before)) * (0.75 + 0.25 * random.random())
        return round(min(max(delay, SHORTEST_SECONDS), MAX_DELAY_SECONDS))

    @staticmethod
    def _delay(waiting: int) -> float:
        return max(SHORTEST_SECONDS, waiting / _LOOKS_PER_SECOND)
